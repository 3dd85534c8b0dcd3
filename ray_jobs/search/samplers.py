"""The samplers of ``tune.sampler``: which configuration is tried next.

A sampler is one of Optuna's that draws from a seeded generator and learns from how trials end.
Another one is an entry in ``SAMPLERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from foundation.errors import ConfigError, shortened


def sampler(name: str, seed: int) -> BaseSampler:
    """A new sampler.

    Raises:
        ConfigError: if there is none of this name.
    """
    check_sampler(name)
    return SAMPLERS[name](seed)


def check_sampler(name: str) -> None:
    """Refuse a name that no sampler has.

    Raises:
        ConfigError: which names the samplers.
    """
    if name not in SAMPLERS:
        raise ConfigError(
            f"tune.sampler = {shortened(repr(name))} is none of {', '.join(map(repr, SAMPLERS))}"
        )


SAMPLERS: Final[Mapping[str, Callable[[int], BaseSampler]]] = {
    # Models the good and the bad trials apart, each setting by itself; its first ten are random.
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    # Adapts a normal distribution over the ranges. Settings with choices are drawn at random, and
    # Optuna logs a warning for each of them.
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    # A Gaussian process of the metric; its time grows with the cube of the number of trials.
    "gp": lambda seed: GPSampler(seed=seed),
}
"""Each sampler, by the values of ``tune.sampler``."""
