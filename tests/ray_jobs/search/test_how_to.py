"""The scheduler and the sampler that docs/how-to.md adds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import blocks
from tests.support import ROOT
from tests.test_docs import apply

pytestmark = pytest.mark.system

PROGRAM = """
import tempfile, warnings
from optuna.samplers import QMCSampler
from foundation.storage import Storage
from ray_jobs.cli import load_config
from ray_jobs.config import Dimension
from ray_jobs.search.resume import ResumableSampler, ResumableScheduler, optuna_search
from ray_jobs.search.samplers import sampler
from ray_jobs.search.schedulers import SchedulerSettings, scheduler
from ray_jobs.search.trials import TrialRecords

warnings.simplefilter("ignore")  # Optuna calls the sampler experimental
config = load_config([], ["tune.scheduler=short", "tune.sampler=halton", "tune.grace_epochs=2"])
space = {"model.dropout": Dimension(low=0.0, high=0.4)}
folder = Storage.at(tempfile.mkdtemp())

def suggestions(first, last):
    records = TrialRecords(folder)
    inner = optuna_search(space, sampler(config.tune.sampler, 0), records.metric)
    resumed = ResumableSampler(inner, space, records, 8)
    found = []
    for number in range(first, last):
        found.append(resumed.suggest(f"trial-{number}")["model.dropout"])
        result = {"epoch": 2, "best_validation_rmse": 1.0}
        resumed.on_trial_complete(f"trial-{number}", result)
        records.end(f"trial-{number}", state="stopped", epochs=(result,))
    return found

found = suggestions(1, 4) + suggestions(4, 8)
assert isinstance(sampler(config.tune.sampler, 0), QMCSampler)
# The search of two parts repeats none of its draws, as a restarted sequence would.
assert len(set(found)) == 7 and all(0 <= value <= 0.4 for value in found), found

records = TrialRecords(folder)
settings = SchedulerSettings(
    records.metric, epochs=9, grace_epochs=config.tune.grace_epochs, reduction_factor=3.0, seed=0,
    number_of=lambda name: records.of(name).number,
)
resumed = ResumableScheduler(scheduler(config.tune.scheduler, settings), records)
class Trial:
    trial_id = "new"
answers = [resumed.on_trial_result(None, Trial(), {"epoch": epoch}) for epoch in (1, 2)]
assert answers == ["CONTINUE", "STOP"] and resumed.has_stopped(Trial()), answers
print("done")
"""


def test_the_scheduler_and_the_sampler_of_the_how_to_work(tmp_path: Path) -> None:
    for package in ("foundation", "ingest", "ncf", "ray_jobs"):
        shutil.copytree(ROOT / package, tmp_path / package)
    (diff,) = (block for block in blocks("diff") if "ray_jobs/search" in block.text)
    apply(diff.text, tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
