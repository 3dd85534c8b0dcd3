"""No test rating, and no column that gives ratings of held-out rows away, reaches a model.

Raw tables that differ in what must not matter go through Ray Data, and are learned from in this
process. ``tests/ray_jobs/test_leaks.py`` does the same with searches and the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import fs

from foundation.schemas import MOVIES, RATINGS
from ncf.baselines import ALL, FittedBaseline, fit_baselines
from ncf.config import (
    BaselineName,
    ExperimentConfig,
    FeaturesConfig,
    HistoryConfig,
    ModelConfig,
    SplitConfig,
    TimeDecayConfig,
    TrainConfig,
)
from ncf.data.batches import Batch, concatenated
from ncf.data.dataset import PreparedDataset
from ncf.data.prepare import PreparationConfig, prepare
from ncf.data.ray_tasks import PREPARED
from ncf.data.splits import TEST, TRAIN, VALIDATION, Labels, assign_at_random
from ncf.evaluation.predictions import evaluate
from ncf.models.targets import Objective
from ncf.models.weights import Weights
from ncf.training.loop import fit
from ncf.training.state import FitResult
from ncf.training.trainer import build
from tests.planted import Columns, oracle, permuted

LOCAL = fs.LocalFileSystem()
SPLIT = SplitConfig()
NUM_USERS = 60
YEARS = 3 * 365 * 86_400
YEAR_OF_RELEASE = (1985, 1994, 2003)

BAND = 0.02
"""Stars by which errors on some 600 test rows may differ by chance."""

NOISE = 0.3
"""Stars by which a known world's ratings deviate from what can be learned."""

# -- raw tables ------------------------------------------------------------------------------------


def permuted_ratings(columns: Columns, labels: Labels) -> Columns:
    """The test rows' ratings in another order."""
    return columns | {"rating": permuted(columns["rating"], labels == TEST)}


def other_rows(columns: Columns, labels: Labels) -> Columns:
    """Later test rows of unknown users, with ratings outside of the training ratings' range.

    A permutation changes no sum, no count and neither end of a range.
    """
    tested = labels == TEST
    return columns | {
        "user_id": columns["user_id"] + 10_000 * tested,
        "movie_id": permuted(columns["movie_id"], tested),
        "rating": columns["rating"] + np.float32(10) * tested,
        "timestamp": columns["timestamp"] + YEARS * tested,
    }


VARIANTS: dict[str, Callable[[Columns, Labels], Columns]] = {
    "as it is": lambda columns, _: columns,
    "permuted test ratings": permuted_ratings,
    "other test rows": other_rows,
    "oracle nowhere": lambda columns, labels: oracle(columns, labels, ()),
    "oracle in held-out rows": lambda columns, labels: oracle(columns, labels, (VALIDATION, TEST)),
    "oracle everywhere": lambda columns, labels: oracle(columns, labels, (TRAIN, VALIDATION, TEST)),
}


def write_raw(folder: Path, columns: Columns, num_movies: int) -> None:
    """Movies of two genres and three decades; nothing follows from the decade."""
    folder.mkdir()
    pq.write_table(pa.table(columns, schema=RATINGS), folder / "ratings.parquet")
    movies = [
        {
            "movie_id": movie,
            "title": f"Movie {movie}",
            "year": YEAR_OF_RELEASE[movie % 3],
            "genres": ["Left" if movie % 2 else "Right"],
        }
        for movie in range(num_movies)
    ]
    pq.write_table(pa.Table.from_pylist(movies, schema=MOVIES), folder / "movies.parquet")


@pytest.fixture(scope="module")
def prepared_from(
    local_ray: None, world: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., PreparedDataset]:
    """``prepared_from(variant, refit=False)``: a known world, changed and prepared.

    With ``refit``, its validation rows are training rows.
    """
    rows = concatenated(concatenated(world.train, world.validation), world.test)
    rows = rows[rows.users <= NUM_USERS]
    columns = {
        "row": np.arange(len(rows)),
        "user_id": rows.users.numpy().astype(np.int64),
        "movie_id": rows.movies.numpy().astype(np.int64),
        "rating": rows.ratings.numpy(),
        "timestamp": rows.times.numpy(),
    }
    labels = assign_at_random(SPLIT, len(rows))
    folder = tmp_path_factory.mktemp("leaks")

    @cache
    def found(variant: str, refit: bool = False) -> PreparedDataset:
        raw = folder / f"raw, {variant}"
        if not raw.exists():
            write_raw(raw, VARIANTS[variant](columns, labels), len(world.preprocessor.movies))
        config = PreparationConfig(SPLIT, FeaturesConfig(), TimeDecayConfig(), refit)
        destination = folder / f"prepared, {variant}, {refit}"
        return prepare((LOCAL, str(raw)), (LOCAL, str(destination)), config, "")

    return found


