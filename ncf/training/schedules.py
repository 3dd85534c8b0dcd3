"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ncf.config import TrainConfig

WARM_UP: Final = 0.3
"""Share of the steps in which a one-cycle learning rate rises; Smith and Topin,
https://arxiv.org/abs/1708.07120."""


def learning_rate_factor(config: TrainConfig, num_steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at each step."""

    def cosine(share: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def one_cycle(share: float) -> float:
        if share < WARM_UP:
            return 0.04 + 0.96 * share / WARM_UP
        return cosine((share - WARM_UP) / (1 - WARM_UP))

    shape = cosine if config.schedule == "cosine" else one_cycle
    return lambda step: shape(step / max(num_steps, 1))
