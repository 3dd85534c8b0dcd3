"""Cost of each further trial of a search: persistent worker groups against isolated trainers.

    python benchmarks/bench_trials.py [--trials 100] [--reference-trials 8] [--set ...]
        [--quick] [--json]

Uses configs/quickstart.toml, with both executors in one Ray, in turns: a search of as many trials
as run concurrently, which includes starting up, and a longer one. Their difference is the cost of
further trials: trials per hour, and seconds of a worker group for each beyond its epochs, which the
workers time."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.console import log_to_console  # noqa: E402
from ncf.data.dataset import PreparedDataset  # noqa: E402
from ray_jobs.cli import load_config  # noqa: E402
from ray_jobs.cluster.resources import GroupPlan  # noqa: E402
from ray_jobs.cluster.session import ensure_ray, leave_ray  # noqa: E402
from ray_jobs.results.run import Workspace  # noqa: E402
from ray_jobs.stages.graph import workers_of  # noqa: E402
from ray_jobs.stages.preparation import ingest, preprocess  # noqa: E402
from ray_jobs.stages.tuning import search  # noqa: E402

CONFIG: Final = REPOSITORY / "configs" / "quickstart.toml"
Result = dict[str, Any]


def timed_search(
    settings: list[str], prepared: PreparedDataset, executor: str, trials: int
) -> Result:
    """Wall seconds of one search, and the seconds that its trials spent in epochs."""
    name = f"{executor}-{trials}"
    changes = [f"name={name}", f"tune.executor={executor}", f"tune.num_trials={trials}"]
    workspace = Workspace(load_config([str(CONFIG)], [*settings, *changes]))
    started = time.perf_counter()
    with workers_of(workspace) as workers:
        search(workspace, prepared, workers)
    wall = time.perf_counter() - started
    reported = Path(workspace.config.storage, "runs", name, "ray", "tune").glob("*/result.json")
    epochs = [json.loads(line) for file in reported for line in file.read_text().splitlines()]
    return {"wall_s": wall, "training_s": sum(epoch["seconds"] for epoch in epochs)}


def compare(settings: list[str], lengths: dict[str, int]) -> Result:
    """Both executors, each with searches of two lengths."""
    config = load_config([str(CONFIG)], settings)
    workspace = Workspace(config)
    prepared = preprocess(workspace, ingest(workspace))
    ensure_ray(config)
    slots = len(GroupPlan.of(config).fitting())
    first = {name: timed_search(settings, prepared, name, slots) for name in lengths}
    longer = {name: timed_search(settings, prepared, name, lengths[name]) for name in lengths}
    results: Result = {"trials_at_once": slots}
    for name, trials in lengths.items():
        further = trials - slots
        wall, training = (
            (longer[name][key] - first[name][key]) / further for key in ("wall_s", "training_s")
        )
        results |= {
            f"{name}_trials": trials,
            f"{name}_first_{slots}_s": first[name]["wall_s"],
            f"{name}_training_s_per_trial": training,
            f"{name}_cost_s_per_further_trial": slots * wall - training,
            f"{name}_trials_per_hour": 3600 / wall,
        }
    results["ratio_of_trials_per_hour"] = (
        results["persistent_trials_per_hour"] / results["isolated_trials_per_hour"]
    )
    return results


@contextlib.contextmanager
def progress_to_stderr() -> Iterator[None]:
    """Reserve standard output for the results; Ray's threads write to the file descriptor."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=100, help="trials of the persistent executor")
    parser.add_argument(
        "--reference-trials", type=int, default=8, help="trials of the isolated executor"
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", help="change a setting"
    )
    parser.add_argument("--quick", action="store_true", help="20 and 4 trials")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    log_to_console()
    with tempfile.TemporaryDirectory(prefix="bench-trials-") as folder:
        lengths = {"isolated": options.reference_trials, "persistent": options.trials}
        if options.quick:
            lengths = {"isolated": 4, "persistent": 20}
        with progress_to_stderr():
            try:
                results = compare([*options.overrides, f"storage={folder}"], lengths)
            finally:
                leave_ray()
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for key, value in results.items():
        print(f"  {key:36} {value:,.3f}" if isinstance(value, float) else f"  {key:36} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