def rows_of(prepared: PreparedDataset, split: str) -> Batch:
    rows = prepared.rows(split)
    assert rows is not None
    return rows


# -- test rows that are others ---------------------------------------------------------------------


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("variant", ["permuted test ratings", "other test rows"])
def test_prepared_data_do_not_depend_on_the_test_rows(
    variant: str,
    refit: bool,
    prepared_from: Callable[..., PreparedDataset],
    assert_same: Callable[[Any, Any], None],
) -> None:
    before, after = prepared_from("as it is", refit), prepared_from(variant, refit)
    every = [name for name in PREPARED.names if name != "split"]
    assert not after.table("test", every).equals(before.table("test", every))
    assert_same(after.preprocessor, before.preprocessor)
    assert after.manifest == before.manifest
    for split in ("train",) if refit else ("train", "validation"):
        assert after.table(split, every).equals(before.table(split, every))


SMALL: dict[str, Any] = {"embedding_dim": 4, "hidden_dims": (16,), "biases": ("user", "movie")}


def history(*encoders: Any) -> HistoryConfig:
    return HistoryConfig(encoders=encoders, vector_dim=4, linear_dim=2, rbf_dim=2, chunk=64)


CLOSED_FORM = ModelConfig(
    **SMALL | {"inputs": ("genres",), "biases": ("movie",)}, history=history("gaussian-process")
)
MODELS = {
    "plain": ModelConfig(**SMALL),
    "statistics and transformer": ModelConfig(
        **SMALL, history=history("statistics", "transformer")
    ),
    "Gaussian process": CLOSED_FORM,
}


def train(
    model: ModelConfig,
    rows: Batch,
    validation: Batch | None,
    prepared: PreparedDataset,
    **settings: Any,
) -> tuple[Any, FitResult]:
    """A model with its best weights, and how it came to them."""
    defaults: dict[str, Any] = {"learning_rate": 0.02, "batch_size": 256, "schedule": "constant"}
    weak = {"embedding_l2": 1.0, "bias_l2": 1.0, "history_l2": 1.0}
    experiment = ExperimentConfig(model=model, train=TrainConfig(**defaults | weak | settings))
    objective = Objective(experiment.train, experiment.time_decay, prepared.preprocessor)
    trained = build(experiment, prepared.preprocessor, rows)
    result = fit(trained, rows, validation, objective)
    trained.network.load_state_dict(result.best)
    return trained.eval(), result


def stopped_early_and_refit(
    model: ModelConfig, selection: PreparedDataset, final: PreparedDataset
) -> tuple[int, dict[str, Weights]]:
    """The best epoch by the validation rows, and the weights with and without these rows."""
    _, first = train(
        model,
        rows_of(selection, "train"),
        rows_of(selection, "validation"),
        selection,
        epochs=12,
        patience=1,
    )
    _, again = train(model, rows_of(final, "train"), None, final, epochs=first.best_epoch)
    return first.best_epoch, {"best": first.best, "last": first.last, "refit": again.last}


@pytest.mark.parametrize("name", MODELS)
def test_no_weight_depends_on_the_test_rows(
    name: str, prepared_from: Callable[..., PreparedDataset]
) -> None:
    def of(variant: str) -> tuple[int, dict[str, Weights]]:
        data = prepared_from(variant), prepared_from(variant, True)
        return stopped_early_and_refit(MODELS[name], *data)

    epochs, expected = of("as it is")
    assert 1 < epochs < 12, "it is the validation rows that stop it"
    for variant in ("permuted test ratings", "other test rows"):
        found_epochs, found = of(variant)
        assert found_epochs == epochs
        for kind, weights in expected.items():
            for key, value in weights.items():
                assert torch.equal(found[kind][key], value), (variant, kind, key)


