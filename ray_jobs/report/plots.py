"""Pictures for the report, as PNG bytes; no global matplotlib state is touched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_WIDTH: Final = 7.5
"""Of every picture, in inches."""
_GRID: Final = "#e5e5e5"
_BLUES: Final = colormaps["Blues"]

_COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#444444")
"""Distinct also in grey and for colour-blind readers; contrast over 4.5 on white."""


def learning_curves(curves: Mapping[str, Sequence[Sequence[float]]], label: str) -> bytes:
    """One line a run, one colour a name; ``curves[name]`` holds a value an epoch of each run."""
    figure, axes = _figure()
    for colour, (name, runs) in zip(_COLOURS, curves.items(), strict=False):
        for number, values in enumerate(runs):
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=colour,
                marker="o",
                markersize=3,
                linewidth=1.2,
                label=name if number == 0 else None,
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    return _png(figure)


def dots(values: Mapping[str, tuple[float, float | None]], label: str) -> bytes:
    """A dot for each name, with its spread where there is one.

    Dots, not bars: the axis need not start at 0, so lengths would mislead.
    """
    figure, axes = _figure(height=1.0 + 0.45 * len(values))
    for position, (value, spread) in enumerate(values.values()):
        axes.errorbar(value, position, xerr=spread, fmt="o", color=_COLOURS[0], capsize=4)
        axes.annotate(
            f"{value:.4f}",
            (value, position),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
        )
    axes.set_yticks(range(len(values)), labels=list(values))
    axes.set_ylim(len(values) - 0.5, -0.8)
    axes.margins(x=0.12)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_xlabel(label)
    return _png(figure)


def intervals(values: Mapping[str, tuple[float, float, float]], label: str) -> bytes:
    """A dot for each name, with the interval around it: ``values[name]`` is value, low and high.

    A line marks 0, where there is no difference.
    """
    figure, axes = _figure(height=1.0 + 0.4 * len(values))
    for position, (value, low, high) in enumerate(values.values()):
        colour = _COLOURS[4] if low <= 0 <= high else _COLOURS[0]
        # Drawn as a line, since an interval of a bootstrap need not hold its value.
        axes.plot([low, high], [position, position], color=colour, linewidth=2)
        axes.plot(value, position, marker="o", color=colour)
    axes.axvline(0.0, color=_COLOURS[1], linewidth=1)
    axes.set_yticks(range(len(values)), labels=list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_xlabel(label)
    return _png(figure)


def calibration(curves: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> bytes:
    """Mean truth over mean prediction of each bin; on the diagonal, predictions are right."""
    figure, axes = _figure(height=4.5)
    points = [value for curve in curves.values() for point in curve for value in point]
    ends = [min(points), max(points)]
    axes.plot(ends, ends, color=_COLOURS[4], linewidth=1, linestyle="--", label="as predicted")
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        axes.plot(
            [predicted for predicted, _ in curve],
            [actual for _, actual in curve],
            color=colour,
            marker="o",
            markersize=4,
            label=name,
        )
    axes.set_xlabel(f"mean prediction, {unit}")
    axes.set_ylabel(f"mean of what was rated, {unit}")
    axes.legend(frameon=False)
    return _png(figure)


def search_history(values: Sequence[float], label: str, *, higher_is_better: bool = False) -> bytes:
    """Each trial's result, and the best so far."""
    pick = max if higher_is_better else min
    figure, axes = _figure()
    numbers = range(1, len(values) + 1)
    best = [pick(values[:n]) for n in numbers]
    axes.scatter(numbers, values, color=_COLOURS[1], label="trial", zorder=2)
    axes.step(numbers, best, color=_COLOURS[0], where="post", label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    return _png(figure)


def counts(panels: Mapping[str, Mapping[str, int]]) -> bytes:
    """Columns from 0, side by side: ``panels[what][kind]`` is how many there are."""
    figure = Figure(figsize=(_WIDTH, 2.8), layout="constrained")
    for axes, (what, values) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        _plain(axes, grid="y")
        axes.bar(range(len(values)), list(values.values()), color=_COLOURS[0])
        # As many labels as there is room for, the first and others at equal distances.
        step = -(-len(values) // 11)
        axes.set_xticks(range(0, len(values), step), labels=list(values)[::step])
        axes.tick_params(axis="x", rotation=45 if step > 1 else 0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(what)
    return _png(figure)


def residuals(groups: Mapping[str, tuple[float, float]], what: str, unit: str) -> bytes:
    """A bar from 0 for the mean residual of each group, and a dot for its RMSE."""
    figure, axes = _figure(height=3.2)
    positions = range(len(groups))
    axes.bar(
        positions, [mean for mean, _ in groups.values()], color=_COLOURS[0], label="mean residual"
    )
    rmse = [value for _, value in groups.values()]
    axes.plot(positions, rmse, "D", color=_COLOURS[1], markersize=5, label="RMSE")
    axes.axhline(0.0, color=_COLOURS[4], linewidth=1)
    is_crowded = max(map(len, groups)) * len(groups) > 90
    axes.set_xticks(
        positions,
        labels=list(groups),
        rotation=45 if is_crowded else 0,
        ha="right" if is_crowded else "center",
    )
    axes.grid(visible=False, axis="x")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_xlabel(what)
    axes.set_ylabel(unit)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return _png(figure)


def bars(values: Mapping[str, float], label: str) -> bytes:
    """A bar from 0 for each name, the first on top."""
    figure, axes = _figure(height=1.0 + 0.35 * len(values))
    patches = axes.barh(range(len(values)), list(values.values()), color=_COLOURS[0])
    axes.bar_label(patches, fmt="%.2f", padding=4)
    axes.set_yticks(range(len(values)), labels=list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.set_xlabel(label)
    return _png(figure)


@dataclass(frozen=True)
class Coordinate:
    """One scale of ``parallel_coordinates``."""

    name: str
    positions: tuple[float, ...]
    """``[T]`` where each line crosses it, from 0 (left) to 1 (right)."""
    ticks: Mapping[float, str]
    """Positions of the values that are written beside it."""


def parallel_coordinates(scales: Sequence[Coordinate], is_faint: Sequence[bool]) -> bytes:
    """A line for each of T things, through all scales, which lie below one another.

    Lines are coloured by where they cross the first scale; those that are ``is_faint: [T]`` are
    dashed, and that of the lowest value is the thickest.
    """
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.75 * len(scales)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(-0.02, 1.02), ylim=(len(scales) - 0.45, -0.35))
    for row, scale in enumerate(scales):
        axes.plot([0, 1], [row, row], color=_COLOURS[4], linewidth=1)
        axes.text(-0.03, row, scale.name, ha="right", va="center")
        for position, text in scale.ticks.items():
            axes.plot([position] * 2, [row, row + 0.08], color=_COLOURS[4], linewidth=1)
            axes.text(
                position,
                row + 0.14,
                text,
                ha=_side(position),
                va="top",
                fontsize=8,
                zorder=3,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
    first = np.array(scales[0].positions)
    # Best last, so that it lies above the others.
    for line in np.argsort(-first, kind="stable"):
        is_best = line == np.argmin(first)
        axes.plot(
            [scale.positions[line] for scale in scales],
            range(len(scales)),
            color=_COLOURS[1] if is_best else _BLUES(1.0 - 0.4 * first[line]),
            linewidth=2.5 if is_best else 1.2,
            linestyle="--" if is_faint[line] else "-",
            zorder=2,
        )
    return _png(figure)


def _side(position: float) -> str:
    """Alignment of a text at this position that keeps it inside."""
    return "left" if position <= 0 else "right" if position >= 1 else "center"


def _figure(height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes, grid="x")
    return figure, axes


def _plain(axes: Axes, grid: Literal["x", "y"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()
