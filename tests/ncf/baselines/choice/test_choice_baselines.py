"""The search for settings, and which baselines are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from optuna.distributions import BaseDistribution, FloatDistribution

from ncf import baselines
from ncf.baselines.choice import (
    ALL,
    ChoiceBaselineSpec,
    choice_baseline_specs,
    described,
    tune_choice_baseline,
)
from ncf.baselines.choice.ease import EASE, EASE_WITH_VALUES, RIDGES, EaseSettings
from ncf.baselines.choice.ials import IALS, IalsSettings
from ncf.baselines.choice.item_knn import ItemKnnSettings
from ncf.baselines.choice.popularity import POPULAR, POPULAR_LATELY, PopularSettings
from ncf.data.preprocessor import Preprocessor
from ncf.evaluation.choice_scores import UserScores
from ncf.evaluation.full_ranking import rank
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking_metrics import RankingMetric
from ncf.models.choice.base import ChoiceModel
from ncf.registry import CHOICE_BASELINES, implementation
from tests.ncf.baselines.choice.lists import strangers, tastes

NDCG = RankingMetric.parse("ndcg@10")


@dataclass(frozen=True)
class Settings:
    power: float = 0.0
    offset: float = 1.0
    seed: int = 0


class Constant(ChoiceModel):
    """Has settings, and no scores."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def scores(self, known: Any) -> torch.Tensor:
        raise NotImplementedError


def spec_of(space: dict[str, BaseDistribution], with_path: bool) -> ChoiceBaselineSpec[Settings]:
    """Models that only have settings; the offsets 1, 2 and 3 are in one trial."""

    def path(train: Any, preprocessor: Any, settings: Settings) -> Any:
        for offset in (1.0, 2.0, 3.0):
            each = Settings(settings.power, offset)
            yield each, Constant(each)

    return ChoiceBaselineSpec(
        "constant",
        "a constant",
        Settings(),
        lambda train, preprocessor, settings: Constant(settings),
        space,
        path if with_path else None,
    )


@pytest.mark.parametrize("with_path", [False, True])
def test_the_settings_with_the_highest_objective_are_returned(
    with_path: bool, preprocessor: Preprocessor
) -> None:
    seen: list[tuple[float, Settings]] = []

    def objective(model: Any) -> float:
        value = -((model.settings.power - 0.7) ** 2) - (model.settings.offset - 2) ** 2
        seen.append((value, model.settings))
        return value

    spec = spec_of({"power": FloatDistribution(-2, 2)}, with_path)
    found = tune_choice_baseline(spec, tastes()[0], preprocessor, objective, 12)
    assert len(seen) == 12 * (3 if with_path else 1)
    assert seen[0][1] == Settings()
    assert found == max(seen, key=lambda pair: pair[0])[1]
    assert found.offset == (2.0 if with_path else 1.0)
    assert found.power == pytest.approx(0.7, abs=0.4)


def test_of_equal_settings_the_first_are_returned(preprocessor: Preprocessor) -> None:
    spec = spec_of({"power": FloatDistribution(-2, 2)}, with_path=True)
    found = tune_choice_baseline(spec, tastes()[0], preprocessor, lambda model: 1.0, 5)
    assert found == Settings()


def test_what_is_not_searched_costs_no_trial(preprocessor: Preprocessor) -> None:
    calls: list[ChoiceModel] = []

    def objective(model: ChoiceModel) -> float:
        calls.append(model)
        return 0.0

    train, _ = tastes()
    assert tune_choice_baseline(POPULAR, train, preprocessor, objective, 9) == PopularSettings()
    assert calls == []
    tune_choice_baseline(EASE, train, preprocessor, objective, 9)
    assert len(calls) == len(RIDGES)  # more trials would be the same again


def test_ease_has_the_ridge_that_ranks_best(preprocessor: Preprocessor) -> None:
    holdout = Holdout.of(*tastes())

    def objective(model: ChoiceModel) -> float:
        ranked = rank(model, holdout.known, 10)
        return UserScores.of(ranked, holdout, "all", (NDCG,)).mean("ndcg@10")

    found = tune_choice_baseline(EASE, holdout.known, preprocessor, objective)
    values = {
        ridge: objective(EASE.fit(holdout.known, preprocessor, EaseSettings(ridge)))
        for ridge in RIDGES
    }
    assert values[found.ridge] == max(values.values()) > min(values.values())


def test_a_search_finds_the_same_again(preprocessor: Preprocessor) -> None:
    train, _ = tastes()

    def objective(model: ChoiceModel) -> float:
        return float(model.scores(train).std())

    first, again = (
        tune_choice_baseline(EASE_WITH_VALUES, train, preprocessor, objective, 4) for _ in range(2)
    )
    assert first == again


def test_there_is_a_model_for_each_seed(preprocessor: Preprocessor) -> None:
    train, _ = tastes()
    settings = IalsSettings(dim=3, epochs=2, seed=9)
    models = IALS.fit_seeds(train, preprocessor, settings, (0, 1))
    for seed, model in enumerate(models):
        expected = IALS.fit(train, preprocessor, IalsSettings(dim=3, epochs=2, seed=seed))
        assert torch.equal(model.scores(train), expected.scores(train))
    assert not torch.equal(*(model.scores(train) for model in models))
    assert not POPULAR_LATELY.is_seeded
    assert len(POPULAR_LATELY.fit_seeds(train, preprocessor, POPULAR_LATELY.default, (0, 1))) == 1


def test_settings_in_words() -> None:
    assert described(ItemKnnSettings(40, 12.3456, 0.5)) == (
        "neighbours 40, shrinkage 12.3, normalization 0.5"
    )
    assert described(PopularSettings()) == ""
    assert "seed" not in described(IalsSettings())


@pytest.mark.parametrize("name", ALL)
def test_every_baseline_of_the_registry_scores_all_movies_of_everyone(
    name: str, preprocessor: Preprocessor
) -> None:
    spec = implementation(CHOICE_BASELINES[name].implementation)
    assert isinstance(spec, ChoiceBaselineSpec)
    assert spec.name == name
    assert set(spec.space) <= set(vars(spec.default))
    for field, distribution in spec.space.items():
        assert distribution.low <= getattr(spec.default, field) <= distribution.high
    train, held_out = tastes()
    model = spec.fit(train, preprocessor, spec.default)
    for known in (train, strangers(held_out)):
        scores = model.scores(known)
        assert scores.shape == (len(known), train.num_movies)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()
    np.testing.assert_array_equal(
        rank(model, train, 5), rank(spec.fit(train, preprocessor, spec.default), train, 5)
    )


def test_beyond_a_size_only_popularity_is_counted() -> None:
    notes: list[str] = []
    found = choice_baseline_specs(baselines.LARGEST + 1, note=notes.append)
    assert [spec.name for spec in found] == ["popular", "popular-lately"]
    (note,) = notes
    assert "item-knn, bpr, ials, ease, ease-with-values; they take too long" in note


def test_the_named_baselines_are_in_the_order_of_the_registry() -> None:
    notes: list[str] = []
    found = choice_baseline_specs(baselines.LARGEST, ["ease", "popular"], notes.append)
    assert [spec.name for spec in found] == ["popular", "ease"]
    assert [spec.name for spec in choice_baseline_specs(1, note=notes.append)] == list(ALL)
    assert choice_baseline_specs(1, [], notes.append) == ()
    assert notes == []
