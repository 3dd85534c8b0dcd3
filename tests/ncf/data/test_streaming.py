"""Streamed rows, compared with the same rows in memory."""

from __future__ import annotations

import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch, Batches
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import SINGLE_WORKER, Shard, ShardedBatch, shuffled
from ncf.data.streaming import Streamed, read_ahead, scratch_folder
from ncf.errors import DataError
from ncf.evaluation.predictions import evaluate, predict
from ncf.models.conditioned import ConditionedModel
from ncf.models.targets import Objective
from ncf.training.loop import fit
from ncf.training.state import FitResult
from ncf.training.trainer import Trainer, build
from tests.ncf.prepared import write_prepared

CPU = torch.device("cpu")


def numbered(count: int) -> Batch:
    """Rows that say their number in every column."""
    numbers = torch.arange(count)
    return Batch(
        numbers.int(), numbers.int() + 1000, numbers / 2, numbers.float() + 0.25, numbers + 2**40
    )


def numbers_of(rows: Batch) -> list[int]:
    """The rows' numbers, which every column must say."""
    numbers = rows.users.long()
    assert torch.equal(rows.movies, rows.users + 1000)
    assert torch.equal(rows.ratings, numbers / 2)
    assert torch.equal(rows.weights, numbers.float() + 0.25)
    assert torch.equal(rows.times, numbers + 2**40)
    return numbers.tolist()


@pytest.fixture
def streamed(preprocessor: Preprocessor, tmp_path: Path) -> Callable[..., Streamed]:
    """``streamed(count, per_file, per_group, window)``: numbered rows, in files."""

    def write(count: int, per_file: int, per_group: int, window: int) -> Streamed:
        folder = tmp_path / f"{count}-{per_file}-{per_group}-{window}"
        prepared = write_prepared(
            folder, {"train": numbered(count)}, preprocessor, per_file, per_group
        )
        return Streamed(prepared, "train", CPU, window)

    return write


def epoch(
    rows: Streamed, batch_size: int, seed: int = 0, shard: Shard = SINGLE_WORKER
) -> list[ShardedBatch[Batch]]:
    return list(shuffled(rows, batch_size, torch.Generator().manual_seed(seed), shard))


def order_of(portions: list[ShardedBatch[Batch]]) -> list[int]:
    return [number for portion in portions for number in numbers_of(portion.rows)]


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("read-ahead")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert readers() == []


# -- the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "per_file", "per_group", "window", "batch_size"),
    [
        (1, 10, 10, 10, 10),
        (1000, 300, 70, 250, 64),
        (1000, 1000, 100, 250, 250),
        (997, 100, 33, 90, 128),  # batches larger than windows
        (997, 997, 997, 100, 1),
        (500, 500, 50, 10_000, 499),
        (500, 500, 50, 10_000, 501),
    ],
)
def test_an_epoch_has_each_row_once_in_batches_of_one_size(
    count: int,
    per_file: int,
    per_group: int,
    window: int,
    batch_size: int,
    streamed: Callable[..., Streamed],
) -> None:
    rows = streamed(count, per_file, per_group, window)
    generator = torch.Generator().manual_seed(1)
    orders = []
    for _ in range(2):
        portions = list(shuffled(rows, batch_size, generator))
        sizes = [len(portion.rows) for portion in portions]
        assert len(sizes) == math.ceil(count / batch_size)
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert [portion.batch_size for portion in portions] == sizes
        orders.append(order_of(portions))
        assert sorted(orders[-1]) == list(range(count))
    assert count == 1 or orders[0] != orders[1]


def test_the_order_follows_from_the_seed_alone(streamed: Callable[..., Streamed]) -> None:
    rows = streamed(500, 200, 40, 100)
    again = Streamed(rows.prepared, "train", CPU, 100)
    order = order_of(epoch(rows, 64))
    assert order_of(epoch(again, 64)) == order_of(epoch(rows, 64)) == order
    assert order_of(epoch(again, 64, seed=1)) != order


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_split_the_batches_of_a_single_worker(
    workers: int, streamed: Callable[..., Streamed]
) -> None:
    rows = streamed(500, 200, 40, 100)
    parts = [epoch(rows, 63, shard=Shard(rank, workers)) for rank in range(workers)]
    for number, portion in enumerate(epoch(rows, 63)):
        of_workers = [part[number] for part in parts]
        assert [p.batch_size for p in of_workers] == [portion.batch_size] * workers
        found = sorted(n for p in of_workers for n in numbers_of(p.rows))
        assert found == sorted(numbers_of(portion.rows))


@pytest.mark.parametrize("window", [4, 100])
def test_a_single_window_is_a_uniform_permutation(
    window: int, streamed: Callable[..., Streamed]
) -> None:
    rows, generator, draws = streamed(4, 3, 2, window), torch.Generator().manual_seed(0), 2400
    counts = Counter(tuple(order_of(list(shuffled(rows, 2, generator)))) for _ in range(draws))
    assert len(counts) == 24
    statistic = sum((count - draws / 24) ** 2 for count in counts.values()) / (draws / 24)
    assert statistic < chi2.ppf(0.999, 23)


