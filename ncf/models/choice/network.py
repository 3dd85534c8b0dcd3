"""The choice network: neural collaborative filtering for what a user chooses next.

::

    score of a movie = user · out[movie] + bias[movie] + age of the movie when asked
    user             = sum over known ratings of weight[stars] * in[movie] / sqrt(their number)
                       + own vector of a training user + vector of the time when asked + constant
    in, out          = the movie's own vector + linear in its content
    bias             = log(number of ratings + 1/2), centred, + own deviation + linear in content

A user asks at the time of the newest known rating. Scores are logits of a distribution over movies.
Sums over a user's ratings are those of an autoencoder with one hidden layer, as in Steck, 2019,
https://arxiv.org/abs/1905.03375, and FISM, Kabbur et al., 2013,
https://doi.org/10.1145/2487575.2487589.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ncf.choice_config import NetworkConfig
from ncf.data.interactions import Floats, Interactions
from ncf.data.preprocessor import UNKNOWN, Integers, Preprocessor
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.content import content_columns
from ncf.models.choice.context import Bumps

ERAS: Final = 8
"""Bumps of the time of asking."""
OLDEST: Final = 100
"""Age in years from which a movie's age makes no more difference."""
AGES: Final = 12
"""Bumps of the logarithm of 1 + age."""
STAR_STEP: Final = 0.5
"""Stars between two levels, each of which has a weight of its own."""

_SPREAD: Final = 0.05
"""Standard deviation of initial vectors."""
_CONTENT_SPREAD: Final = 0.02
"""Standard deviation of initial weights of content columns."""
_MIN_DEVIATION: Final = 0.1
"""Standard deviation by which columns with less of it are divided, so that a rare genre does not
outweigh all else."""
_CLIP: Final = 4.0
"""Standardised content columns are clipped to this, for the same reason."""


class KnownRatings(NamedTuple):
    """Ratings of B users that scores depend on, as tensors; made by ``ChoiceNetwork.inputs``."""

    movies: torch.Tensor
    """``[H]`` positions in the movie table, one user after the other."""
    levels: torch.Tensor
    """``[H]`` levels of the stars."""
    starts: torch.Tensor
    """``[B + 1]``: user b has the ratings ``starts[b]:starts[b + 1]``."""
    users: torch.Tensor
    """``[B]`` user indices; 0 is unknown."""
    eras: torch.Tensor
    """``[B, ERAS]`` bumps of the time of asking."""
    years: torch.Tensor
    """``[B]`` calendar year of asking."""


class Choices(NamedTuple):
    """Pairs of a user and a movie that the user chose."""

    rows: torch.Tensor
    """``[T]`` positions of users in the batch."""
    movies: torch.Tensor
    """``[T]`` positions in the movie table."""


class Logits(NamedTuple):
    """What a training step needs of the network."""

    choices: torch.Tensor
    """``[T]`` of the choices."""
    candidates: torch.Tensor
    """``[B, C]`` of the candidates, or ``[B, M]`` of all movies."""


class MovieTensors(NamedTuple):
    """All that scores need of the movies."""

    inputs: torch.Tensor | None
    """``[M, D]`` vectors that users are sums of; None without ``history`` in ``users``."""
    outputs: torch.Tensor
    """``[M, D]`` vectors that users are multiplied with."""
    bias: torch.Tensor
    """``[M]``."""


class UserTerms(NamedTuple):
    """All that scores need of the users."""

    vectors: torch.Tensor
    """``[B, D]``."""
    ages: torch.Tensor | None
    """``[B, Y]`` score of each release year; None without ``age``."""


