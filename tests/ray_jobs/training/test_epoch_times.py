"""Which device takes no further trial."""

from __future__ import annotations

import pytest

from ray_jobs.training.epoch_times import EpochTimes

GROUPS = {"GPU": 1, "CPU": 4}


@pytest.mark.parametrize(
    ("gpu", "cpu", "num_left", "expected"),
    [
        # One trial on a CPU takes as long as ten on the GPU.
        (1.0, 10.0, 11, None),
        (1.0, 10.0, 9, "CPU"),
        # And the other way round: the four CPUs train 8 while the GPU trains one.
        (2.0, 1.0, 9, None),
        (4.0, 1.0, 9, "GPU"),
        # All that are left have begun.
        (1.0, 10.0, 5, None),
    ],
)
def test_the_slower_device_is_left_out_when_it_would_hold_up_the_end(
    gpu: float, cpu: float, num_left: int, expected: str | None
) -> None:
    # The first epoch of a process takes longer.
    seconds = {"GPU": [9.0, gpu, gpu, gpu], "CPU": [99.0, cpu, cpu, cpu]}
    assert EpochTimes().too_slow(seconds, GROUPS, num_left) == expected


def test_nothing_is_decided_before_there_are_times_of_both(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = EpochTimes()
    assert times.too_slow({"GPU": [1.0] * 9}, {"GPU": 1}, 99) is None
    assert times.too_slow({"GPU": [1.0] * 9, "CPU": [9.0] * 3}, GROUPS, 6) is None
    assert times.quicker is None
    assert not caplog.records


def test_what_was_measured_is_told_once_and_what_follows_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    times, seconds = EpochTimes(), {"GPU": [0.2] * 4, "CPU": [2.0] * 4}
    for num_left in (99, 98, 9):
        times.too_slow(seconds, GROUPS, num_left)
    both, alone = (record.getMessage().strip() for record in caplog.records)
    assert both == "an epoch takes 0.2 s on a GPU and 2 s on a CPU: trials train on both"
    assert alone.startswith(
        "an epoch takes 0.2 s on a GPU and 2 s on a CPU: further trials train on GPUs alone"
    )
    assert times.quicker == "GPU"