def test_every_window_is_a_sample_of_all_rows(streamed: Callable[..., Streamed]) -> None:
    """So that a user, whose rows stand together in the files, is met throughout the epoch."""
    rows, means = streamed(8000, 2000, 100, 1000), []
    for window in rows.shuffled_windows(torch.Generator().manual_seed(0)):
        numbers = np.array(numbers_of(window))
        # Of forty neighbouring rows one window has some, each with probability 1/8.
        met = len(np.unique(numbers // 40))
        assert met > 0.97 * 200
        means.append(numbers.mean())
    assert len(means) == 8
    # The standard error of the mean of 1,000 of 8,000 numbers is 68.
    assert np.abs(np.array(means) - 3999.5).max() < 4 * 68


def test_parts_are_in_the_release_s_order(streamed: Callable[..., Streamed]) -> None:
    rows = streamed(500, 200, 40, 100)
    parts = [numbers_of(part) for part in rows.parts()]
    assert [number for part in parts for number in part] == list(range(500))
    assert max(map(len, parts)) == 40


# -- what it takes ---------------------------------------------------------------------------------


@dataclass
class Counted:
    """Windows that are counted as long as any memory of theirs is in use."""

    sizes: list[int]
    alive: int = 0
    most: int = 0

    def shuffled_windows(self, generator: torch.Generator) -> Batches:
        yield from read_ahead(map(self._make, self.sizes))

    def _make(self, size: int) -> Batch:
        ratings = np.zeros(size, np.float32)
        weakref.finalize(ratings, self._gone)
        self.alive += 1
        self.most = max(self.most, self.alive)
        return replace(numbered(size), ratings=torch.from_numpy(ratings))

    def _gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("batch_size", [10, 16, 100, 130, 1000])
def test_two_windows_at_most_are_in_memory(batch_size: int) -> None:
    rows = Counted([100, 100, 70, 100, 3, 100])
    seen = 0
    for portion in shuffled(rows, batch_size, torch.Generator()):
        seen += len(portion.rows)
    assert seen == 473
    assert rows.most == 2


def test_the_temporary_files_have_no_names(
    streamed: Callable[..., Streamed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)  # what Python found out before
    with closing(streamed(500, 200, 40, 100).shuffled_windows(torch.Generator())) as windows:
        next(windows)
        assert list(scratch.iterdir()) == []


def test_temporary_files_follow_the_environment_and_else_are_on_disk() -> None:
    assert scratch_folder({"TMPDIR": "/somewhere"}) is None  # Python looks there by itself
    assert scratch_folder({}) == ("/var/tmp" if Path("/var/tmp").is_dir() else None)  # noqa: S108


# -- when it goes wrong ----------------------------------------------------------------------------


def test_an_exception_of_the_reader_is_raised_unchanged() -> None:
    error = KeyError("original")

    def items() -> Iterator[int]:
        yield 1
        raise error

    found = read_ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError) as raised:
        next(found)
    assert raised.value is error
    assert readers() == []
    assert list(found) == []


def test_a_damaged_or_missing_file_ends_training_with_the_reason(
    world: Any, tmp_path: Path
) -> None:
    rows = of_world(world, tmp_path, window=500)["train"]
    config = experiment()
    model, objective = build(config, world.preprocessor, rows), objective_of(config, world)
    file = tmp_path / "ratings" / "split=train" / "000000003000.parquet"
    content = file.read_bytes()
    # The file's metadata is at the end.
    file.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(OSError, match=r"[Tt]hrift|[Pp]age"):
        fit(model, rows, None, objective)
    file.unlink()
    with pytest.raises(DataError, match=r"holds 3500 train rows, its manifest says 4500\. Run"):
        fit(model, rows, None, objective)


def test_closing_the_batches_ends_the_reading_thread(
    streamed: Callable[..., Streamed],
) -> None:
    portions = shuffled(streamed(500, 200, 40, 50), 16, torch.Generator())
    next(portions)
    assert len(readers()) == 1
    portions.close()
    assert readers() == []


def test_a_step_that_fails_leaves_no_thread(world: Any, tmp_path: Path) -> None:
    rows = of_world(world, tmp_path, window=500)["train"]
    config = experiment()
    model = build(config, world.preprocessor, rows)
    # A movie of no index: the first step fails, while the next window is being read.
    beyond = replace(world.train, movies=world.train.movies + 1000)
    broken = of_world(replace(world, train=beyond), tmp_path / "broken", window=500)["train"]
    with pytest.raises(IndexError) as raised:
        fit(model, broken, None, objective_of(config, world))
    assert raised.tb is not None  # its frames are still there
    assert readers() == []


# -- what is learned -------------------------------------------------------------------------------


def experiment(model: dict[str, Any] | None = None, **train: Any) -> ExperimentConfig:
    layers = {"embedding_dim": 8, "hidden_dims": (32, 16), "dropout": 0.0, **(model or {})}
    settings = {"epochs": 12, "learning_rate": 0.02, "batch_size": 128, "embedding_l2": 5.0}
    return ExperimentConfig(
        model=ModelConfig.model_validate(layers),
        train=TrainConfig.model_validate({**settings, "patience": 0, **train}),
        time_decay=TimeDecayConfig(apply_to="loss"),
    )


def objective_of(config: ExperimentConfig, world: Any) -> Objective:
    return Objective(config.train, config.time_decay, world.preprocessor)


def of_world(world: Any, folder: Path, window: int) -> dict[str, Streamed]:
    """Every split of the world from files, in which one user's rows follow another's."""
    splits = {
        name: sorted_by_user(getattr(world, name)) for name in ("train", "validation", "test")
    }
    prepared = write_prepared(folder, splits, world.preprocessor)
    return {name: Streamed(prepared, name, CPU, window) for name in splits}


def sorted_by_user(rows: Batch) -> Batch:
    return rows[torch.argsort(rows.users, stable=True)]


def trained(config: ExperimentConfig, world: Any, rows: Any) -> tuple[ConditionedModel, FitResult]:
    model = build(config, world.preprocessor, rows["train"])
    return model, fit(model, rows["train"], rows["validation"], objective_of(config, world))


@pytest.mark.parametrize("model", [{}, {"normalization": "batch", "inputs": ("user", "movie")}])
def test_streaming_is_as_accurate_as_rows_in_memory(
    model: dict[str, Any], world: Any, tmp_path: Path
) -> None:
    config, objective = experiment(model), objective_of(experiment(model), world)
    errors = []
    for name, window in (("one", 10_000), ("many", 450)):
        network, result = trained(config, world, of_world(world, tmp_path / name, window))
        assert len(result.epochs) == 12
        errors.append(evaluate(network, world.test, objective).stars.rmse)
    resident, _ = trained(config, world, vars(world))
    expected = evaluate(resident, world.test, objective).stars.rmse
    # Ten seeds in memory have a standard deviation of about 0.004.
    assert errors == pytest.approx([expected] * 2, abs=0.015)


def test_scores_and_predictions_are_those_of_rows_in_memory(world: Any, tmp_path: Path) -> None:
    config = experiment(epochs=1)
    objective, test = objective_of(config, world), sorted_by_user(world.test)
    model = build(config, world.preprocessor, world.train)
    rows = of_world(world, tmp_path, window=100)["test"]
    found, expected = predict(model, rows, objective), predict(model, test, objective)
    np.testing.assert_allclose(found.stars, expected.stars, rtol=1e-6)
    np.testing.assert_allclose(found.decayed, expected.decayed, rtol=1e-6)
    scores = evaluate(model, rows, objective).as_dict()
    reference = evaluate(model, test, objective).as_dict()
    assert scores.pop("decayed") == pytest.approx(reference.pop("decayed"))
    assert scores == pytest.approx(reference)


def test_statistics_of_streamed_rows_are_those_of_all_rows(world: Any, tmp_path: Path) -> None:
    """The mean target, the mean weight and the first time of each user."""
    config = experiment({"inputs": ("user", "movie", "time")})
    rows = of_world(world, tmp_path, window=100)["train"]
    models = [build(config, world.preprocessor, r) for r in (rows, world.train)]
    first, second = (model.network.output.bias.item() for model in models)
    assert first == pytest.approx(second, rel=1e-6)
    trainers = [
        Trainer(model, r, objective_of(config, world))
        for model, r in zip(models, (rows, world.train), strict=True)
    ]
    found = torch.cat([part.loss_weights for part in trainers[0].rows.parts()])
    assert found.mean().item() == pytest.approx(1, rel=1e-5)
    weights = sorted_by_user(world.train).weights
    torch.testing.assert_close(found, weights / weights.mean())
    buffer, expected = (model.network.get_buffer("branches.time.first") for model in models)
    assert torch.equal(buffer, expected)


def test_a_model_with_history_refuses_streamed_rows(world: Any, tmp_path: Path) -> None:
    encoders = {"history": {"encoders": ("gaussian-process",)}}
    with pytest.raises(
        ValueError, match=r'train.rows = "streaming" .* gaussian-process needs .* set'
    ):
        experiment(encoders, rows="streaming")
    config = experiment(encoders)
    rows = of_world(world, tmp_path, window=100)["train"]
    model = build(config, world.preprocessor, rows)
    with pytest.raises(TypeError, match="needs all of them in memory"):
        fit(model, rows, None, objective_of(config, world))
