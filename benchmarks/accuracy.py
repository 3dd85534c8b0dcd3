"""How accurate one configuration is, over several seeds, without Ray.

    python -m ray_jobs.preprocess --config configs/closed-form.toml
    python benchmarks/accuracy.py artifacts/prepared/* --config configs/closed-form.toml

Of several prepared folders, as the pattern finds them, the one with validation rows is taken; if
more have some, the one that is meant must be named.

For each seed, a model is trained on the training rows, which gives the validation error and the
best epoch; then another on training and validation rows for that many epochs, which is scored on
the test rows. What was fitted on the training rows, such as vocabularies, stays as it is, unless
``--final`` names the same data prepared with ``--set split.validation=0``: there it is fitted on
both, as ``compare.refit_on_validation`` does it. The line "ensemble" is of the mean prediction of
all seeds. ``--set section.key=value`` changes settings. ``--peers`` does the same for the
baselines, once.

``--keep FOLDER --label NAME`` keeps the predictions for the test rows, and ``--differences FOLDER
--against NAME`` tells how all that were kept differ from one of them, on the same rows.
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
import pyarrow as pa
import torch
from pyarrow import fs

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ingest.config import apply_overrides, read_toml  # noqa: E402
from ingest.config import build as checked  # noqa: E402
from ncf.baselines import tuned_baselines  # noqa: E402
from ncf.batches import Batch, concatenated  # noqa: E402
from ncf.config import ExperimentConfig  # noqa: E402
from ncf.errors import DataError  # noqa: E402
from ncf.metrics import ErrorSums  # noqa: E402
from ncf.predictions import predict  # noqa: E402
from ncf.prepared import Prepared  # noqa: E402
from ncf.significance import UserErrors, differences  # noqa: E402
from ncf.slices import errors_by_slice, slicings  # noqa: E402
from ncf.training import Objective, build, evaluate, fit  # noqa: E402
from ray_jobs.config import JobConfig, with_parameters  # noqa: E402

Record = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Which rows teach, choose and score."""

    prepared: Prepared
    """What was fitted on the training rows alone, and these rows."""
    train: Batch
    validation: Batch
    final: Prepared
    """What the model that is scored was prepared with."""
    both: Batch
    """Training and validation rows, as ``final`` numbers users and movies."""
    test: Batch
    """Rows that are scored, numbered likewise."""

    @classmethod
    def open(cls, folder: str, final: str | None) -> Rows:
        """Of one prepared folder, or of two with the same test rows."""
        prepared = _open(folder)
        train, validation, test = (_split(prepared, s) for s in ("train", "validation", "test"))
        if not final:
            both = concatenated(train, validation)
            return cls(prepared, train, validation, prepared, both, test)
        refitted = _open(final)
        if not _rows_of(prepared, "test").equals(_rows_of(refitted, "test")):
            raise SystemExit(f"{final} has other test rows than {folder}")
        if refitted.manifest.counts["validation"]:
            raise SystemExit(f"{final} has validation rows: prepare it with split.validation=0")
        both, test = (_split(refitted, s) for s in ("train", "test"))
        return cls(prepared, train, validation, refitted, both, test)


def one_to_choose_on(folders: Sequence[str]) -> str:
    """The only one of prepared folders that has validation rows, as the pattern
    artifacts/prepared/* finds them: a run that trains again on these rows leaves another without.

    Ends the program if there is none, or more than one.
    """
    counts = {folder: _open(folder).manifest.counts for folder in folders}
    found = [folder for folder in folders if counts[folder]["validation"]]
    if len(found) == 1:
        return found[0]
    listed = "".join(
        f"\n  {folder}: " + ", ".join(f"{number:,} {split}" for split, number in of.items())
        for folder, of in counts.items()
    )
    raise SystemExit(
        f"{len(found)} of these folders have validation rows, expected one. Name the one that "
        f"python -m ray_jobs.preprocess tells with the same options:{listed}"
    )


def _open(folder: str) -> Prepared:
    try:
        return Prepared.open(fs.LocalFileSystem(), str(Path(folder).resolve()))
    except DataError as error:
        raise SystemExit(str(error)) from error


def _split(prepared: Prepared, split: str) -> Batch:
    rows = prepared.rows(split)
    assert rows is not None
    return rows


def _rows_of(prepared: Prepared, split: str) -> pa.ChunkedArray:
    return prepared.table(split, ["row"])["row"]


