from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from ray_jobs.cluster.hardware import processor

if TYPE_CHECKING:
    from pathlib import Path


def test_the_processors_name_is_what_linux_calls_it(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 3.00GHz\n\nprocessor\t: 1\nmodel name\t: Other\n"
    )
    assert processor(tmp_path) == "Some CPU @ 3.00GHz"


def test_elsewhere_it_is_what_python_knows(tmp_path: Path) -> None:
    assert processor(tmp_path) in (platform.processor(), platform.machine())