class MovieVectors(nn.Module):
    """A vector of each movie: its own, plus linear in the content, if there is any."""

    def __init__(self, num_movies: int, dim: int, num_columns: int) -> None:
        super().__init__()
        self.own = nn.Parameter(_SPREAD * torch.randn(num_movies, dim))
        self.of_content = (
            nn.Parameter(_CONTENT_SPREAD * torch.randn(num_columns, dim)) if num_columns else None
        )

    def forward(self, content: torch.Tensor) -> torch.Tensor:
        """``content: [M, F]`` -> ``[M, D]``."""
        if self.of_content is None:
            return self.own
        return torch.addmm(self.own, content, self.of_content)


class MovieBias(nn.Module):
    """A number of each movie: the logarithm of its number of ratings, and what is learned."""

    def __init__(self, num_movies: int, num_columns: int) -> None:
        super().__init__()
        self.popularity: torch.Tensor
        self.register_buffer("popularity", torch.zeros(num_movies))
        self.deviation = nn.Parameter(torch.zeros(num_movies))
        self.of_content = nn.Parameter(torch.zeros(num_columns)) if num_columns else None

    def fit(self, counts: Integers) -> None:
        """Start from the numbers of training ratings, ``[M]``."""
        logarithms = np.log(counts + 0.5)
        self.popularity.copy_(torch.from_numpy(logarithms - logarithms.mean()))

    def forward(self, content: torch.Tensor) -> torch.Tensor:
        """``content: [M, F]`` -> ``[M]``."""
        bias = self.popularity + self.deviation
        return bias if self.of_content is None else torch.addmv(bias, content, self.of_content)


class MovieAge(nn.Module):
    """A learned function of a movie's age in whole years; 0 for a movie without a known year.

    Movies of the same year have the same scores, so those are computed for each of Y years; the
    last one stands for unknown years.

    Args:
        years: ``[M]`` release years; ``NO_YEAR`` if unknown.
    """

    NO_YEAR: Final = -1

    def __init__(self, years: Integers) -> None:
        super().__init__()
        distinct = np.unique(years[years != self.NO_YEAR])
        index = np.where(years == self.NO_YEAR, len(distinct), np.searchsorted(distinct, years))
        bumps = Bumps(0.0, float(np.log1p(OLDEST)), AGES).of(np.log1p(np.arange(OLDEST + 1)))
        self.years: torch.Tensor
        self.index: torch.Tensor
        self.bumps: torch.Tensor
        # Made from the preprocessor each time.
        self.register_buffer("years", torch.from_numpy(distinct), persistent=False)
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("bumps", torch.from_numpy(bumps), persistent=False)
        self.weights = nn.Parameter(torch.zeros(AGES))

    def forward(self, asked: torch.Tensor) -> torch.Tensor:
        """Years of asking ``[B]`` -> ``[B, Y]``; movie m has column ``index[m]``."""
        ages = (asked[:, None] - self.years).clamp(0, OLDEST)
        scores = (self.bumps @ self.weights)[ages]
        return functional.pad(scores, (0, 1))


