"""Accuracy of one configuration over several seeds, without Ray.

    python -m ray_jobs.preprocess --config configs/models/gaussian-process.toml
    python -m ray_jobs.preprocess --config configs/models/gaussian-process.toml --set
    split.validation=0 python benchmarks/accuracy.py artifacts/prepared/* --config
    configs/models/gaussian-process.toml

The first folder has validation rows; in the second they are training rows. If there are more
folders, name the two to use.

For each seed, a model is trained on the training rows of the first folder, which gives the
validation error and the best epoch. Another is trained on those of the second for that many epochs
and scored on the test rows, like ``ray_jobs.train``, and ``ray_jobs.compare`` with
``compare.refit_on_validation``. The line "ensemble" is the mean prediction of all seeds. ``--set
section.key=value`` changes settings. ``--validation-only`` is for choosing settings: it needs only
the first folder, and reads no test row. ``--peers`` does the same for the baselines, with
``--trials`` settings each.

``--keep FOLDER --label NAME`` stores the predictions for the test rows. ``--differences FOLDER
--against NAME`` prints the differences between one of the stored models and all others on the same
rows, errors by kind of row, and the calibration of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pyarrow import fs

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.config import apply_overrides, read_configs  # noqa: E402
from foundation.config import build as checked  # noqa: E402
from ncf.baselines import DEFAULT_TRIALS, fit_baselines  # noqa: E402
from ncf.config import ExperimentConfig  # noqa: E402
from ncf.data.batches import Batch  # noqa: E402
from ncf.data.dataset import PreparedDataset  # noqa: E402
from ncf.errors import DataError  # noqa: E402
from ncf.evaluation.calibration import Calibration  # noqa: E402
from ncf.evaluation.metrics import ErrorSums  # noqa: E402
from ncf.evaluation.predictions import (  # noqa: E402
    evaluate,
    predict,
)
from ncf.evaluation.significance import UserErrors, differences  # noqa: E402
from ncf.evaluation.slices import errors_by_slice, slicings  # noqa: E402
from ncf.models.targets import Objective  # noqa: E402
from ncf.training.loop import fit  # noqa: E402
from ncf.training.trainer import build  # noqa: E402
from ray_jobs.config import JobConfig, with_parameters  # noqa: E402

_KEPT_ROWS: Final = "rows.txt"

Record = dict[str, Any]
Stars = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Selection:
    """Rows for choosing settings and epochs."""

    prepared: PreparedDataset
    """Preprocessor fitted to the training rows only, and these rows."""
    train: Batch
    validation: Batch

    @classmethod
    def open(cls, folder: str) -> Selection:
        """Read a prepared folder with validation rows."""
        prepared = _open(folder)
        return cls(prepared, _split(prepared, "train"), _split(prepared, "validation"))


@dataclass(frozen=True)
class Scoring:
    """Rows for training and scoring the final models."""

    prepared: PreparedDataset
    """Preprocessor fitted to training and validation rows."""
    train: Batch
    """Training and validation rows."""
    test: Batch
    """Test rows."""

    @classmethod
    def open(cls, folder: str, selection: Selection) -> Scoring:
        """Read a prepared folder without validation rows, with the test rows of ``selection``."""
        prepared = _open(folder)
        rows, expected = _rows_of(prepared, "test"), _rows_of(selection.prepared, "test")
        num_rows, num_expected = prepared.manifest.counts["train"], len(selection.train)
        num_expected += len(selection.validation)
        names = prepared.preprocessor.numeric_names, selection.prepared.preprocessor.numeric_names
        if not rows.equals(expected):
            found = f"{len(rows):,} other test rows than the {len(expected):,}"
        elif num_rows != num_expected:
            found = f"{num_rows:,} training rows, not the {num_expected:,} with validation rows,"
        elif names[0] != names[1]:
            found = f"the features {', '.join(names[0])}, not the {', '.join(names[1])}"
        else:
            return cls(prepared, _split(prepared, "train"), _split(prepared, "test"))
        raise SystemExit(
            f"{folder} has {found} of the folder with validation rows: prepare both with the "
            "same options"
        )


def one_to_choose_on(folders: Sequence[str]) -> str:
    """The only prepared folder with validation rows.

    Exits if there is none, or more than one.
    """
    return _only_one(folders, with_validation=True)


def one_to_score(folders: Sequence[str]) -> str:
    """The only prepared folder without validation rows; exits as above."""
    return _only_one(folders, with_validation=False)


def _only_one(folders: Sequence[str], *, with_validation: bool) -> str:
    counts = {folder: _open(folder).manifest.counts for folder in folders}
    found = [f for f in folders if bool(counts[f]["validation"]) == with_validation]
    if len(found) == 1:
        return found[0]
    listed = "".join(
        f"\n  {folder}: " + ", ".join(f"{number:,} {split}" for split, number in of.items())
        for folder, of in counts.items()
    )
    having, options = (
        ("validation rows", "") if with_validation else ("none", " and --set split.validation=0")
    )
    raise SystemExit(
        f"{len(found)} of these folders have {having}, expected one. Name the one that "
        f"python -m ray_jobs.preprocess prints with the same options{options}:{listed}"
    )


def _open(folder: str) -> PreparedDataset:
    try:
        return PreparedDataset.open(fs.LocalFileSystem(), str(Path(folder).resolve()))
    except DataError as error:
        raise SystemExit(str(error)) from error


def _split(prepared: PreparedDataset, split: str) -> Batch:
    rows = prepared.rows(split)
    assert rows is not None
    return rows


def _rows_of(prepared: PreparedDataset, split: str) -> pa.ChunkedArray:
    return prepared.table(split, ["row"])["row"]


def chosen_on(experiment: ExperimentConfig, rows: Selection) -> Record:
    """Validation errors of one seed, and its best epoch."""
    preprocessor = rows.prepared.preprocessor
    objective = Objective(experiment.train, experiment.time_decay, preprocessor)
    started = time.perf_counter()
    model = build(experiment, preprocessor, rows.train)
    selection = fit(model, rows.train, rows.validation, objective)
    best = selection.epochs[selection.best_epoch - 1].validation
    assert best is not None
    return {
        "seed": experiment.train.seed,
        "epochs": selection.best_epoch,
        "validation": best.stars.as_dict(),
        "seconds": time.perf_counter() - started,
    }


def scored_on(experiment: ExperimentConfig, epochs: int, rows: Scoring) -> tuple[Record, Stars]:
    """Test errors of one seed after ``epochs`` epochs, and its predictions ``[N]``."""
    refit = with_parameters(experiment, {"train.stop_after": epochs})
    objective = Objective(refit.train, refit.time_decay, rows.prepared.preprocessor)
    started = time.perf_counter()
    model = build(refit, rows.prepared.preprocessor, rows.train)
    fit(model, rows.train, None, objective)
    stars = predict(model, rows.test, objective).stars
    errors = evaluate(model, rows.test, objective).stars.as_dict()
    return {"test": errors, "refit_seconds": time.perf_counter() - started}, stars


def peers(chosen: Selection, final: Scoring, options: argparse.Namespace) -> None:
    """Print the errors of the baselines, and store their predictions."""
    preprocessor, seeds = final.prepared.preprocessor, range(options.seeds)
    rows = chosen.train, chosen.validation, chosen.prepared.preprocessor
    for found in fit_baselines(*rows, num_trials=options.trials):
        baselines = found.refit(final.train, preprocessor, seeds)
        scores = [
            baseline.score(final.test, preprocessor).stars.as_dict() for baseline in baselines
        ]
        print(f"{found.baseline.name:36} {_figures(scores)}   {baselines[0].detail}", flush=True)
        if options.keep:
            stars = [baseline.predict(final.test).numpy() for baseline in baselines]
            clipped = np.stack(stars).clip(preprocessor.rating_min, preprocessor.rating_max)
            _keep(options.keep, found.baseline.name, clipped, final)


def models(
    experiment: ExperimentConfig,
    chosen: Selection,
    final: Scoring | None,
    options: argparse.Namespace,
) -> None:
    """Train all seeds, print their errors, and store their predictions."""
    of_seeds = [with_parameters(experiment, {"train.seed": seed}) for seed in range(options.seeds)]
    records = [chosen_on(each, chosen) for each in of_seeds]
    if not final:
        _print_seeds(records, ("validation",), options.json)
        return
    scored = [
        scored_on(each, record["epochs"], final)
        for each, record in zip(of_seeds, records, strict=True)
    ]
    records = [record | test for record, (test, _) in zip(records, scored, strict=True)]
    each = np.stack([stars for _, stars in scored])
    _print_seeds(records, ("validation", "test"), options.json)
    together = each.mean(axis=0)
    ensemble = ErrorSums.of(torch.from_numpy(together), final.test.ratings).as_dict()
    print(
        json.dumps({"ensemble": ensemble})
        if options.json
        else f"ensemble     {_figures([ensemble])}"
    )
    if options.keep:
        _keep(options.keep, options.label, each, final)
        _keep(options.keep, f"{options.label}, ensemble", together[None], final)


def _print_seeds(records: Sequence[Record], splits: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"seeds": records}))
        return
    for split in splits:
        print(f"{split:12} {_figures([record[split] for record in records])}")
    seconds = statistics.mean(record["seconds"] for record in records)
    print(f"{seconds:.0f} s per seed to train on the training rows")


def _figures(scores: Sequence[Record]) -> str:
    """Mean of each metric over seeds, with the standard deviation if there are several."""
    found = {metric: [score[metric] for score in scores] for metric in ("rmse", "mae", "r2")}
    return "   ".join(
        f"{metric} {statistics.mean(values):.4f}"
        + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")
        for metric, values in found.items()
    )


def _keep(folder: Path, label: str, stars: Stars, final: Scoring) -> None:
    """Store each seed's predictions ``[S, N]`` with the test rows they are for."""
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_rows(folder, final)
    np.save(folder / f"{label}.npy", stars.astype(np.float32))
    np.savetxt(folder / _KEPT_ROWS, _rows_of(final.prepared, "test").to_numpy(), "%d")


