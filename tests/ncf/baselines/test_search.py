"""The search for a baseline's settings, on functions whose least value is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from ncf.baselines.search import best_settings


@dataclass(frozen=True)
class Settings:
    size: int = 10
    rate: float = 0.1
    fixed: str = "as it is"


SPACE = {"size": IntDistribution(1, 100, log=True), "rate": FloatDistribution(1e-3, 10, log=True)}


class Bowl:
    """An error that is least at a size of 40 and a rate of 1, and a record of what it saw."""

    def __init__(self) -> None:
        self.seen: list[Settings] = []

    def __call__(self, settings: Settings) -> float:
        self.seen.append(settings)
        return math.log(settings.size / 40) ** 2 + math.log(settings.rate) ** 2


def test_the_best_of_all_trials_is_returned_and_the_default_is_first() -> None:
    error = Bowl()
    found = best_settings(Settings(), SPACE, error, 24)
    assert error.seen[0] == Settings()
    assert len(error.seen) == 24
    assert len(set(error.seen)) > 20
    assert {settings.fixed for settings in error.seen} == {"as it is"}
    assert found == min(error.seen, key=Bowl())
    assert Bowl()(found) < 0.1 * Bowl()(Settings())


def test_one_trial_is_the_default() -> None:
    assert best_settings(Settings(), SPACE, Bowl(), 1) == Settings()


def test_a_default_that_is_best_is_returned() -> None:
    best = Settings(size=40, rate=1.0)
    assert best_settings(best, SPACE, Bowl(), 10) == best


def test_the_same_search_finds_the_same_and_leaves_optunas_log_level() -> None:
    before = optuna.logging.get_verbosity()
    first, second = Bowl(), Bowl()
    best_settings(Settings(), SPACE, first, 15)
    best_settings(Settings(), SPACE, second, 15)
    assert first.seen == second.seen
    assert optuna.logging.get_verbosity() == before


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    best_settings(Settings(), SPACE, Bowl(), 2)
    assert not caplog.records
