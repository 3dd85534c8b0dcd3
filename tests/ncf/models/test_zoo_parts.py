"""Each part of a model on synthetic data with a signal that only this part can learn.

In a whole model parts compensate for each other, so that it may be as accurate although one of them
is broken. Here no other part can learn the signal, and the same model without the part fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pytest

from ncf.config import HistoryConfig
from tests.ncf.worlds import Signal, World, planted
from tests.ncf.zoo import HISTORY, error_of, experiment, trained

TASTE: Final = Signal()
NO_TASTE: Final = Signal(taste=0)
RISING: Final = Signal(taste=0, years=0.6)
CHOOSY: Final = Signal(users=0, choosy=0.8)
TRAIN: Final = {"epochs": 10, "batch_size": 128, "learning_rate": 0.03, "history_l2": 10.0}


@dataclass(frozen=True)
class Part:
    """A model that needs one part, and the world in which it does."""

    signal: Signal
    model: dict[str, Any]
    without: dict[str, Any]
    """What takes the part out of the model."""
    above: float = 0.025
    """Stars by which its RMSE may be above the floor."""


def encoder(name: str, signal: Signal, above: float) -> Part:
    """A model whose only input from the user is the history."""
    history = HistoryConfig(encoders=(name,), **HISTORY)
    model = {"inputs": ("genres",), "biases": ("movie",), "history": history}
    return Part(signal, model, {"history": HistoryConfig()}, above)


def feature(name: str) -> Part:
    """A model with one feature of the movie's side, which some users like and others do not."""
    return Part(TASTE, {"inputs": ("user", name), "biases": ("movie",)}, {"inputs": ("user",)})


BOTH_BIASES: Final = {"inputs": ("genres",), "biases": ("user", "movie")}
PARTS: Final = {
    "statistics": encoder("statistics", TASTE, 0.07),
    "explicit": encoder("explicit", TASTE, 0.04),
    "transformer": encoder("transformer", TASTE, 0.03),
    "gaussian-process": encoder("gaussian-process", TASTE, 0.03),
    # It does not see ratings: what users like must show in what they have rated.
    "implicit": encoder("implicit", CHOOSY, 0.05),
    **{
        name: feature(name)
        for name in ("genres", "decade", "numeric", "directors", "cast", "keywords")
    },
    "user": Part(
        TASTE, {"inputs": ("user", "genres"), "biases": ("movie",)}, {"inputs": ("genres",)}
    ),
    "movie": Part(NO_TASTE, {"inputs": ("user", "movie")}, {"inputs": ("user",)}),
    "time": Part(RISING, {"inputs": ("user", "movie", "time")}, {"inputs": ("user", "movie")}),
    "bias of the user": Part(NO_TASTE, BOTH_BIASES, {"biases": ("movie",)}),
    "bias of the movie": Part(NO_TASTE, BOTH_BIASES, {"biases": ("user",)}),
    "gmf": Part(TASTE, {**BOTH_BIASES, "gmf_dim": 4}, {"gmf_dim": 0}),
}


@cache
def world_of(signal: Signal) -> World:
    return planted(signal)


def error(model: dict[str, Any], world: World) -> float:
    config = experiment({"embedding_std": 0.3, **model}, TRAIN)
    return error_of(trained(config, world, world.train), config, world)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_learns_a_signal_that_no_other_part_can(name: str) -> None:
    part, world = PARTS[name], world_of(PARTS[name].signal)
    assert world.floor < error(part.model, world) < world.floor + part.above
    # What the part would carry is a standard deviation of 0.4 stars or more, beside 0.3 of noise.
    assert error({**part.model, **part.without}, world) > world.floor + 0.15
