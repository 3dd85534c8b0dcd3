"""Which rows are held in memory, and how much of it there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ncf.config import ExperimentConfig, ModelConfig, TrainConfig
from ncf.data.placement import free_on_machine, plan_placement

COUNTS = {"train": 1000, "validation": 100, "test": 200}
# 100 bytes a training row, 80 of the others.
ALL = 100_000 + 8_000 + 16_000


def streamed(free: int, **train: Any) -> tuple[str, ...]:
    config = ExperimentConfig(train=TrainConfig(memory_share=1, **train))
    return plan_placement(config, COUNTS, lambda: free).streamed


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (ALL, ()),
        (ALL - 1, ("test",)),
        (108_000, ("test",)),
        (107_999, ("validation", "test")),
        (99_999, ("train",)),
        (23_999, ("train", "test")),
        (0, ("train", "validation", "test")),
    ],
)
def test_splits_that_do_not_fit_are_streamed(free: int, expected: tuple[str, ...]) -> None:
    assert streamed(free) == expected


def test_rows_take_a_share_of_the_free_memory() -> None:
    config = ExperimentConfig(train=TrainConfig(memory_share=0.5))
    assert plan_placement(config, COUNTS, lambda: 2 * ALL).streamed == ()
    assert plan_placement(config, COUNTS, lambda: 2 * ALL - 2).streamed == ("test",)


def never() -> int:
    raise AssertionError("the result does not depend on the free memory")


def test_the_setting_overrides_the_measurement() -> None:
    resident = ExperimentConfig(train=TrainConfig(rows="resident"))
    assert plan_placement(resident, COUNTS, never).streamed == ()
    streaming = ExperimentConfig(train=TrainConfig(rows="streaming"))
    counts = {**COUNTS, "validation": 0}
    assert plan_placement(streaming, counts, never).streamed == ("train", "test")


def test_the_note_names_the_streamed_splits_and_the_reason() -> None:
    gigabytes = {"train": 10**8, "validation": 10**7, "test": 0}
    note = plan_placement(ExperimentConfig(), gigabytes, lambda: 10**10).note
    assert note == (
        "all rows take 10.8 GB in memory and may take 5.0 GB, so those of train are streamed"
    )
    assert plan_placement(ExperimentConfig(), gigabytes, lambda: 10**11).note is None


def test_a_model_with_history_holds_rows_in_memory_with_a_note() -> None:
    model = ModelConfig.model_validate({"history": {"encoders": ("gaussian-process",)}})
    found = plan_placement(ExperimentConfig(model=model), {"train": 10**8}, lambda: 10**10)
    assert found.streamed == ()
    assert found.note == (
        "all rows take 10.0 GB in memory and may take 5.0 GB, but are held there: the model needs "
        "all ratings of a user at once"
    )
    assert plan_placement(ExperimentConfig(model=model), {"train": 10}, lambda: 10**10).note is None


# -- what is free ----------------------------------------------------------------------------------


def machine(root: Path, files: dict[str, str]) -> int:
    """What is free where /proc and /sys hold ``files``; the system has 5,000 kB available."""
    defaults = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"}
    for name, content in (defaults | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return free_on_machine(root)


def test_without_control_groups_it_is_the_memory_of_the_system(tmp_path: Path) -> None:
    assert machine(tmp_path, {}) == 5000 * 1024


def test_a_limit_of_control_groups_counts_without_cached_files(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/jobs/one"
    files = {
        "proc/self/cgroup": "0::/jobs/one\n",
        f"{group}/memory.max": "3000000\n",
        f"{group}/memory.current": "1500000\n",
        f"{group}/memory.stat": "anon 7\ninactive_file 400000\n",
        "sys/fs/cgroup/jobs/memory.max": "max\n",
    }
    assert machine(tmp_path, files) == 1_900_000
    # A group's limit holds for all within it.
    outer = {
        "sys/fs/cgroup/jobs/memory.max": "2000000\n",
        "sys/fs/cgroup/jobs/memory.current": "1900000\n",
        "sys/fs/cgroup/jobs/memory.stat": "",
    }
    assert machine(tmp_path, outer) == 100_000


def test_a_limit_of_the_first_version_of_control_groups(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory"
    files = {
        # The path is that outside of the container, which sees its own group at the top.
        "proc/self/cgroup": "5:cpu:/outside\n4:memory:/outside\n0::/\n",
        f"{group}/memory.limit_in_bytes": "2000000\n",
        f"{group}/memory.usage_in_bytes": "1500000\n",
        f"{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 250000\n",
    }
    assert machine(tmp_path, files) == 750_000
    assert machine(tmp_path, {f"{group}/memory.limit_in_bytes": str(2**63 - 4096)}) == 5000 * 1024


def test_a_control_group_over_its_limit_has_no_free_memory(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000\n",
        "sys/fs/cgroup/memory.current": "2000\n",
        "sys/fs/cgroup/memory.stat": "",
    }
    assert machine(tmp_path, files) == 0


def test_this_machine_has_memory() -> None:
    assert free_on_machine() > 0
