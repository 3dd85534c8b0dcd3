"""Decide by the free memory which splits are held in memory and which are streamed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import distributed

from ncf.config import ExperimentConfig
from ncf.data.sampling import Shard

BYTES_OF_SHARED_ROW: Final = 70
"""Upper bound on the bytes of a resident row that workers of a machine may share: 24 as tensors, 54
while it is read; docs/performance.md has the measurement."""
BYTES_OF_TRAINING_ROW: Final = 30
"""Upper bound on the further bytes of a training row during an epoch, of each worker: those of a
permutation, and of what is computed of each row."""
BYTES_OF_SCORED_ROW: Final = 10
"""The same of a row of another split."""

_GROUPS: Final = (
    # Version 2 of Linux' control groups, then version 1.
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_on_every_worker(device: torch.device, shard: Shard, neighbours: int) -> int:
    """Bytes that every worker of a group can use: the minimum over the workers.

    Args:
        device: device of this worker; no other worker uses its GPU.
        shard: shard of this worker; all workers of the group must call this function.
        neighbours: number of workers on this machine, including this one, that share its memory.
    """
    free = free_on_machine() // neighbours
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    if shard.world_size == 1:
        return free
    least = torch.tensor(free, device=device)
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)


def free_on_machine(root: Path = Path("/")) -> int:
    """Bytes available on the system, or left under the limits of this process's control groups.

    ``root`` contains ``proc`` and ``sys``. Without them the result is the total memory.
    """
    try:
        system = (root / "proc/meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = re.search(r"MemAvailable: +(\d+) kB", system)
    assert available is not None  # since Linux 3.14
    return max(0, min([int(available[1]) * 1024, *_unused_in_groups(root)]))


def _unused_in_groups(root: Path) -> list[int]:
    """Unused bytes under each limit on this process's memory."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    unused = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        own = top / path.lstrip("/")
        # In a container the path may be that of the host, and the top folder that of the container.
        for folder in (own, *own.parents):
            unused += [
                _unused(folder, *names) for names in _GROUPS if (folder / names[0]).is_file()
            ]
            if folder == top:
                break
    return [number for number in unused if number is not None]


def _unused(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """``limit - usage``, where usage excludes cached files, which the system reclaims on demand."""
    maximum = (folder / limit).read_text().strip()
    if maximum == "max":
        return None
    cached = re.search(
        rf"^{reclaimable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE
    )
    used = int((folder / usage).read_text()) - (int(cached[1]) if cached else 0)
    return int(maximum) - used


@dataclass(frozen=True)
class Placement:
    """Which splits are streamed; the others are held in memory."""

    streamed: tuple[str, ...] = ()
    """Splits that are read from disk in every epoch."""
    note: str | None = None
    """A sentence for the user, if any."""


def plan_placement(
    experiment: ExperimentConfig,
    counts: Mapping[str, int],
    free: Callable[[], int],
    shared_by: float = 1,
) -> Placement:
    """Stream each split of ``counts`` rows that does not fit in addition to the splits before it.

    ``free`` returns the bytes that every worker can use, so that all workers decide the same. It is
    called only if the choice depends on it, which is the case on all workers or on none.
    ``shared_by`` workers of a machine, on average, have one copy of the rows.
    """
    config = experiment.train
    if config.rows == "resident":
        return Placement()
    if config.rows == "streaming":
        return Placement(tuple(split for split, count in counts.items() if count))
    left = allowed = free() * config.memory_share
    streamed = []
    for split, count in counts.items():
        wanted = _bytes_of(split, count, shared_by)
        if wanted > left:
            streamed.append(split)
        else:
            left -= wanted
    if not streamed:
        return Placement()
    total = sum(_bytes_of(split, count, shared_by) for split, count in counts.items())
    sizes = f"all rows take {total / 1e9:.1f} GB in memory and may take {allowed / 1e9:.1f} GB"
    if experiment.model.history.encoders:
        note = f"{sizes}, but are held there: the model needs all ratings of a user at once"
        return Placement(note=note)
    return Placement(tuple(streamed), f"{sizes}, so those of {', '.join(streamed)} are streamed")


def _bytes_of(split: str, count: int, shared_by: float) -> float:
    own = BYTES_OF_TRAINING_ROW if split == "train" else BYTES_OF_SCORED_ROW
    return count * (own + BYTES_OF_SHARED_ROW / shared_by)
