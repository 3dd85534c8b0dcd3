"""Memory of resident rows: of workers that share them, and of as many that have a copy each.

    python benchmarks/bench_rows.py [--rows N] [--workers N]

Each worker is a process that reads the training rows of one prepared data set as the workers of
Ray Train do, and goes through an epoch of batches. Reported are bytes a row and worker: of private
memory (``uss``) beyond what the process had before, once the rows are read and at most during the
epoch, and of proportional memory (``pss``), in which shared pages count once among all."""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pyarrow import fs

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ncf.data.batches import Batch  # noqa: E402
from ncf.data.dataset import PreparedDataset  # noqa: E402
from ncf.data.placement import Placement  # noqa: E402
from ray_jobs.training.split_cache import NodeMemory, SplitCache  # noqa: E402
from tests.ncf.prepared import write_prepared  # noqa: E402
from tests.ray_jobs.made import FITTED  # noqa: E402

_BATCH: Final = 8192


def main() -> None:
    """Measure both ways, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_prepared(
            Path(folder) / "prepared",
            {"train": _made(options.rows), "validation": _made(1)[:0], "test": _made(1)[:0]},
            FITTED,
            rows_per_file=1 << 20,
            rows_per_group=1 << 18,
        )
        print("bytes a row and worker   uss, rows read   uss, epoch   pss, rows read")
        for name, shared_by in (("a copy each", 1), ("shared", options.workers)):
            found = _measure(f"{folder}/prepared", options.workers, shared_by)
            read, epoch, proportional = (value / options.rows for value in found)
            print(f"{name:<22} {read:16.1f} {epoch:12.1f} {proportional:16.1f}")


def _made(count: int) -> Batch:
    random = np.random.default_rng(0)
    return Batch(
        users=torch.from_numpy(random.integers(1, 3, count, dtype=np.int32)),
        movies=torch.from_numpy(random.integers(0, 5, count, dtype=np.int32)),
        ratings=torch.from_numpy(random.random(count, dtype=np.float32)),
        weights=torch.ones(count),
        times=torch.from_numpy(random.integers(0, 2**31, count)),
    )


def _measure(prepared: str, workers: int, shared_by: int) -> Sequence[float]:
    """Means over the workers."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [
        context.Process(target=_work, args=(prepared, shared_by, theirs)) for _, theirs in pipes
    ]
    for process in processes:
        process.start()
    found = []
    for ours, _ in pipes:
        ours.recv()
    for ours, _ in pipes:
        ours.send(None)
    for _ in range(2):  # all have read their rows; all have gone through an epoch
        found.append([ours.recv() for ours, _ in pipes])
        for ours, _ in pipes:
            ours.send(None)
    for process in processes:
        process.join()
    (read, epoch) = (np.mean(each, axis=0) for each in found)
    return read[0], epoch[0], read[1]


def _work(folder: str, shared_by: int, pipe: Connection) -> None:
    before = _memory()
    prepared = PreparedDataset.open(fs.LocalFileSystem(), folder)
    rows = SplitCache(prepared, torch.device("cpu"), memory=NodeMemory(shared_by))
    source = rows.required("train", Placement())
    batch = source.in_memory()
    assert batch is not None
    sums = [column.sum().item() for column in vars(batch).values()]  # every page is there
    pipe.send(None)
    pipe.recv()  # so have all others
    after = _memory()
    pipe.send((after[0] - before[0], after[1] - before[1]))
    pipe.recv()
    highest = 0
    for window in source.shuffled_windows(torch.Generator()):
        for start in range(0, len(window), _BATCH):
            sums.append(window[start : start + _BATCH].ratings.sum().item())
        highest = max(highest, _memory()[0])
    pipe.send((highest - before[0], 0))
    pipe.recv()
    rows.release()


def _memory() -> tuple[int, int]:
    """Private and proportional bytes of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    private = sum(map(int, re.findall(r"^Private_\w+: +(\d+) kB$", text, re.MULTILINE)))
    (proportional,) = re.findall(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
    return private * 1024, int(proportional) * 1024


if __name__ == "__main__":
    main()
