"""Pictures for the report, as PNG bytes; no global matplotlib state is touched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
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
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
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


def search_history(errors: Sequence[float], label: str) -> bytes:
    """Each trial's result, and the best so far."""
    figure, axes = _figure()
    numbers = range(1, len(errors) + 1)
    best = [min(errors[:n]) for n in numbers]
    axes.scatter(numbers, errors, color=_COLOURS[1], label="trial", zorder=2)
    axes.step(numbers, best, color=_COLOURS[0], where="post", label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    return _png(figure)


def _figure(height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
