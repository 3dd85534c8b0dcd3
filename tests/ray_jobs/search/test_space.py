"""Choices that set several settings together, from the configuration to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from pyarrow import fs
from ray.tune.search.optuna import OptunaSearch

from ncf.config import ExperimentConfig
from ncf.data.dataset import Manifest, PreparedDataset
from ray_jobs.cli import load_config
from ray_jobs.config import Dimension, JobConfig, settings_of, with_parameters
from ray_jobs.report.document import Report, ReportSection
from ray_jobs.report.sections.search import search_blocks
from ray_jobs.results.run import Workspace
from ray_jobs.search.space import decoded, domains, encoded
from ray_jobs.stages.tuning import open_records, search
from ray_jobs.training.telemetry import METRIC
from ray_jobs.training.workers import Workers

FAMILY = Path(__file__).resolve().parents[3] / "configs" / "protocols" / "family.toml"
TABLE = {"train.loss": "nll", "model.head": "ordinal"}
AS_TEXT = '{"train.loss": "nll", "model.head": "ordinal"}'
SPACE = {
    "train.loss": {"choices": ["mse", TABLE]},
    "model.head": {"choices": ["regression", "ordinal"]},
    "train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
}


def job(storage: Path, **tune: Any) -> JobConfig:
    values = {"storage": str(storage), "name": "x", "tune": {"space": SPACE} | tune}
    return JobConfig.model_validate(values)


@pytest.mark.parametrize("choices", [[0, {"model.gmf_dim": 8}], [True, ["user"]], [0.5, {}]])
def test_tables_and_lists_are_not_mixed_with_numbers(choices: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"choices mix lists or tables with .* as a table too"):
        Dimension(choices=choices)


def drawn(config: JobConfig, number: int) -> list[dict[str, Any]]:
    """What a search may suggest, from the distributions that it gives to Optuna."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    distributions = OptunaSearch.convert_search_space(domains(config.tune.space))
    return [study.ask(distributions).params for _ in range(number)]


def test_a_table_sets_what_it_names_and_wins_over_what_other_keys_drew() -> None:
    parameters = {"train.loss": TABLE, "model.head": "regression", "model.dropout": 0.1}

    assert settings_of(parameters) == TABLE | {"model.dropout": 0.1}
    assert settings_of({"kind": {}, "model.dropout": 0.1}) == {"model.dropout": 0.1}
    experiment = with_parameters(ExperimentConfig(), parameters)
    assert (experiment.train.loss, experiment.model.head) == ("nll", "ordinal")
    assert experiment.model.dropout == 0.1


def test_every_draw_is_a_configuration(tmp_path: Path) -> None:
    config = job(tmp_path)
    found = {
        (experiment.train.loss, experiment.model.head)
        for experiment in (
            with_parameters(config.experiment, decoded(config.tune.space, draw))
            for draw in drawn(config, 50)
        )
    }

    assert found == {("mse", "regression"), ("mse", "ordinal"), ("nll", "ordinal")}


def test_the_family_has_no_impossible_draw() -> None:
    config = load_config([str(FAMILY)], [])

    experiments = [
        with_parameters(config.experiment, decoded(config.tune.space, d))
        for d in drawn(config, 200)
    ]

    # What goes together came together, and every part of it came at all.
    assert {e.model.head for e in experiments if e.train.loss == "nll"} == {"ordinal"}
    closed = [e.model for e in experiments if "gaussian-process" in e.model.history.encoders]
    assert {m.biases for m in closed} == {("movie",)}
    assert {"user" in m.inputs for m in closed} == {False}
    assert {m.gmf_dim for m in closed} == {0}
    assert {e.train.weight_decay > 0 for e in experiments} == {True, False}
    encoders = {encoder for e in experiments for encoder in e.model.history.encoders}
    assert encoders == {"implicit", "explicit", "transformer", "statistics", "gaussian-process"}


def test_the_winner_has_the_settings_of_its_table(tmp_path: Path) -> None:
    """Of a search whose trials have all ended, so that none is trained."""
    workspace = Workspace(job(tmp_path, num_trials=2))
    prepared = PreparedDataset(fs.LocalFileSystem(), "nowhere", Manifest("key", {}, 0, 0))
    records = open_records(workspace.config, prepared, workspace.run)
    for number, (loss, error) in enumerate((("mse", 0.9), (TABLE, 0.8)), 1):
        parameters = {"train.loss": loss, "model.head": "regression", "train.learning_rate": 0.005}
        records.start(number, f"trial-{number}", parameters)
        records.end(
            f"trial-{number}",
            state="finished",
            epochs=({"epoch": 1, METRIC: error},),
            best_epoch=1,
            seconds=1.0,
        )

    workers = Workers(workspace.run / "workers", max_failures=0)
    chosen = search(workspace, prepared, workers)

    assert chosen.parameters == TABLE | {"train.learning_rate": 0.005}
    assert (chosen.experiment.train.loss, chosen.experiment.model.head) == ("nll", "ordinal")
    best = load_config([str(tmp_path / "runs" / "x" / "best_config.toml")], [])
    assert best.experiment == chosen.experiment
    rows = (workspace.run / "trials.parquet").read_table().to_pylist()
    assert [row["config.train.loss"] for row in rows] == ["mse", AS_TEXT]
    blocks = tuple(search_blocks(rows, workspace.config.tune.space))
    text = Report("A run", (), (), (ReportSection("Search", blocks),)).markdown("plots")
    assert "has train.loss = loss nll; head ordinal, model.head = regression" in text


def test_the_configuration_that_a_run_sets_down_is_read_back(tmp_path: Path) -> None:
    config = job(tmp_path)

    Workspace(config).open()

    assert load_config([str(tmp_path / "runs" / "x" / "config.toml")], []) == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.loss", "mse"),
        ("model.hidden_dims", [64, 32]),
        ("model.dropout", 0.5),
        ("kind", {}),
        ("kind", TABLE),
    ],
)
def test_choices_travel_through_optuna_unchanged(key: str, value: Any, tmp_path: Path) -> None:
    config = job(tmp_path, space={key: {"choices": [value]}})
    (draw,) = drawn(config, 1)

    parameters = decoded(config.tune.space, draw)
    assert parameters == {key: value}
    assert encoded(parameters) == draw
    assert decoded(config.tune.space, {key: "[a title"}) == {key: "[a title"}