def of_seed(experiment: ExperimentConfig, rows: Rows) -> tuple[Record, torch.Tensor]:
    """Errors of one seed, and its predictions for the test rows ``[N]``."""
    fitted = rows.prepared.fitted
    objective = Objective(experiment.train, experiment.time_decay, fitted)
    started = time.perf_counter()
    model = build(experiment, fitted, rows.train)
    selection = fit(model, rows.train, rows.validation, objective)
    best = selection.epochs[selection.best_epoch - 1].validation
    assert best is not None
    refit = with_parameters(experiment, {"train.stop_after": selection.best_epoch})
    objective = Objective(refit.train, refit.time_decay, rows.final.fitted)
    model = build(refit, rows.final.fitted, rows.both)
    fit(model, rows.both, None, objective)
    scores = evaluate(model, rows.test, objective).stars
    stars = torch.from_numpy(predict(model, rows.test, objective).stars)
    record = {
        "seed": experiment.train.seed,
        "epochs": selection.best_epoch,
        "validation": best.stars.as_dict(),
        "test": scores.as_dict(),
        "seconds": time.perf_counter() - started,
    }
    return record, stars


def peers(rows: Rows, folder: Path | None) -> None:
    """Print the errors of the baselines, and keep their predictions."""
    fitted = rows.final.fitted
    low, high = fitted.rating_min, fitted.rating_max
    for found in tuned_baselines(rows.train, rows.validation, rows.prepared.fitted):
        baseline = found.refit(rows.both, fitted)
        scores = baseline.score(rows.test, fitted).stars
        print(f"{baseline.name:36} rmse {scores.rmse:.4f}   mae {scores.mae:.4f}", flush=True)
        if folder:
            _keep(folder, baseline.name, baseline.predict(rows.test).clamp(low, high)[None])


def _keep(folder: Path, label: str, stars: torch.Tensor) -> None:
    """Predictions ``[S, N]`` for the test rows, of each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{label}.npy", stars.numpy().astype(np.float32))


def print_differences(rows: Rows, folder: Path, against: str) -> None:
    """All predictions of a folder: errors, difference from one of them, and errors by slice."""
    actual = rows.test.ratings.numpy()
    errors = {file.stem: np.load(file) - actual for file in sorted(folder.glob("*.npy"))}
    if against not in errors:
        raise SystemExit(f"{folder} holds no {against!r}, only: {', '.join(errors)}")
    ids = rows.final.table("test", ["user_id"])["user_id"].to_numpy()
    codes, users = np.unique(ids, return_inverse=True)
    sums = [UserErrors.of(label, users, len(codes), e) for label, e in errors.items()]
    pairs = [(label, against) for label in errors if label != against]
    for difference in differences(sums, pairs, vary_seeds=True):
        print(
            f"{difference.first:36} {difference.metric:4} {difference.value:+.4f} "
            f"({difference.corrected_low:+.4f} to {difference.corrected_high:+.4f}), "
            f"p {difference.holm_p:.4f}: {difference.better or 'undecided'}"
        )
    ways = slicings(rows.both, rows.test, rows.final.fitted)
    for part in errors_by_slice(ways, list(errors.items())):
        print(f"{part.name}: {part.label}, {part.num_rows:,} rows")
        for error in part.errors:
            print(f"    {error.model:36} rmse {error.rmse:.4f}   mae {error.mae:.4f}")


def main() -> int:
    """Train all seeds and print their errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "prepared",
        nargs="+",
        help="folder that the preprocess stage made; of several, the one with validation rows",
    )
    parser.add_argument("--final", metavar="FOLDER", help="the same with split.validation=0")
    parser.add_argument("--config", help="TOML configuration")
    parser.add_argument("--peers", action="store_true", help="score the baselines instead")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the predictions there")
    parser.add_argument("--label", default="model", help="name of what is kept")
    parser.add_argument("--differences", type=Path, metavar="FOLDER", help="of what was kept")
    parser.add_argument("--against", default="LightGBM", metavar="NAME", help="one of those kept")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows.open(one_to_choose_on(options.prepared), options.final)
    if options.differences:
        print_differences(rows, options.differences, options.against)
        return 0
    if options.peers:
        peers(rows, options.keep)
        return 0
    if not options.config:
        parser.error("--config, --peers or --differences is needed")
    values = apply_overrides(read_toml(options.config), options.set)
    experiment = checked(JobConfig, values, options.config).experiment
    results = [
        of_seed(with_parameters(experiment, {"train.seed": seed}), rows)
        for seed in range(options.seeds)
    ]
    records = [record for record, _ in results]
    each = torch.stack([stars for _, stars in results])
    together = each.mean(dim=0)
    ensemble = ErrorSums.of(together, rows.test.ratings).as_dict()
    if options.keep:
        _keep(options.keep, options.label, each)
        _keep(options.keep, f"{options.label}, ensemble", together[None])
    if options.json:
        print(json.dumps({"seeds": records, "ensemble": ensemble}, indent=2))
        return 0
    for split in ("validation", "test"):
        for metric in ("rmse", "mae", "r2"):
            found = [record[split][metric] for record in records]
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            print(f"{split:12} {metric:5} {statistics.mean(found):.4f} ± {spread:.4f}")
    print(f"{'ensemble':12} rmse  {ensemble['rmse']:.4f}   mae {ensemble['mae']:.4f}")
    print(f"{statistics.mean(r['seconds'] for r in records):.0f} s a seed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
