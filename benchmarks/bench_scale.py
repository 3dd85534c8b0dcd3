"""Time, memory and growth of every stage by number of ratings.

    python benchmarks/bench_scale.py [MILLIONS ...] [--movies N] [--folder FOLDER] [--json]

Synthetic ratings, 0.1 and 1 million if no numbers are given, 160 of each user. Each stage runs in
a separate process:

generate    ``python -m ingest synthetic``, without TMDb records, which ``bench_ingest.py`` covers.
plain       ``original_loop.prepare``: the work of ``preprocess`` on ratings, with pyarrow only.
preprocess  ``python -m ray_jobs.preprocess``, after the start of Ray. Its rate is a multiple
            of that of ``plain``, the mean of one run before and one after.
read        the training rows of the prepared data, as tensors.
train       one epoch of the default network at batch 8,192, on one thread, with rows in memory.
stream      the same with ``train.rows = "streaming"``; its rate is given as a multiple of that of
            ``train``, which excludes reading the rows.
evaluate    the errors on the test rows.
rank        the ten best unseen movies of 10,000 users, or of all if there are fewer.
users       the training rows as users with their ratings, which choice models learn from.
choices     one epoch of the choice network with ``sampled_softmax``, 1,024 users a step.
ease        EASE of all movies with one ridge.
choose      NDCG@10 of the choice network for 10,000 validation users, or all if there are fewer.

Seconds, and CPU seconds of the process and all its descendants, exclude the start of the process.
Peak memory includes all descendants and Ray's processes, from start to end. It is sampled: the sum
of the proportional set sizes, plus Ray's object store. The growth exponent
is log(ratio of values) / log(ratio of ratings): 1 is linear. Ray's workers, which have a
lower priority by default, run here with that of the reference. Progress is printed on stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

RATINGS_PER_USER: Final = 160
BATCH_SIZE: Final = 8192
BATCH_USERS: Final = 1024
NEGATIVES: Final = 4
"""Drawn for each user of a batch, so 4,096 a step."""
NUM_RANKED: Final = 10_000
SAMPLED_EVERY_S: Final = 0.2
READY: Final = "ready"
DONE: Final = "done"
MEASURES: Final = ("seconds", "cpu_s", "peak_mib")
Result = dict[str, Any]


@dataclass
class Usage:
    """CPU time and memory of a tree of processes, sampled until stopped."""

    root: int
    peak_bytes: int = 0
    ticks: dict[int, int] = field(default_factory=dict)
    """CPU time of each process seen so far, in clock ticks."""

    def __post_init__(self) -> None:
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def cpu_s(self) -> float:
        """CPU seconds until now."""
        with self._lock:
            self._tree()
            return sum(self.ticks.values()) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End sampling."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLED_EVERY_S):
            with self._lock:
                self.peak_bytes = max(self.peak_bytes, self._sample())

    def _sample(self) -> int:
        private, shared, stores = 0, 0, {}
        for process in self._tree():
            try:
                sizes = dict(re.findall(r"(\w+): +(\d+)", (process / "smaps_rollup").read_text()))
                for file in (process / "fd").iterdir():
                    if os.readlink(file).startswith("/dev/shm/"):  # noqa: S108
                        status = file.stat()
                        stores[status.st_ino] = status.st_blocks * 512
            except OSError:
                continue  # the process has just ended
            shared += int(sizes["Pss_Shmem"]) * 1024
            private += (int(sizes["Pss"]) - int(sizes["Pss_Shmem"])) * 1024
        # Objects that no process maps are still in the store.
        return private + max(shared, sum(stores.values()))

    def _tree(self) -> list[Path]:
        """Processes that descend from the root, including those whose parent has ended."""
        parents, folders = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            number = int(folder.name)
            parents[number], folders[number] = int(fields[1]), folder
            if number in self.ticks:
                self.ticks[number] = int(fields[11]) + int(fields[12])
        found = {number for number in folders if number == self.root or number in self.ticks}
        while more := {n for n, parent in parents.items() if parent in found} - found:
            found |= more
        for number in found - self.ticks.keys():
            self.ticks[number] = 0  # negligible so far
        return [folders[number] for number in found]


def measured(
    command: list[str], first: str = "", last: str = "", environ: dict[str, str] | None = None
) -> Result:
    """Run and measure a command, with time from the line with ``first`` to that with ``last``.

    Raises:
        RuntimeError: if it fails.
    """
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | (environ or {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    usage = Usage(process.pid)
    begun = ended = time.perf_counter(), 0.0
    assert process.stdout is not None
    for line in process.stdout:
        now = time.perf_counter(), usage.cpu_s()
        if first and first in line:
            begun = now
        if last in line:
            ended = now
    usage.stop()
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {
        "seconds": ended[0] - begun[0],
        "cpu_s": ended[1] - begun[1],
        "peak_mib": usage.peak_bytes / 2**20,
    }


def bench_size(ratings: int, movies: int, folder: Path) -> Result:
    """Run all stages with this number of ratings."""
    shape = {"num_users": ratings // RATINGS_PER_USER, "num_movies": movies, "num_ratings": ratings}
    data = ["--set", f"storage={folder}", "--set", "data.source=synthetic"]
    data += ["--set", "tmdb.enabled=false"]
    for key, value in shape.items():
        data += ["--set", f"data.synthetic.{key}={value}"]
    result: Result = {"ratings": ratings}

    def note(name: str, found: Result) -> Result:
        print(f"{ratings:,} {name}: {json.dumps(found)}", file=sys.stderr, flush=True)
        return found

    ingest = ["-m", "ingest", "synthetic", *data[4:], "--storage", str(folder)]
    result["generate"] = note("generate", measured(ingest))
    before = note("plain", own_stage("plain", folder))
    result["preprocess"] = note(
        "preprocess",
        measured(
            ["-m", "ray_jobs.preprocess", *data],
            "Ray dashboard: ",
            "preprocess: ",
            {"RAY_worker_niceness": "0"},
        ),
    )
    after = note("plain", own_stage("plain", folder))
    result["plain"] = {name: (before[name] + after[name]) / 2 for name in before}
    for name in ORDER[3:]:
        result[name] = note(name, own_stage(name, folder))
    for name, base in RATIOS:
        for measure in ("seconds", "cpu_s"):
            ratio = result[base][measure] / result[name][measure]
            result[f"{name}_to_{base}_{measure}"] = ratio
    return result


def own_stage(name: str, folder: Path) -> Result:
    """Run a stage of this file in a separate process."""
    command = [__file__, "--folder", str(folder), "--stage", name]
    return measured(command, READY, DONE, {"OMP_NUM_THREADS": "1"})


def run_stage(name: str, folder: Path) -> None:
    """Run the stage between two marker lines."""
    work = STAGES[name](folder)
    print(READY)
    work()
    print(DONE)


def stage_plain(folder: Path) -> Callable[[], object]:
    """Preparation with pyarrow only."""
    from dev import original_loop

    (target := folder / "plain").mkdir(exist_ok=True)
    return lambda: original_loop.prepare(folder / "raw" / "synthetic" / "ratings.parquet", target)


def prepared_in(folder: Path) -> Any:
    """The data set that ``preprocess`` prepared."""
    from pyarrow import fs

    from ncf.data.dataset import PreparedDataset

    (made,) = (folder / "prepared").iterdir()
    return PreparedDataset.open(fs.LocalFileSystem(), str(made))


def stage_read(folder: Path) -> Callable[[], object]:
    """Training rows as tensors."""
    prepared = prepared_in(folder)
    return lambda: prepared.rows("train")


def stage_train(folder: Path) -> Callable[[], object]:
    """An epoch, and a checkpoint for the stages that follow."""
    prepared = prepared_in(folder)
    return epoch_of(prepared, prepared.rows("train"), folder / "checkpoint")


def stage_stream(folder: Path) -> Callable[[], object]:
    """The same with streamed rows."""
    import torch

    from ncf.data.streaming import Streamed

    prepared = prepared_in(folder)
    rows = Streamed(prepared, "train", torch.device("cpu"))
    return epoch_of(prepared, rows, folder / "streamed")


def epoch_of(prepared: Any, rows: Any, checkpoint: Path) -> Callable[[], object]:
    """Trains on ``rows``."""
    from ncf.config import ExperimentConfig, TrainConfig
    from ncf.inference.checkpoint import save
    from ncf.models.targets import Objective
    from ncf.training.loop import fit
    from ncf.training.trainer import build

    config = ExperimentConfig(train=TrainConfig(batch_size=BATCH_SIZE, epochs=1))
    objective = Objective(config.train, config.time_decay, prepared.preprocessor)
    model = build(config, prepared.preprocessor, rows)

    def work() -> None:
        found = fit(model, rows, None, objective)
        save(checkpoint, found.best, config, prepared.preprocessor, {})

    return work


def stage_evaluate(folder: Path) -> Callable[[], object]:
    """Errors on the test rows."""
    from ncf.evaluation.predictions import evaluate
    from ncf.inference.checkpoint import load
    from ncf.models.targets import Objective

    trained = load(folder / "checkpoint")
    config = trained.experiment
    objective = Objective(config.train, config.time_decay, trained.preprocessor)
    rows = prepared_in(folder).rows("test")
    return lambda: evaluate(trained.model, rows, objective)


def stage_rank(folder: Path) -> Callable[[], object]:
    """The best movies."""
    import numpy as np
    import pyarrow as pa

    from ncf.data.splits import SPLITS
    from ncf.evaluation.ranking import SeenMovies
    from ncf.inference.checkpoint import load
    from ncf.inference.top_k import top_movies

    trained, prepared = load(folder / "checkpoint"), prepared_in(folder)
    num_users = trained.preprocessor.num_users
    users = np.arange(1, min(NUM_RANKED, num_users) + 1)

    def work() -> None:
        columns = ["user_index", "movie_index"]
        rows = pa.concat_tables([prepared.table(split, columns) for split in SPLITS])
        rated_by, rated = (rows[name].to_numpy() for name in columns)
        top_movies(trained, users, SeenMovies.of(rated_by, rated, num_users), 10)

    return work


def stage_users(folder: Path) -> Callable[[], object]:
    """Training ratings by user."""
    from ncf.data.interactions import Interactions

    prepared = prepared_in(folder)
    return lambda: Interactions.read(prepared, ["train"])


def stage_choices(folder: Path) -> Callable[[], object]:
    """An epoch of the choice network, and its weights for the stage that follows."""
    from safetensors.torch import save_file

    from ncf.data.interactions import Interactions
    from ncf.models.choice.network import build_network
    from ncf.training.choice.loop import ChoiceTraining

    prepared = prepared_in(folder)
    train = Interactions.read(prepared, ["train"])
    network = build_network(choice_network(), prepared.preprocessor, train)
    training = ChoiceTraining(network, train, choice_network(), "random")

    def work() -> None:
        for _ in training:
            save_file(network.state_dict(), folder / "network.safetensors")

    return work


def choice_network() -> Any:
    """The configuration of the choice network."""
    from ncf.choice_config import NetworkConfig

    return NetworkConfig(
        loss="sampled_softmax", batch_users=BATCH_USERS, negatives=NEGATIVES, epochs=1
    )


def stage_ease(folder: Path) -> Callable[[], object]:
    """EASE."""
    from ncf.choice_config import EaseConfig
    from ncf.data.interactions import Interactions
    from ncf.models.choice.ease import EasePath

    prepared = prepared_in(folder)
    train = Interactions.read(prepared, ["train"])
    return lambda: EasePath(train, prepared.preprocessor, EaseConfig(ridges=(500.0,))).at(500.0)


def stage_choose(folder: Path) -> Callable[[], object]:
    """Validation users' rankings."""
    from safetensors.torch import load_file

    from ncf.evaluation.choice_data import ChoiceData
    from ncf.evaluation.choice_selection import ValidationUsers
    from ncf.evaluation.ranking_metrics import RankingMetric
    from ncf.models.choice.network import ChoiceNetwork, NetworkChoiceModel

    prepared = prepared_in(folder)
    network = ChoiceNetwork(choice_network(), prepared.preprocessor)
    network.load_state_dict(load_file(folder / "network.safetensors"))
    data = ChoiceData(prepared, max_validation_users=NUM_RANKED)
    assert data.validation  # reads the ratings
    users = ValidationUsers(data, RankingMetric("ndcg", 10))
    return lambda: users.value(NetworkChoiceModel(network))