def baselines_of(
    prepared: PreparedDataset, names: Collection[BaselineName] = ALL
) -> list[FittedBaseline[Any]]:
    """Tuned on the validation rows, fitted on the training rows."""
    rows = rows_of(prepared, "train"), rows_of(prepared, "validation")
    return list(fit_baselines(*rows, prepared.preprocessor, names, num_trials=2))


def test_no_baseline_depends_on_the_test_rows(
    prepared_from: Callable[..., PreparedDataset],
) -> None:
    before, recommender = prepared_from("as it is"), rows_of(prepared_from("as it is"), "test")
    final = prepared_from("as it is", True)
    expected = baselines_of(before)
    assert len(expected) == len(ALL), "LightGBM is there"
    after, after_final = (prepared_from("permuted test ratings", refit) for refit in (False, True))
    for one, other in zip(baselines_of(after), expected, strict=True):
        assert one.settings == other.settings
        assert torch.equal(one.baseline.predict(recommender), other.baseline.predict(recommender))
        refits = [
            each.refit(rows_of(data, "train"), data.preprocessor)[0].predict(recommender)
            for each, data in ((one, after_final), (other, final))
        ]
        assert torch.equal(*refits)


# -- a column that gives the rating away -----------------------------------------------------------

SEEING = {
    "time": ModelConfig(**SMALL, inputs=("user", "movie", "genres", "decade", "numeric", "time")),
    "statistics": ModelConfig(**SMALL, history=history("statistics")),
    "transformer": ModelConfig(**SMALL, history=history("transformer")),
    "Gaussian process": CLOSED_FORM,
}
"""Models that look at the times of ratings."""


@dataclass(frozen=True)
class Errors:
    """On the test rows, in stars, of the same model on data that differ in their times."""

    nowhere: float
    """Times tell nothing."""
    held_out: float
    """They give the ratings of validation and test rows away, which must be no help."""
    everywhere: float
    """Those of training rows too, which is something to learn."""

    def check(self) -> None:
        assert self.held_out > self.nowhere - BAND
        # Else the oracle would be none, and the line above would say nothing.
        assert self.everywhere < min(NOISE, self.nowhere - 4 * BAND)


def errors(
    error: Callable[[PreparedDataset], float], prepared_from: Callable[..., PreparedDataset]
) -> Errors:
    places = ("nowhere", "in held-out rows", "everywhere")
    return Errors(*(error(prepared_from(f"oracle {place}")) for place in places))


@pytest.mark.parametrize("name", SEEING)
def test_an_oracle_in_held_out_rows_is_not_learned(
    name: str, prepared_from: Callable[..., PreparedDataset]
) -> None:
    last = []

    def error(prepared: PreparedDataset) -> float:
        rows, validation = rows_of(prepared, "train"), rows_of(prepared, "validation")
        network, result = train(SEEING[name], rows, validation, prepared, epochs=12, patience=0)
        last.append(result.last)
        objective = Objective(TrainConfig(), TimeDecayConfig(), prepared.preprocessor)
        return evaluate(network, rows_of(prepared, "test"), objective).stars.rmse

    found = errors(error, prepared_from)
    found.check()
    nowhere, held_out, _ = last
    for key, value in nowhere.items():
        assert torch.equal(held_out[key], value), key


def test_an_oracle_in_held_out_rows_is_no_help_to_baselines(
    prepared_from: Callable[..., PreparedDataset],
) -> None:
    def error(prepared: PreparedDataset) -> float:
        _, boosting = baselines_of(prepared, ["boosting-with-times"])
        return boosting.baseline.score(rows_of(prepared, "test"), prepared.preprocessor).stars.rmse

    found = errors(error, prepared_from)
    found.check()
    blind = [name for name in ALL if name != "boosting-with-times"]
    with_it, without = (
        baselines_of(prepared_from(f"oracle {place}"), blind) for place in ("everywhere", "nowhere")
    )
    recommender = rows_of(prepared_from("oracle everywhere"), "test")
    for one, other in zip(with_it, without, strict=True):
        assert one.settings == other.settings
        assert torch.equal(one.baseline.predict(recommender), other.baseline.predict(recommender))
