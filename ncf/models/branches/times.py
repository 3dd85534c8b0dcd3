"""The branch that depends on the time of the rating."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import nn

from ncf.config import ModelConfig
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import TrainingRows
from ncf.models.branches.base import Branch

SECONDS_PER_DAY: Final = 86_400.0
NEVER: Final = 2**62
"""First rating of a user without training ratings; later than any time."""


class TimeFeatures(Branch):
    """Time since the user's first rating, age of the movie, and date of the rating.

    Square roots and logarithms, because the first days of a user and the first years of a movie
    matter most.
    """

    depends_on = "both"
    uses_time = True
    first: torch.Tensor
    years: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        self.register_buffer("first", torch.full((preprocessor.num_users + 1,), NEVER))
        self.register_buffer("years", release_years(preprocessor), persistent=False)
        self.reference = preprocessor.decay_reference
        self.linear = nn.Linear(4, config.embedding_dim)

    def fit_rows(self, rows: TrainingRows) -> None:
        """Set the time of each user's first training rating."""
        self.first.fill_(NEVER)
        for part in rows.parts():
            self.first.scatter_reduce_(0, part.users.long(), part.times, reduce="amin")

    def fitted_buffers(self) -> tuple[torch.Tensor, ...]:
        """The time of each user's first training rating."""
        return (self.first,)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """None: there is no table."""
        return iter(())

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B], [B] -> [B, D]``: four features through a linear layer."""
        if times is None:
            raise ValueError("a model with the input 'time' needs the times of the rows")
        # A user's first training rating may be later than the row, and an unknown user has none.
        days = (times - self.first[users.long()]).clamp(min=0) / SECONDS_PER_DAY
        year = 1970 + times / (365.25 * SECONDS_PER_DAY)
        age = year - self.years[movies.long()]
        decades = (times - self.reference) / (3652.5 * SECONDS_PER_DAY)
        features = [
            torch.log1p(days) / 4,
            (days > 1).float(),
            torch.where(age.isnan(), 0.0, age.clamp(min=0).sqrt() / 4),
            decades,
        ]
        return self.linear(torch.stack([f.to(self.linear.weight.dtype) for f in features], dim=1))


def release_years(preprocessor: Preprocessor) -> torch.Tensor:
    """``[M]`` release years, NaN where they are unknown or not among the features."""
    names = preprocessor.numeric_names
    if "year" not in names:
        return torch.full((len(preprocessor.movies),), math.nan)
    column = next(column for column in preprocessor.numeric if column.name == "year")
    years = preprocessor.movies.numeric[:, names.index("year")] * column.scale + column.mean
    if "year_missing" in names:
        years = np.where(
            preprocessor.movies.numeric[:, names.index("year_missing")] > 0, np.nan, years
        )
    return torch.tensor(years, dtype=torch.float32)
