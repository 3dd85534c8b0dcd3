"""Temporary folders of workers that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ray_jobs.training.scratch import scratch_folder
from tests.support import ROOT

HOLDER = """
from ray_jobs.training.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "model").write_text("weights")
    print(folder, flush=True)
    input()
"""


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_live_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        hour_ago = time.time() - 3600
        os.utime(folder, (hour_ago, hour_ago))

        with scratch_folder():
            assert (folder / "model").exists()

        process.kill()
        process.wait()
    assert folder.exists()
    with scratch_folder() as own:
        assert list(tmp_path.iterdir()) == [own]
    assert list(tmp_path.iterdir()) == []