STAGES: Final[dict[str, Callable[[Path], Callable[[], object]]]] = {
    "plain": stage_plain,
    "read": stage_read,
    "train": stage_train,
    "stream": stage_stream,
    "evaluate": stage_evaluate,
    "rank": stage_rank,
    "users": stage_users,
    "choices": stage_choices,
    "ease": stage_ease,
    "choose": stage_choose,
}
ORDER: Final = ("generate", "plain", "preprocess", *(name for name in STAGES if name != "plain"))
RATIOS: Final = (("preprocess", "plain"), ("stream", "train"))


def growth(sizes: list[Result]) -> list[Result]:
    """Growth exponents from each size to the next."""
    return [
        {
            "from": small["ratings"],
            "to": large["ratings"],
            **{
                stage: {
                    # Times below a clock tick cannot be measured.
                    measure: math.log(
                        max(large[stage][measure], 0.01) / max(small[stage][measure], 0.01)
                    )
                    / math.log(large["ratings"] / small["ratings"])
                    for measure in MEASURES
                }
                for stage in ORDER
            },
        }
        for small, large in pairwise(sizes)
    ]


def show(sizes: list[Result], exponents: list[Result]) -> None:
    """A table for each size, and one for each step from one to the next."""
    for result in sizes:
        print(f"{result['ratings']:,} ratings       seconds  CPU seconds  peak MiB     ratings/s")
        for stage in ORDER:
            seconds, cpu, peak = (result[stage][measure] for measure in MEASURES)
            rate = result["ratings"] / seconds
            print(f"  {stage:12} {seconds:16,.2f} {cpu:12,.1f} {peak:9,.0f} {rate:13,.0f}")
        for name, base in RATIOS:
            seconds, cpu = (result[f"{name}_to_{base}_{m}"] for m in ("seconds", "cpu_s"))
            print(
                f"  {name}, rate as a multiple of {base}: {seconds:.2f}, by CPU seconds {cpu:.2f}"
            )
        print()
    for step in exponents:
        print(f"growth exponent, {step['from']:,} to {step['to']:,}")
        for stage in ORDER:
            seconds, cpu, peak = (step[stage][measure] for measure in MEASURES)
            print(f"  {stage:12} {seconds:16.2f} {cpu:12.2f} {peak:9.2f}")


def main() -> int:
    """Run all stages at each size and print the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("millions", nargs="*", type=float, metavar="MILLIONS")
    parser.add_argument("--movies", type=int, default=10_000, help="movies at every size")
    parser.add_argument("--folder", type=Path, help="folder for temporary data")
    parser.add_argument("--quick", action="store_true", help="0.1 million only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options.folder)
        return 0
    sizes = []
    for millions in sorted(options.millions) or ([0.1] if options.quick else [0.1, 1.0]):
        with tempfile.TemporaryDirectory(prefix="bench-scale-", dir=options.folder) as folder:
            sizes.append(bench_size(round(millions * 1e6), options.movies, Path(folder)))
    exponents = growth(sizes)
    if options.json:
        print(json.dumps({"sizes": sizes, "growth": exponents}, indent=2))
    else:
        show(sizes, exponents)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
