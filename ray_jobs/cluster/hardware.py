"""What machine a run was made on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Final

import ray

_GIB: Final = 2**30
_ACCELERATOR: Final = "accelerator_type:"


def hardware(root: Path = Path("/")) -> dict[str, str]:
    """Processor, memory and GPUs, as far as they are known; Ray must be connected.

    Processor and memory are those of the machine that this runs on, whose ``proc`` is in ``root``;
    nodes and GPUs are those of the whole cluster.
    """
    cluster = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    gpus = {
        name.removeprefix(_ACCELERATOR)
        for name in cluster
        if name.startswith(_ACCELERATOR) and cluster.get("GPU")
    }
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    return {
        "processor": f"{processor(root)}, {os.cpu_count()} logical cores",
        "memory": f"{memory:.1f} GiB",
        "GPU": ", ".join([f"{cluster.get('GPU', 0):g}", *sorted(gpus)]),
        "nodes": str(nodes),
    }


def processor(root: Path = Path("/")) -> str:
    """The processor's name; Linux has it in a file, where Python does not look."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        text = ""
    match = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()