def _refuse_other_rows(folder: Path, final: Scoring) -> None:
    file, rows = folder / _KEPT_ROWS, _rows_of(final.prepared, "test").to_numpy()
    if file.exists() and not np.array_equal(np.loadtxt(file, np.int64, ndmin=1), rows):
        raise SystemExit(f"{folder} holds predictions for other test rows: name another folder")


def print_differences(final: Scoring, folder: Path, against: str) -> None:
    """Print differences from one of the stored models, errors by slice, and calibration."""
    _refuse_other_rows(folder, final)
    actual = final.test.ratings.numpy()
    stars = {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}
    if against not in stars:
        raise SystemExit(f"{folder} holds no {against!r}, only: {', '.join(stars)}")
    errors = {label: predicted - actual for label, predicted in stars.items()}
    ids = final.prepared.table("test", ["user_id"])["user_id"].to_numpy()
    codes, users = np.unique(ids, return_inverse=True)
    sums = [UserErrors.of(label, users, len(codes), e) for label, e in errors.items()]
    pairs = [(label, against) for label in errors if label != against]
    for difference in differences(sums, pairs, vary_seeds=True):
        print(
            f"{difference.first:36} {difference.metric:4} {difference.value:+.4f} "
            f"({difference.corrected_low:+.4f} to {difference.corrected_high:+.4f}), "
            f"p {difference.holm_p:.4f}: {difference.better or 'undecided'}"
        )
    for label, predicted in stars.items():
        found = Calibration.of(label, predicted, actual)
        slope = f"{found.slope:.3f}" if found.slope is not None else "none"
        print(f"{label:36} calibration error {found.expected_error:.4f}, slope {slope}")
    ways = slicings(final.train, final.test, final.prepared.preprocessor)
    for part in errors_by_slice(ways, list(errors.items())):
        print(f"{part.name}: {part.label}, {part.num_rows:,} rows")
        for error in part.errors:
            print(f"    {error.model:36} rmse {error.rmse:.4f}   mae {error.mae:.4f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "prepared",
        nargs="+",
        help="folders of the preprocess stage: one with validation rows, one without",
    )
    parser.add_argument("--config", help="TOML configuration")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--validation-only", action="store_true", help="read no test row")
    parser.add_argument("--peers", action="store_true", help="score the baselines instead")
    parser.add_argument(
        "--trials",
        type=int,
        default=DEFAULT_TRIALS,
        metavar="N",
        help="settings tried for each baseline",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="store the predictions in FOLDER"
    )
    parser.add_argument("--label", default="model", help="name of the stored predictions")
    parser.add_argument(
        "--differences",
        type=Path,
        metavar="FOLDER",
        help="compare the predictions stored in FOLDER",
    )
    parser.add_argument(
        "--against", default="LightGBM", metavar="NAME", help="stored model to compare with"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main() -> int:
    """Train all seeds and print their errors."""
    parser = _parser()
    options = parser.parse_args()
    if sum(map(bool, (options.config, options.peers, options.differences))) != 1:
        parser.error("one of --config, --peers and --differences is needed")
    if options.validation_only and (options.keep or not options.config):
        parser.error("--validation-only requires --config, and stores nothing")
    if options.seeds < 1 or options.trials < 1:
        parser.error("--seeds and --trials must be at least 1")
    torch.set_num_threads(1)
    chosen = Selection.open(one_to_choose_on(options.prepared))
    final = None
    if not options.validation_only:
        final = Scoring.open(one_to_score(options.prepared), chosen)
    if final and options.differences:
        print_differences(final, options.differences, options.against)
    elif final and options.peers:
        peers(chosen, final, options)
    else:
        values = apply_overrides(read_configs([options.config], ExperimentConfig), options.set)
        experiment = checked(JobConfig, values, options.config).experiment
        models(experiment, chosen, final, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
