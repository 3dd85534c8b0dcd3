"""What the stages declare as their inputs, and what makes them be done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.config import (
    ExperimentConfig,
    FeaturesConfig,
    SplitConfig,
    TimeDecayConfig,
    TrainConfig,
)
from ncf.data.dataset import Manifest, PreparedDataset
from ncf.data.prepare import PreparationConfig
from ray_jobs.config import BlendConfig, CompareConfig, JobConfig, RecommendConfig
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.stage import key_of
from ray_jobs.stages.compared_models import ComparedData, ComparedModel
from ray_jobs.stages.comparison import CompareInputs
from ray_jobs.stages.preparation import PreparationInputs
from ray_jobs.stages.recommendation import RecommendInputs
from ray_jobs.stages.training import FinalModel, TrainInputs
from ray_jobs.stages.tuning import SearchInputs, TrialInputs
from tests.ray_jobs.made import METRICS

PLACE = Storage.at("a")
COUNTS = {"train": 7, "validation": 1, "test": 2}
DATA = PreparedDataset(PLACE.filesystem, "a", Manifest("f1", COUNTS, num_users=2, num_movies=3))
OTHER = replace(DATA, manifest=replace(DATA.manifest, fingerprint="f2"))
RAW = RawData(PLACE, "own", False, "r1", 10, 2, 3, {}, ("a notice",), ("cite",), "terms")
EXPERIMENT = ExperimentConfig()
SLOWER = ExperimentConfig(train=TrainConfig(epochs=9))

TRAIN = TrainInputs(RAW, SplitConfig(), DATA, DATA, EXPERIMENT, {"train.loss": "l1"}, 1)
BOTH = ComparedData(DATA, DATA)
MODELS = (
    ComparedModel("NCF, mse", "mse", BOTH, EXPERIMENT, {}),
    ComparedModel("NCF, l1", "l1", BOTH, EXPERIMENT, {}),
)
COMPARE = CompareInputs(BOTH, MODELS, CompareConfig(), 1)
FINAL = FinalModel(PLACE, RunMetrics.from_json(METRICS), DATA)
RECOMMEND = RecommendInputs((FINAL,), RecommendConfig())
RETRAINED = replace(FINAL, metrics=RunMetrics.from_json(METRICS | {"config_hash": "1"}))


PREPARE = PreparationInputs(
    "r1", PreparationConfig(SplitConfig(), FeaturesConfig(), TimeDecayConfig())
)
PREPARE_CHANGES: list[dict[str, Any]] = [
    {"raw": "r2"},
    {"preparation": replace(PREPARE.preparation, split=SplitConfig(seed=43))},
    {"preparation": replace(PREPARE.preparation, features=FeaturesConfig(transform="none"))},
    {"preparation": replace(PREPARE.preparation, time_decay=TimeDecayConfig(rate_per_day=0.5))},
    {"preparation": replace(PREPARE.preparation, train_on_validation=True)},
    {"preparation": replace(PREPARE.preparation, use_tmdb=False)},
]
SEARCH = SearchInputs(TrialInputs.of(JobConfig(), DATA), 3)


TRAIN_CHANGES: list[dict[str, Any]] = [
    {"raw": replace(RAW, fingerprint="r2")},
    {"raw": replace(RAW, attribution=())},
    {"raw": replace(RAW, licence="other terms")},
    {"split": SplitConfig(seed=43)},
    {"selection": OTHER},
    {"final": OTHER},
    {"experiment": SLOWER},
    {"tuned_parameters": {}},
    {"num_workers": 2},
    {"checkpoint_version": -1},
    {"length_of_rankings": 20},
    {"relevant_stars": 3.0},
    {"blend": BlendConfig(members=("boosting",))},
    {"blend": BlendConfig(trials=3)},
]
COMPARE_CHANGES: list[dict[str, Any]] = [
    {"data": replace(BOTH, selection=OTHER)},
    {"data": replace(BOTH, final=OTHER)},
    {"models": MODELS[::-1]},
    {"models": (replace(MODELS[0], experiment=SLOWER), MODELS[1])},
    {"models": (replace(MODELS[0], name="other"), MODELS[1])},
    {"models": (replace(MODELS[0], data=replace(BOTH, selection=OTHER)), MODELS[1])},
    {"compare": CompareConfig(resamples=500)},
    {"compare": CompareConfig(score_test=False)},
    {"compare": CompareConfig(blends={"both": ("NCF, mse", "NCF, l1")})},
    {"compare": CompareConfig(against=("NCF, mse",))},
    {"num_workers": 2},
]


@pytest.mark.parametrize(
    ("inputs", "changed"),
    [
        *((PREPARE, change) for change in PREPARE_CHANGES),
        (SEARCH, {"num_trials": 4}),
        (SEARCH, {"trials": replace(SEARCH.trials, num_workers=2)}),
        *((SEARCH.trials, change) for change in ({"prepared": OTHER}, {"experiment": SLOWER})),
        *((TRAIN, change) for change in TRAIN_CHANGES),
        *((COMPARE, change) for change in COMPARE_CHANGES),
        (RECOMMEND, {"models": (RETRAINED,)}),
        (RECOMMEND, {"recommend": RecommendConfig(top_n=3)}),
    ],
)
def test_every_input_counts(inputs: Any, changed: dict[str, Any]) -> None:
    assert key_of(replace(inputs, **changed)) != key_of(inputs)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"seed": 1}, True),
        ({"metric": "mae"}, True),
        ({"scheduler": "none"}, True),
        ({"sampler": "random"}, True),
        ({"grace_epochs": 4}, True),
        ({"num_trials": 99}, False),
        ({"max_concurrent_trials": 1}, False),
        ({"executor": "isolated"}, False),
        ({"keep_models": 0}, False),
        ({"live_table": True}, False),
    ],
)
def test_what_runs_the_trials_changes_none_of_them(change: dict[str, Any], counts: bool) -> None:
    changed = JobConfig.model_validate({"tune": change})
    assert changed != JobConfig()
    assert (key_of(TrialInputs.of(changed, DATA)) != key_of(SEARCH.trials)) == counts


def test_how_losses_are_weighted_changes_no_prepared_row() -> None:
    other = replace(PREPARE.preparation, time_decay=TimeDecayConfig(apply_to="target"))
    assert key_of(replace(PREPARE, preparation=other)) == key_of(PREPARE)


def test_where_the_data_lie_does_not_count(tmp_path: Path) -> None:
    moved = replace(RAW, folder=Storage.at(str(tmp_path)))
    there = replace(DATA, folder=str(tmp_path))
    assert key_of(replace(TRAIN, raw=moved, selection=there, final=there)) == key_of(TRAIN)
    data = ComparedData(there, there)
    models = tuple(replace(model, data=data) for model in MODELS)
    assert key_of(replace(COMPARE, data=data, models=models)) == key_of(COMPARE)
    assert COMPARE.model_key(models[0]) == COMPARE.model_key(MODELS[0])


@pytest.mark.parametrize(
    "changed",
    [
        replace(MODELS[0], experiment=SLOWER),
        replace(MODELS[0], data=replace(BOTH, selection=OTHER)),
        replace(MODELS[0], data=replace(BOTH, final=OTHER)),
        replace(MODELS[0], parameters={"train.loss": "l1"}),
    ],
)
def test_the_stored_result_of_a_model_depends_on_the_model_alone(changed: ComparedModel) -> None:
    key = COMPARE.model_key(MODELS[0])

    assert COMPARE.model_key(changed) != key
    for compare in (CompareConfig(seeds=(0,)), CompareConfig(score_test=False)):
        assert replace(COMPARE, compare=compare).model_key(MODELS[0]) != key
    others = (CompareConfig(resamples=500), CompareConfig(against=("NCF, mse",)))
    for compare in (*others, CompareConfig(baselines=("damped-bias",))):
        fewer = replace(COMPARE, compare=compare, models=MODELS[:1])
        assert fewer.model_key(MODELS[0]) == key
