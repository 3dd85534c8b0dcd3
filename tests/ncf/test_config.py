from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from foundation.config import Section
from ncf.config import (
    ExperimentConfig,
    FeaturesConfig,
    ModelConfig,
    SplitConfig,
    TimeDecayConfig,
    TrainConfig,
)
from ncf.models.branches.base import Branch
from ncf.registry import BRANCHES, LOSSES, implementation

SECTIONS = [
    ExperimentConfig,
    FeaturesConfig,
    ModelConfig,
    SplitConfig,
    TimeDecayConfig,
    TrainConfig,
]


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_keys_are_refused_by_name(section: type[Section]) -> None:
    with pytest.raises(ValidationError, match="learning_rte"):
        section.model_validate({"learning_rte": 1})


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_cannot_be_changed(section: type[Section]) -> None:
    config = section()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, next(iter(section.model_fields)), 1)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented(section: type[Section]) -> None:
    fields = section.model_fields.items()
    assert [name for name, field in fields if not (field.description or "").strip()] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_the_same_after_a_round_trip_through_json(section: type[Section]) -> None:
    config = section()
    assert section.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (SplitConfig, "test", 0),
        (SplitConfig, "test", 1),
        (SplitConfig, "validation", -0.1),
        (SplitConfig, "validation", 1),
        (SplitConfig, "seed", -1),
        (SplitConfig, "seed", 2**32),
        (SplitConfig, "kind", "time"),
        (TimeDecayConfig, "rate_per_day", -1e-9),
        (TimeDecayConfig, "apply_to", "both"),
        (TimeDecayConfig, "reference", "yesterday"),
        (FeaturesConfig, "numeric", ("budget", "director")),
        (FeaturesConfig, "transform", "box-cox"),
        (ModelConfig, "inputs", ()),
        (ModelConfig, "inputs", ("user", "actors")),
        (ModelConfig, "embedding_dim", 0),
        (ModelConfig, "embedding_std", 0),
        (ModelConfig, "hidden_dims", (64, 0)),
        (ModelConfig, "dropout", 1),
        (TrainConfig, "loss", "huber"),
        (TrainConfig, "learning_rate", 0),
        (TrainConfig, "schedule", "step"),
        (TrainConfig, "weight_decay", -1),
        (TrainConfig, "embedding_l2", -1),
        (TrainConfig, "batch_size", 0),
        (TrainConfig, "epochs", 0),
        (TrainConfig, "stop_after", -1),
        (TrainConfig, "patience", -1),
    ],
)
def test_values_out_of_range_are_refused(section: type[Section], key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        section.model_validate({key: value})


def test_values_at_the_limits_are_accepted() -> None:
    assert SplitConfig(test=0.01, validation=0, seed=2**32 - 1).validation == 0
    assert ModelConfig(hidden_dims=(), dropout=0).hidden_dims == ()
    assert TimeDecayConfig.model_validate({"reference": "2018-09-24"}).reference
    assert FeaturesConfig(numeric=()).numeric == ()


def test_a_split_must_leave_training_rows() -> None:
    with pytest.raises(ValidationError, match=r"split.test \+ split.validation is 1:"):
        SplitConfig(test=0.5, validation=0.5)


FILES = {"train": ["u1.base"], "test": ["u1.test"]}


def test_a_split_by_files_needs_no_share_for_testing_and_survives_json() -> None:
    config = SplitConfig.model_validate({"kind": "files", "files": FILES, "validation": 0.9})
    dumped = config.model_dump(mode="json")
    assert dumped["files"] == FILES
    assert SplitConfig.model_validate(dumped) == config


@pytest.mark.parametrize("values", [{"kind": "files"}, {"kind": "random", "files": FILES}])
def test_files_and_their_kind_of_split_belong_together(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        SplitConfig.model_validate(values)


@pytest.mark.parametrize("files", [{"train": [], "test": ["a"]}, {"train": ["a"]}])
def test_both_lists_of_files_must_name_some(files: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="files"):
        SplitConfig.model_validate({"kind": "files", "files": files})


def test_other_splits_are_written_without_files() -> None:
    """So that what was prepared before there were such splits keeps its name."""
    assert set(SplitConfig().model_dump(mode="json")) == {"kind", "test", "validation", "seed"}


def test_an_input_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="names an input twice: user, movie, user"):
        ModelConfig(inputs=("user", "movie", "user"))


@pytest.mark.parametrize(
    ("section", "setting", "names"),
    [(ModelConfig, {"inputs": ["gender"]}, BRANCHES), (TrainConfig, {"loss": "hinge"}, LOSSES)],
)
def test_unknown_names_are_refused_with_the_known_ones(
    section: type[ModelConfig | TrainConfig], setting: dict[str, Any], names: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(setting)
    for name in names:
        assert f"'{name}'" in str(caught.value)


def test_every_registered_name_has_an_implementation() -> None:
    for path in BRANCHES.values():
        assert issubclass(implementation(path), Branch)
    for entry in LOSSES.values():
        assert callable(implementation(entry.implementation))
