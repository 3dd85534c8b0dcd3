"""Ctrl-C and SIGTERM for real, in the stages that hand control to Ray."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support import TINY, left_after, running_module

pytestmark = pytest.mark.ray(seconds=80)

ENDLESS = ("train.epochs=100000", "train.patience=0", "train.compile=off")


@pytest.mark.parametrize(
    ("module", "sign", "stage", "settings", "stop"),
    [
        (
            "ray_jobs.tune",
            "trials, 1 at a time",
            "tune",
            ("tune.grace_epochs=100000", "scaling.num_workers=0"),
            signal.SIGINT,
        ),
        # What `ray job stop` sends.
        ("ray_jobs.compare", "mse seed 0", "compare", ("tune.num_trials=0",), signal.SIGTERM),
        (
            "ray_jobs.train",
            "epoch",
            "train",
            ("tune.num_trials=0", "scaling.num_workers=0"),
            signal.SIGINT,
        ),
    ],
)
def test_an_interrupted_stage_ends_with_130_and_counts_as_not_done(
    module: str,
    sign: str,
    stage: str,
    settings: tuple[str, ...],
    stop: signal.Signals,
    tmp_path: Path,
) -> None:
    everything = (*TINY, *ENDLESS, *settings, "ray.num_cpus=1", f"storage={tmp_path}")
    with running_module(module, everything) as program:
        program.wait_for(sign)
        program.process.send_signal(stop)
        said, _ = program.process.communicate(timeout=90)

        assert program.process.returncode == 130, said
        assert "continues from the last finished stage" in said
        assert "SIGTERM" not in said  # no stack of Ray's libraries
        assert not (tmp_path / "runs" / "tiny" / ".stages" / f"{stage}.json").exists()
        assert left_after(program.mark, 20) == {}
