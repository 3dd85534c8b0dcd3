"""The reference of the benchmarks, and synthetic data of the size of its data set.

The network of ``configs/protocols/original.toml`` in the usual form: ratings joined to their
movie's features row by row, a ``DataLoader`` that collates rows, a padded list of genres for each
row, the loss read after every batch; and the preparation of ratings with pyarrow only, with whole
columns in memory. It is deliberately not optimised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from ncf.data.batches import Batch
from ncf.data.preprocessor import MovieTable, NumericColumn, Preprocessor
from ncf.evaluation.ranking import SeenMovies
from ncf.models.ncf import NCF

NUM_RATINGS: Final = 100_836
NUM_USERS: Final = 610
NUM_MOVIES: Final = 9_742
NUM_GENRES: Final = 19
NUMERIC: Final = ("budget", "revenue", "popularity", "vote_average", "vote_count")
DECADES: Final = tuple(range(1900, 2020, 10))
BATCH_SIZE: Final = 64


class ReferenceNCF(nn.Module):
    """Five embedded inputs, concatenated, through two dense layers to one number."""

    def __init__(self, dim: int = 8, hidden: tuple[int, int] = (128, 64)) -> None:
        super().__init__()
        self.user = nn.Embedding(NUM_USERS + 1, dim, padding_idx=0)
        self.movie = nn.Embedding(NUM_MOVIES + 1, dim, padding_idx=0)
        self.genre = nn.Embedding(NUM_GENRES + 1, dim, padding_idx=0)
        self.decade = nn.Embedding(len(DECADES) + 1, dim, padding_idx=0)
        self.numeric = nn.Linear(len(NUMERIC), dim)
        self.dense = nn.Sequential(
            nn.Linear(5 * dim, hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], 1),
        )

    def forward(
        self,
        user: torch.Tensor,
        movie: torch.Tensor,
        genres: torch.Tensor,
        decade: torch.Tensor,
        numeric: torch.Tensor,
    ) -> torch.Tensor:
        """``[B], [B], [B, G] padded with 0, [B], [B, F] -> [B]``."""
        mask = (genres != 0).unsqueeze(-1).float()
        average = (self.genre(genres) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        fields = [
            self.user(user),
            self.movie(movie),
            average,
            self.decade(decade),
            self.numeric(numeric),
        ]
        return self.dense(torch.cat(fields, dim=1)).squeeze(1)

    def start_like(self, model: NCF) -> None:
        """Take the weights of a network of the same shape."""
        weights = model.state_dict()
        with torch.no_grad():
            for name in ("user", "movie", "decade"):
                getattr(self, name).weight.copy_(weights[f"branches.{name}.table.weight"])
            self.genre.weight[1:].copy_(weights["branches.genres.vectors"])
            self.genre.weight[0].zero_()
            for kind in ("weight", "bias"):
                getattr(self.numeric, kind).copy_(weights[f"branches.numeric.linear.{kind}"])
                # There, dropout is between the layers.
                for ours, theirs in ((0, "hidden.0"), (2, "hidden.3"), (4, "output")):
                    getattr(self.dense[ours], kind).copy_(weights[f"{theirs}.{kind}"])


def dataset_of(rows: Batch, fitted: Preprocessor) -> TensorDataset:
    """Every rating with the features of its movie."""
    movies = fitted.movies
    positions = rows.movies.numpy()
    width = int(movies.genres.sum(axis=1).max())
    padded = np.zeros((len(movies), width), dtype=np.int64)
    for number, flags in enumerate(movies.genres):
        present = np.flatnonzero(flags) + 1
        padded[number, : len(present)] = present
    return TensorDataset(
        rows.users.long(),
        torch.from_numpy(movies.embedding_index[positions].astype(np.int64)),
        torch.from_numpy(padded[positions]),
        torch.from_numpy(movies.decade[positions].astype(np.int64)),
        torch.from_numpy(movies.numeric[positions]),
        rows.ratings,
    )


class Shuffled(Sampler[int]):
    """``RandomSampler``, which draws a second permutation for nothing, and so other epochs."""

    def __init__(self, length: int, generator: torch.Generator) -> None:
        self.length = length
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        """One epoch."""
        yield from torch.randperm(self.length, generator=self.generator).tolist()


def loader(
    dataset: TensorDataset, generator: torch.Generator
) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Batches in the order of ``torch.randperm`` with ``generator``."""
    return DataLoader(dataset, batch_size=BATCH_SIZE, sampler=Shuffled(len(dataset), generator))


