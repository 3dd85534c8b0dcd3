"""The training of the final choice model, interrupted and continued, in the job's own process."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from foundation.errors import MovieRatingsError
from ingest.raw_data import RawData
from ncf.choice_config import ChoiceConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.config import JobConfig
from ray_jobs.results.choices import ChoiceMetrics
from ray_jobs.results.run import Workspace
from ray_jobs.stages import choice_training
from ray_jobs.stages.choice_training import ChoiceTrainInputs
from ray_jobs.stages.preparation import ingest
from ray_jobs.training import choice_worker
from ray_jobs.training.run_tasks import train_tasks
from ray_jobs.training.saved_state import write_state
from ray_jobs.training.tasks import ChoiceProtocol
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import job

CHOICE = ChoiceConfig.model_validate(
    {"ease": {"ridges": [20.0, 5.0]}, "network": {"dim": 4, "epochs": 6, "evaluate_every": 2}}
)


@pytest.fixture
def config(storage: Path) -> JobConfig:
    return job(storage, name="small", task="choice")


@pytest.fixture
def inputs(config: JobConfig, prepared: PreparedDataset) -> ChoiceTrainInputs:
    """With a refit: the same rows under another fingerprint stand for those of both splits."""
    return ChoiceTrainInputs(
        raw=raw(config),
        split=config.split,
        selection=prepared,
        final=replace(prepared, manifest=replace(prepared.manifest, fingerprint="final")),
        choice=CHOICE,
        protocol=ChoiceProtocol(),
        num_workers=0,
        beside_ratings=True,
    )


def raw(config: JobConfig) -> RawData:
    return ingest(Workspace(config))


def trained(
    config: JobConfig, inputs: ChoiceTrainInputs, *, force: bool = False
) -> tuple[ChoiceMetrics, dict[str, Any]]:
    paths = Workspace(config).paths
    workers = Workers(paths.ray("workers"), 0)
    choice_training._train(
        inputs, paths, partial(train_tasks, workers=workers, config=config), force=force
    )
    assert not Path(str(paths.ray("train-choices"))).exists()
    weights = load_file(Path(str(paths.choice_checkpoint)) / "network.safetensors")
    return ChoiceMetrics.read(paths.choice_metrics), weights


def test_training_continues_after_the_last_epoch(
    config: JobConfig, inputs: ChoiceTrainInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count(1)
    last = 0

    def counted(*args: Any) -> None:
        number = next(calls)
        write_state(*args)
        if number == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(choice_worker, "write_state", counted)
    expected = trained(config, inputs)
    total = next(calls) - 1
    assert total >= 6 + 1

    calls, last = itertools.count(1), 3
    with pytest.raises(KeyboardInterrupt):
        trained(config, inputs)
    # In the refit, after its first epoch.
    calls, last = itertools.count(1), 4
    with pytest.raises(KeyboardInterrupt):
        trained(config, inputs)
    calls = itertools.count(1)
    found = trained(config, inputs)
    assert next(calls) - 1 == total - 3 - 4

    for name, weights in expected[1].items():
        assert weights.equal(found[1][name]), name
    assert comparable(found[0]) == comparable(expected[0])

    calls, last = itertools.count(1), 3
    with pytest.raises(KeyboardInterrupt):
        trained(config, inputs)
    calls, last = itertools.count(1), 0
    trained(config, inputs, force=True)
    assert next(calls) - 1 == total


def comparable(metrics: ChoiceMetrics) -> ChoiceMetrics:
    """Without what depends on the clock."""
    epochs = tuple(epoch | {"seconds": 0} for epoch in metrics.epochs)
    return replace(metrics, epochs=epochs, wall_seconds=0.0)


def test_a_damaged_state_is_told(
    config: JobConfig, inputs: ChoiceTrainInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(*args: Any) -> None:
        write_state(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(choice_worker, "write_state", once)
        with pytest.raises(KeyboardInterrupt):
            trained(config, inputs)
    folder = Path(str(Workspace(config).paths.ray("train-choices")))
    (file,) = folder.rglob("state.safetensors")
    file.write_bytes(file.read_bytes()[:100])

    with pytest.raises(MovieRatingsError, match=r"cannot continue from .*--force"):
        trained(config, inputs)
    trained(config, inputs, force=True)
