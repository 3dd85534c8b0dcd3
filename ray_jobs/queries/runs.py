"""List the runs of a storage, and show what distinguishes two of them."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rich.table import Table

from foundation.console import show, show_json
from foundation.errors import StorageError, shortened
from foundation.spelling import nearest
from foundation.storage import Storage
from ray_jobs.errors import NoRunError
from ray_jobs.results.choices import ChoiceMetrics
from ray_jobs.results.comparison import Comparison, shown
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.paths import RunPaths

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SPLITS: Final = "cross_validate.split_seeds"
_FOLDS: Final = "cross_validate.folds."

T = TypeVar("T", bound="DataclassInstance")

logger = logging.getLogger(__name__)

_REMEDY: Final = "run the command that wrote it again"
_FOLD: Final = "."
"""Between the name of a run and that of its split or fold, which is a run too."""


@dataclass(frozen=True)
class RunSummary:
    """What a run has come to."""

    name: str
    dataset: str
    """Empty before data were read."""
    split: str
    """Kind of the split and its seed."""
    written: str
    """Day and time of its newest result, UTC; empty without one."""
    rmse: float | None
    """Test RMSE of the final rating model."""
    ndcg: float | None
    """Test NDCG@10 of the final choice model, of movies with 4 stars or more."""
    best: str
    """The compared model with the lowest RMSE, and that RMSE: its mean over folds, if there are
    any."""


@dataclass(frozen=True)
class Filter:
    """Which runs to list."""

    text: str = ""
    """A part of the name."""
    dataset: str = ""
    """Name of the data set."""
    parts: bool = False
    """Also the runs that are splits and folds of another one."""

    def takes(self, run: RunSummary) -> bool:
        """Whether to list a run."""
        is_named = self.text.lower() in run.name.lower()
        return is_named and self.dataset in ("", run.dataset)


def list_runs(storage: Storage, wanted: Filter, *, as_json: bool) -> None:
    """Print a line for each run, the newest first.

    Raises:
        NoRunError: if there is no run at all.
    """
    folders = (storage / "runs").list_folders()
    if not folders:
        raise NoRunError(f"{storage / 'runs'} has no run. Name another storage: --set storage=...")
    whole = {folder.name for folder in folders if _has_parts(RunPaths(folder))}
    runs = [
        summary(RunPaths(folder))
        for folder in folders
        if wanted.parts or folder.name.rpartition(_FOLD)[0] not in whole
    ]
    runs = sorted(filter(wanted.takes, runs), key=lambda run: run.written, reverse=True)
    if as_json:
        show_json([asdict(run) for run in runs])
        return
    table = Table(title=f"{len(runs):,} of {len(folders):,} runs in {storage}")
    for column in ("run", "data set", "split", "written, UTC", "test RMSE", "NDCG@10", "compared"):
        right = column in ("test RMSE", "NDCG@10")
        table.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=column == "run"
        )
    for run in runs:
        figures = ("" if value is None else f"{value:.4f}" for value in (run.rmse, run.ndcg))
        table.add_row(run.name, run.dataset, run.split, run.written, *figures, run.best)
    show(table)


def compare_runs(storage: Storage, first: str, second: str, *, as_json: bool) -> None:
    """Print the figures of two runs side by side, and the settings that differ.

    Raises:
        NoRunError: if there is no such run.
    """
    paths = [_paths(storage, name) for name in (first, second)]
    runs = [summary(each) for each in paths]
    differing = dict(_differing(*(_settings(each) for each in paths)))
    if as_json:
        show_json({"runs": [asdict(run) for run in runs], "settings": differing})
        return
    table = Table(title="Results")
    for column in ("", first, second):
        table.add_column(column, overflow="fold")
    for name, values in zip(
        asdict(runs[0]), zip(*(asdict(run).values() for run in runs), strict=True), strict=True
    ):
        if name != "name":
            table.add_row(name, *(_cell(value) for value in values))
    show(table)
    settings = Table(title=f"{len(differing):,} settings differ")
    for column in ("setting", first, second):
        settings.add_column(column, overflow="fold")
    for key, values in differing.items():
        settings.add_row(key, *map(_cell, values))
    show(settings)


def summary(paths: RunPaths) -> RunSummary:
    """What the files of a run say; what is missing or cannot be read is left out."""
    rating = _read(paths.metrics, RunMetrics)
    choice = _read(paths.choice_metrics, ChoiceMetrics)
    comparison = _read(paths.comparison, Comparison)
    settings = _settings(paths)
    liked = choice.test[choice.member].liked if choice and choice.test else None
    files = (paths.metrics, paths.choice_metrics, paths.comparison, paths.folds)
    return RunSummary(
        name=paths.name,
        dataset=_dataset(paths),
        split=f"{settings.get('split.kind', '')}, seed {settings.get('split.seed', '')}",
        written=max((_written(file) for file in files if file.exists()), default=""),
        rmse=rating.test.rmse if rating else None,
        ndcg=liked.metrics["ndcg@10"] if liked else None,
        best=_best(comparison) if comparison else _best_of_folds(paths),
    )


def _has_parts(paths: RunPaths) -> bool:
    """Whether other runs are the splits or folds of this one."""
    settings = _settings(paths)
    folds = any(key.startswith(_FOLDS) for key in settings)
    return paths.folds.exists() or folds or bool(settings.get(_SPLITS))


def _paths(storage: Storage, name: str) -> RunPaths:
    names = [folder.name for folder in (storage / "runs").list_folders()]
    if name not in names:
        close = nearest(name, names)
        hint = f"Did you mean {close!r}?" if close else "movie-ratings runs lists them."
        raise NoRunError(f"there is no run {name!r} in {storage / 'runs'}. {hint}")
    return RunPaths(storage / "runs" / name)


def _read(file: Storage, kind: type[T]) -> T | None:
    """What a file holds; None, with a warning, if it cannot be read."""
    try:
        return file.read_as(kind, _REMEDY) if file.exists() else None
    except StorageError as error:
        logger.warning(str(error))
        return None


def _dataset(paths: RunPaths) -> str:
    values = _json(paths.data)
    return str(values.get("dataset", "")) if isinstance(values, dict) else ""


def _json(file: Storage) -> Any:
    """What a file holds; None, with a warning, if it cannot be read."""
    try:
        return file.read_json() if file.exists() else None
    except (StorageError, ValueError) as error:
        logger.warning("%s cannot be read (%s); %s", file, shortened(str(error)), _REMEDY)
        return None


def _written(file: Storage) -> str:
    (info,) = file.filesystem.get_file_info([file.path])
    return f"{info.mtime.astimezone(UTC):%Y-%m-%d %H:%M}" if info.mtime else ""


def _best(comparison: Comparison) -> str:
    errors = {e.name: comparison.figure(e, "rmse") for e in comparison.entries}
    name = min(errors, key=lambda each: errors[each][0])
    return f"{name}: {shown(*errors[name])}"


def _best_of_folds(paths: RunPaths) -> str:
    values = _json(paths.folds)
    try:
        means = {each["model"]: fmean(each["rmse"]) for each in values["models"]}
    except (TypeError, KeyError, ValueError):
        return ""
    if not means:
        return ""
    name = min(means, key=lambda each: means[each])
    return f"{name}: {means[name]:.4f}"


def _settings(paths: RunPaths) -> dict[str, Any]:
    """The settings of a run, by keys such as ``train.epochs``."""
    if not paths.config.exists():
        return {}
    try:
        return dict(_flat(tomllib.loads(paths.config.read_bytes().decode())))
    except (StorageError, ValueError) as error:
        logger.warning("%s cannot be read (%s); %s", paths.config, shortened(str(error)), _REMEDY)
        return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differing(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in sorted({*first, *second} - {"name"}):
        values = first.get(key), second.get(key)
        if values[0] != values[1]:
            yield key, values


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