def train_epoch(
    model: nn.Module,
    batches: DataLoader[tuple[torch.Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    loss_of: nn.Module,
) -> list[float]:
    """One epoch; the mean loss of each batch."""
    model.train()
    losses = []
    for *inputs, targets in batches:
        optimizer.zero_grad()
        loss = loss_of(model(*inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def evaluate(model: nn.Module, batches: DataLoader[tuple[torch.Tensor, ...]]) -> dict[str, float]:
    """RMSE, MAE and R2 over all rows."""
    model.eval()
    outputs, ratings = [], []
    with torch.no_grad():
        for *inputs, targets in batches:
            outputs.append(model(*inputs))
            ratings.append(targets)
    errors = (torch.cat(outputs) - torch.cat(ratings)).double()
    spread = torch.cat(ratings).double()
    return {
        "rmse": errors.square().mean().sqrt().item(),
        "mae": errors.abs().mean().item(),
        "r2": 1 - (errors.square().sum() / (spread - spread.mean()).square().sum()).item(),
    }


def top_movies(
    model: NCF, users: Sequence[int], seen: SeenMovies, top_n: int
) -> npt.NDArray[np.int64]:
    """``[B, N]`` the best unseen movies: for each user a forward pass of all movies, and a sort."""
    every = torch.arange(NUM_MOVIES)
    best = []
    with torch.inference_mode():
        for user in users:
            scores = model(torch.full_like(every, user), every).numpy().copy()
            scores[seen.by(user)] = -np.inf
            best.append(np.argsort(-scores, kind="stable")[:top_n])
    return np.stack(best)


def prepare(ratings: Path, target: Path, seed: int = 42) -> int:
    """Split ratings at random, look up users and movies, compute weights, write a file a split.

    Returns:
        The number of ratings.
    """
    table = pq.read_table(ratings)
    labels = np.random.default_rng(seed).choice(3, len(table), p=[0.7, 0.1, 0.2])
    train = table.filter(pa.array(labels == 0))
    users, movies = (pc.unique(train[name]).sort() for name in ("user_id", "movie_id"))
    newest = pc.max(train["timestamp"]).as_py()
    pc.mean(train["rating"]), pc.min_max(train["rating"]), pc.value_counts(train["movie_id"])
    age_days = np.maximum(newest - table["timestamp"].to_numpy(), 0) / 86_400
    columns = {
        "row": table["row"],
        "user_id": table["user_id"],
        "user_index": pc.index_in(table["user_id"], users),
        "movie_index": pc.index_in(table["movie_id"], movies),
        "rating": table["rating"],
        "weight": np.exp(-0.0002 * age_days).astype(np.float32),
        "timestamp": table["timestamp"],
    }
    prepared = pa.table(columns)
    for label, split in enumerate(("train", "validation", "test")):
        pq.write_table(prepared.filter(pa.array(labels == label)), target / f"{split}.parquet")
    return len(table)


def synthetic(num_ratings: int = NUM_RATINGS, seed: int = 0) -> tuple[Preprocessor, Batch]:
    """Ratings and movies in the numbers of ml-latest-small; few movies have most ratings."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(10, NUM_MOVIES + 10)
    movies = rng.choice(NUM_MOVIES, num_ratings, p=popularity / popularity.sum())
    genres = np.zeros((NUM_MOVIES, NUM_GENRES), dtype=np.bool_)
    for flags in genres:
        flags[rng.choice(NUM_GENRES, 1 + rng.binomial(9, 0.15), replace=False)] = True
    # A movie that uses the full width of the padding, as in the real data.
    genres[0, :10] = True
    ratings = rng.integers(1, 11, num_ratings) / 2
    rows = Batch(
        users=torch.from_numpy(rng.integers(1, NUM_USERS + 1, num_ratings).astype(np.int32)),
        movies=torch.from_numpy(movies.astype(np.int32)),
        ratings=torch.from_numpy(ratings.astype(np.float32)),
        weights=torch.ones(num_ratings),
        times=torch.zeros(num_ratings, dtype=torch.int64),
    )
    fitted = Preprocessor(
        user_ids=np.arange(NUM_USERS),
        genres=tuple(f"Genre {number}" for number in range(NUM_GENRES)),
        decades=DECADES,
        numeric=tuple(
            NumericColumn(name, "none", 1.0, 0.0, 0.0, 1.0, indicator=False) for name in NUMERIC
        ),
        rating_mean=float(ratings.mean()),
        rating_min=0.5,
        rating_max=5.0,
        decay_reference=0,
        decay_rate_per_day=0.0,
        movies=MovieTable(
            ids=np.arange(NUM_MOVIES),
            titles=tuple(f"Movie {number}" for number in range(NUM_MOVIES)),
            embedding_index=np.arange(1, NUM_MOVIES + 1),
            genres=genres,
            decade=rng.integers(1, len(DECADES) + 1, NUM_MOVIES),
            numeric=rng.normal(size=(NUM_MOVIES, len(NUMERIC))).astype(np.float32),
            train_counts=np.bincount(movies, minlength=NUM_MOVIES),
        ),
    )
    return fitted, rows
