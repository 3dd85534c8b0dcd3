"""When a job says that it waits for the cluster."""

from __future__ import annotations

import re

import pytest

from ray_jobs.cluster.resources import GroupPlan, Resources
from ray_jobs.cluster.waiting import Waiting

PLAN = GroupPlan(Resources(2, {"CPU": 4.0, "GPU": 1.0}, use_gpu=True), may_grow=True)


def test_it_says_so_after_a_while_and_then_every_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, told = 1000.0, []
    monkeypatch.setattr("time.monotonic", lambda: now)
    caplog.set_level("INFO")
    waiting = Waiting()
    for seconds in range(0, 200, 2):
        now = 1000.0 + seconds
        waiting.update(PLAN.waited_for, is_over=seconds in (0, 100))
        told += [seconds] * len(caplog.records)
        for record in caplog.records:
            assert re.fullmatch(
                r"   waiting since \d\d:\d\d:\d\d for workers of 4 CPU and 1 GPU; the autoscaler "
                "has been asked for nodes",
                record.getMessage(),
            )
        caplog.clear()
    # It waits from 2 on, and again from 102 on.
    assert told == [12, 72, 112, 172]
