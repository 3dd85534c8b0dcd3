"""What the stages declare as their inputs, and what makes them be done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foundation.storage import Storage
from ingest.dataset import RawData
from ncf.config import ExperimentConfig, SplitConfig, TrainConfig
from ncf.data.dataset import Manifest, PreparedDataset
from ray_jobs.config import CompareConfig, RecommendConfig
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.stage import key_of
from ray_jobs.stages.comparison import CompareInputs, LossSettings
from ray_jobs.stages.recommendation import RecommendInputs
from ray_jobs.stages.training import FinalModel, TrainInputs
from tests.ray_jobs.made import METRICS

PLACE = Storage.at("a")
COUNTS = {"train": 7, "validation": 1, "test": 2}
DATA = PreparedDataset(PLACE.filesystem, "a", Manifest("f1", COUNTS, num_users=2, num_movies=3))
OTHER = replace(DATA, manifest=replace(DATA.manifest, fingerprint="f2"))
RAW = RawData(PLACE, "own", False, "r1", 10, 2, 3, {}, ("a notice",))
EXPERIMENT = ExperimentConfig()
SLOWER = ExperimentConfig(train=TrainConfig(epochs=9))

TRAIN = TrainInputs(RAW, SplitConfig(), DATA, DATA, EXPERIMENT, {"train.loss": "l1"}, 1)
LOSSES = (LossSettings("mse", EXPERIMENT, {}), LossSettings("l1", EXPERIMENT, {}))
COMPARE = CompareInputs(DATA, DATA, LOSSES, CompareConfig(), 1)
RECOMMEND = RecommendInputs(
    FinalModel(PLACE, RunMetrics.from_json(METRICS), DATA), RecommendConfig()
)
RETRAINED = replace(RECOMMEND.model, metrics=RunMetrics.from_json(METRICS | {"config_hash": "1"}))


TRAIN_CHANGES: list[dict[str, Any]] = [
    {"raw": replace(RAW, fingerprint="r2")},
    {"split": SplitConfig(seed=43)},
    {"selection": OTHER},
    {"final": OTHER},
    {"experiment": SLOWER},
    {"tuned_parameters": {}},
    {"num_workers": 2},
    {"checkpoint_version": -1},
    {"length_of_rankings": 20},
    {"relevant_stars": 3.0},
]
COMPARE_CHANGES: list[dict[str, Any]] = [
    {"selection": OTHER},
    {"final": OTHER},
    {"losses": LOSSES[::-1]},
    {"losses": (replace(LOSSES[0], experiment=SLOWER), LOSSES[1])},
    {"compare": CompareConfig(resamples=500)},
    {"num_workers": 2},
]


@pytest.mark.parametrize(
    ("inputs", "changed"),
    [
        *((TRAIN, change) for change in TRAIN_CHANGES),
        *((COMPARE, change) for change in COMPARE_CHANGES),
        (RECOMMEND, {"model": RETRAINED}),
        (RECOMMEND, {"recommend": RecommendConfig(top_n=3)}),
    ],
)
def test_every_input_counts(inputs: Any, changed: dict[str, Any]) -> None:
    assert key_of(replace(inputs, **changed)) != key_of(inputs)


def test_where_the_data_lie_does_not_count(tmp_path: Path) -> None:
    moved = replace(RAW, folder=Storage.at(str(tmp_path)))
    there = replace(DATA, folder=str(tmp_path))
    assert key_of(replace(TRAIN, raw=moved, selection=there, final=there)) == key_of(TRAIN)
    assert key_of(replace(COMPARE, selection=there, final=there)) == key_of(COMPARE)