class ChoiceNetwork(nn.Module):
    """The network. Weights are random: seed torch first for repeatable ones.

    Args:
        config: its parts and their size.
        preprocessor: movies' content and years, the training users, and the scale of stars.
    """

    def __init__(self, config: NetworkConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.config = config
        self.preprocessor = preprocessor
        num_movies, dim = len(preprocessor.movies), config.dim
        columns = np.zeros((num_movies, 0), np.float32)
        if config.content:
            columns = _standardised(content_columns(preprocessor))
        num_columns = columns.shape[1]
        self.content: torch.Tensor
        self.register_buffer("content", torch.from_numpy(columns), persistent=False)
        self.movies_in = self.star_weights = self.user_vectors = self.eras = self.age = None
        if "history" in config.users:
            self.movies_in = MovieVectors(num_movies, dim, num_columns)
            self.star_weights = nn.Parameter(torch.linspace(0.2, 1.0, _num_levels(preprocessor)))
        if "embedding" in config.users:
            # All zero, as a new user's: a training user differs by what is learned.
            self.user_vectors = nn.Parameter(torch.zeros(preprocessor.num_users + 1, dim))
        if config.era:
            self.eras = nn.Parameter(torch.zeros(ERAS, dim))
        self.constant = nn.Parameter(torch.zeros(dim))
        self.movies_out = MovieVectors(num_movies, dim, num_columns)
        self.bias = MovieBias(num_movies, num_columns)
        years = release_years(preprocessor) if config.age else None
        if years is not None:
            self.age = MovieAge(years)
        self.period: torch.Tensor
        self.register_buffer("period", torch.zeros(2, dtype=torch.int64))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.constant.device

    def fit(self, train: Interactions) -> None:
        """Take from the training ratings what is not learned: popularity, first and last time."""
        self.bias.fit(train.movie_counts())
        if train.num_ratings:
            self.period.copy_(torch.tensor([train.times.min(), train.times.max()]))

    def inputs(self, known: Interactions) -> KnownRatings:
        """Known ratings as the network takes them, on its device.

        A user without any asks at the end of the training period.
        """
        first, last = self.period.tolist()
        asked = np.where(known.counts > 0, known.last_times, last)
        levels = np.rint((known.ratings - self.preprocessor.rating_min) / STAR_STEP)
        return KnownRatings(
            movies=self._tensor(known.movies.astype(np.int64)),
            levels=self._tensor(
                levels.astype(np.int64).clip(0, _num_levels(self.preprocessor) - 1)
            ),
            starts=self._tensor(known.starts),
            users=self._tensor(self.preprocessor.user_index(known.users)),
            eras=self._tensor(Bumps(float(first), float(last), ERAS).of(asked)),
            years=self._tensor(_calendar_years(asked)),
        )

    def movie_tensors(self) -> MovieTensors:
        """All that scores need of the movies; for inference, computed once."""
        return MovieTensors(
            None if self.movies_in is None else self.movies_in(self.content),
            self.movies_out(self.content),
            self.bias(self.content),
        )

    def forward(
        self, known: KnownRatings, choices: Choices, candidates: torch.Tensor | None = None
    ) -> Logits:
        """Logits of choices and of ``candidates: [C]``, movies that are the same for all users;
        without any of all movies."""
        movies = self.movie_tensors()
        users = self.user_terms(known, movies)
        logits = self._logits(users, movies, candidates)
        if candidates is None:
            return Logits(logits[choices.rows, choices.movies], logits)
        return Logits(self._of_choices(users, movies, choices), logits)

    def logits(
        self,
        known: KnownRatings,
        candidates: torch.Tensor | None = None,
        movies: MovieTensors | None = None,
    ) -> torch.Tensor:
        """Logits of all movies, ``[B, M]``, or of candidates alone, ``[B, C]``.

        Args:
            known: the users' known ratings.
            candidates: positions of movies, ``[C]`` for all users or ``[B, C]`` for each.
            movies: what ``movie_tensors`` returned, if it is to be used again.
        """
        movies = self.movie_tensors() if movies is None else movies
        return self._logits(self.user_terms(known, movies), movies, candidates)

    def user_terms(self, known: KnownRatings, movies: MovieTensors) -> UserTerms:
        """All that scores need of the users."""
        vectors = self.constant.expand(len(known.users), -1)
        if movies.inputs is not None and self.star_weights is not None:
            sums = functional.embedding_bag(
                known.movies,
                movies.inputs,
                known.starts,
                mode="sum",
                per_sample_weights=self.star_weights.index_select(0, known.levels),
                include_last_offset=True,
            )
            vectors = vectors + sums * known.starts.diff().clamp(min=1).rsqrt()[:, None]
        if self.user_vectors is not None:
            vectors = vectors + functional.embedding(
                known.users, self.user_vectors, padding_idx=UNKNOWN
            )
        if self.eras is not None:
            vectors = vectors + known.eras @ self.eras
        return UserTerms(vectors, None if self.age is None else self.age(known.years))

    def l2_penalties(self) -> Iterator[tuple[torch.Tensor, float]]:
        """Penalised parameters, each with its strength: half of which, times its squared norm, is
        the penalty."""
        for part in (self.movies_in, self.movies_out):
            if part is not None:
                yield part.own, self.config.l2
        if self.user_vectors is not None:
            yield self.user_vectors, self.config.l2
        yield self.bias.deviation, 2 * self.config.bias_l2

    def _logits(
        self, users: UserTerms, movies: MovieTensors, candidates: torch.Tensor | None
    ) -> torch.Tensor:
        """``[B, M]``, or ``[B, C]`` for ``candidates`` ``[C]`` or ``[B, C]``."""
        outputs, bias = movies.outputs, movies.bias
        if candidates is not None:
            outputs, bias = functional.embedding(candidates, outputs), bias[candidates]
        if outputs.dim() == 2:
            logits = torch.addmm(bias, users.vectors, outputs.T)
        else:
            logits = torch.einsum("bd,bcd->bc", users.vectors, outputs) + bias
        if users.ages is None or self.age is None:
            return logits
        index = self.age.index if candidates is None else self.age.index[candidates]
        if index.dim() == 2:
            return logits + users.ages.gather(1, index)
        return logits + users.ages.index_select(1, index)

    def _of_choices(self, users: UserTerms, movies: MovieTensors, choices: Choices) -> torch.Tensor:
        """``[T]``."""
        vectors = users.vectors.index_select(0, choices.rows)
        outputs = movies.outputs.index_select(0, choices.movies)
        logits = (vectors * outputs).sum(dim=1) + movies.bias.index_select(0, choices.movies)
        if users.ages is None or self.age is None:
            return logits
        return logits + users.ages[choices.rows, self.age.index[choices.movies]]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


class NetworkChoiceModel(ChoiceModel):
    """A trained network as a choice model; its weights must not change any more.

    The vectors of movies are computed once, at the first scores.
    """

    def __init__(self, network: ChoiceNetwork) -> None:
        self.network = network
        self._movies: MovieTensors | None = None

    @torch.no_grad()
    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]`` logits, on the CPU wherever the network is."""
        if self._movies is None:
            self._movies = self.network.movie_tensors()
        return self.network.logits(self.network.inputs(known), movies=self._movies).cpu()


def build_network(
    config: NetworkConfig, preprocessor: Preprocessor, train: Interactions
) -> ChoiceNetwork:
    """A network with random weights from ``config.seed``, fitted to the training ratings."""
    torch.manual_seed(config.seed)
    network = ChoiceNetwork(config, preprocessor)
    network.fit(train)
    return network


def release_years(preprocessor: Preprocessor) -> Integers | None:
    """``[M]`` release years, ``MovieAge.NO_YEAR`` if unknown; None without the feature ``year``."""
    movies = preprocessor.movies
    for position, column in enumerate(preprocessor.numeric):
        if column.name == "year":
            standardised = movies.numeric[:, position]
            years = np.rint(standardised.astype(np.float64) * column.scale + column.mean)
            # The preprocessor replaced missing years by the median, but not their decades.
            replaced = np.float32(column.apply(np.array([np.nan]))[0])
            is_missing = (movies.decade == UNKNOWN) & (standardised == replaced)
            return np.where(is_missing, MovieAge.NO_YEAR, years).astype(np.int64)
    return None


def _standardised(columns: Floats) -> Floats:
    """``[M, F]`` centred columns, divided by their standard deviations and clipped."""
    deviations = np.maximum(columns.std(axis=0), _MIN_DEVIATION)
    return np.clip(columns / deviations, -_CLIP, _CLIP)


def _num_levels(preprocessor: Preprocessor) -> int:
    """Half stars from the lowest to the highest rating."""
    return round((preprocessor.rating_max - preprocessor.rating_min) / STAR_STEP) + 1


def _calendar_years(times: Integers) -> Integers:
    """Seconds since 1970 UTC -> years."""
    return times.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970
