"""Speed of training and scoring, relative to a plain loop.

    python benchmarks/bench_training.py [small] [large] [evaluation] [recommend] [start] [workers]
        [--quick] [--json]

small       the original's network at batch 64: samples per second of steps one by one and of
            compiled steps, as multiples of the loop in ``original_loop.py``, after a first epoch.
large       the same network at batches of 1,024 and 8,192: the rate as a share of that of a
            loop that only performs steps, on tensors in memory.
evaluation  scoring a test split, as a multiple of the plain loop.
recommend   the ten best unseen movies of some users, as a multiple of a plain forward pass of all
            movies for each user, for two networks.
start       seconds until the first compiled steps are done, with an empty cache and with that of an
            earlier process.
workers     data parallelism: the rate of two processes as a multiple of one, by batch and size of
            the network.

All but ``workers`` and ``start`` run on one core and count CPU seconds, so that other load on
the machine matters little. Alternatives take turns, and the median of the turns' ratios counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from dev import original_loop  # noqa: E402
from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig, TrainConfig  # noqa: E402
from ncf.data.batches import Batch  # noqa: E402
from ncf.data.preprocessor import Preprocessor  # noqa: E402
from ncf.data.sampling import Shard  # noqa: E402
from ncf.evaluation.predictions import evaluate  # noqa: E402
from ncf.evaluation.ranking import SeenMovies  # noqa: E402
from ncf.inference.checkpoint import Checkpoint  # noqa: E402
from ncf.inference.top_k import top_movies  # noqa: E402
from ncf.models.targets import Objective  # noqa: E402
from ncf.training.loop import train_epoch  # noqa: E402
from ncf.training.trainer import Trainer, build  # noqa: E402

TURNS: Final = 5
Result = dict[str, Any]
Epoch = Callable[[], object]


def experiment(batch_size: int, compiled: bool = False, width: int = 1) -> ExperimentConfig:
    """The network of ``configs/protocols/original.toml``, or one ``width`` times as wide."""
    return ExperimentConfig(
        model=ModelConfig(
            embedding_dim=8 * width,
            embedding_std=1.0,
            hidden_dims=(128 * width, 64 * width),
            dropout=0.0,
        ),
        train=TrainConfig(
            learning_rate=1e-3,
            schedule="constant",
            embedding_l2=0.0,
            batch_size=batch_size,
            compile="on" if compiled else "off",
        ),
        time_decay=TimeDecayConfig(apply_to="none"),
    )


def trainer_of(config: ExperimentConfig, preprocessor: Preprocessor, rows: Batch) -> Trainer:
    """The trainer that ``fit`` uses."""
    objective = Objective(config.train, config.time_decay, preprocessor)
    return Trainer(build(config, preprocessor, rows), rows, objective)


def ours(config: ExperimentConfig, preprocessor: Preprocessor, rows: Batch) -> Epoch:
    """An epoch of ``fit``."""
    trainer = trainer_of(config, preprocessor, rows)
    generator = torch.Generator().manual_seed(0)
    return lambda: void(train_epoch(trainer.module, trainer.batches(generator), trainer.step))


def plain(preprocessor: Preprocessor, rows: Batch) -> Epoch:
    """An epoch of the plain loop."""
    model = original_loop.ReferenceNCF()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    batches = original_loop.loader(original_loop.dataset_of(rows, preprocessor), generator)
    return lambda: void(original_loop.train_epoch(model, batches, optimizer, nn.MSELoss()))


def step_only(config: ExperimentConfig, preprocessor: Preprocessor, rows: Batch) -> Epoch:
    """Steps of the plain network only, on rows in order that are joined to their features
    before."""
    model = original_loop.ReferenceNCF()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    size = config.train.batch_size
    tensors = original_loop.dataset_of(rows, preprocessor).tensors
    batches = list(zip(*(tensor.split(size) for tensor in tensors), strict=True))

    def epoch() -> None:
        for *inputs, targets in batches:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(*inputs), targets).backward()
            optimizer.step()

    return epoch


def own_step_only(config: ExperimentConfig, preprocessor: Preprocessor, rows: Batch) -> Epoch:
    """This project's step on batches in memory."""
    trainer = trainer_of(config, preprocessor, rows)
    batches = list(trainer.batches(torch.Generator().manual_seed(0)))
    trainer.module.train()

    def epoch() -> None:
        for batch in batches:
            trainer.step(batch)

    return epoch


def void(_: object) -> None:
    """Discard a result."""


def cpu_seconds(epoch: Epoch) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    epoch()
    return time.process_time() - started


def in_turns(epochs: dict[str, Epoch], rows: int, turns: int = TURNS) -> Result:
    """Rows per second of each, and the median over turns of its ratio to each of those before."""
    for epoch in epochs.values():
        epoch()
    seconds = [{name: cpu_seconds(epoch) for name, epoch in epochs.items()} for _ in range(turns)]
    result: Result = {"turns": turns}
    for name in epochs:
        result[f"{name}_rows_per_s"] = rows / statistics.median(turn[name] for turn in seconds)
    for base, name in itertools.combinations(epochs, 2):
        ratio = statistics.median(turn[base] / turn[name] for turn in seconds)
        result[f"{name}_to_{base}"] = ratio
    return result


def bench_small(*, quick: bool) -> Result:
    """Batch 64."""
    preprocessor, rows = original_loop.synthetic()
    rows = rows[: 16_000 if quick else 80_669]
    epochs = {
        "plain": plain(preprocessor, rows),
        "eager": ours(experiment(64), preprocessor, rows),
        "compiled": ours(experiment(64, compiled=True), preprocessor, rows),
    }
    return in_turns(epochs, len(rows))


def bench_large(*, quick: bool) -> Result:
    """Batches of 1,024 and more."""
    preprocessor, rows = original_loop.synthetic(100_000 if quick else 400_000)
    result: Result = {}
    for size in (1024, 8192):
        config = experiment(size)
        epochs = {
            "plain_step_only": step_only(config, preprocessor, rows),
            "own_step_only": own_step_only(config, preprocessor, rows),
            "training": ours(config, preprocessor, rows),
        }
        found = in_turns(epochs, len(rows))
        result |= {f"batch_{size}_{name}": value for name, value in found.items()}
    return result


def bench_evaluation(*, quick: bool) -> Result:
    """RMSE, MAE and R2 of a fifth of all ratings."""
    preprocessor, rows = original_loop.synthetic()
    test = rows[80_669:]
    config = experiment(64)
    objective = Objective(config.train, config.time_decay, preprocessor)
    network, model = build(config, preprocessor, rows), original_loop.ReferenceNCF()
    batches = DataLoader(original_loop.dataset_of(test, preprocessor), batch_size=64)
    epochs: dict[str, Epoch] = {
        "plain": lambda: void(original_loop.evaluate(model, batches)),
        "ours": lambda: void(evaluate(network, test, objective)),
    }
    return in_turns(epochs, len(test), 5 if quick else 21)


def bench_recommend(*, quick: bool) -> Result:
    """Top ten of all movies."""
    preprocessor, rows = original_loop.synthetic()
    seen = SeenMovies.of(rows.users.numpy(), rows.movies.numpy(), original_loop.NUM_USERS)
    users = np.arange(1, (20 if quick else 200) + 1)
    result: Result = {}
    for name, further in (
        ("five_inputs", {}),
        ("and_factors", {"embedding_dim": 32, "gmf_dim": 32, "biases": ("user", "movie")}),
    ):
        of_original = experiment(64)
        config = of_original.model_copy(
            update={"model": of_original.model.model_copy(update=further)}
        )
        model = build(config, preprocessor, rows).eval()
        trained = Checkpoint(model, config, preprocessor, {})
        best = top_movies(trained, users, seen, 10).movies
        assert (best == original_loop.top_movies(model.network, users.tolist(), seen, 10)).all()
        epochs: dict[str, Epoch] = {
            "plain": partial(original_loop.top_movies, model.network, users.tolist(), seen, 10),
            "ours": partial(top_movies, trained, users, seen, 10),
        }
        found = in_turns(epochs, len(users), 5)
        result |= {f"{name}_{key.replace('rows', 'users')}": value for key, value in found.items()}
    return result


def bench_start(*, quick: bool) -> Result:
    """A first epoch in a separate process, twice with the same cache."""
    result: Result = {}
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
        for name in ("without_cache", "with_cache"):
            found = subprocess.run(
                [sys.executable, __file__, "--first-epoch"],
                env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder},
                check=True,
                capture_output=True,
                text=True,
            )
            result[f"{name}_s"] = float(found.stdout.split()[-1])
    return result


def first_epoch() -> None:
    """Print the seconds of one call of compiled steps and its preparation."""
    preprocessor, rows = original_loop.synthetic(64 * 8)
    started = time.perf_counter()
    ours(experiment(64, compiled=True), preprocessor, rows)()
    print(time.perf_counter() - started)


def bench_workers(*, quick: bool) -> Result:
    """One and two processes, each on its own core; wall time, so use an idle machine."""
    result: Result = {}
    for width in (1, 8):
        for size in (1024, 8192, 65_536):
            one, two = (rate_of_workers(number, size, width, quick=quick) for number in (1, 2))
            result[f"width_{width}_batch_{size}_one_rows_per_s"] = one
            result[f"width_{width}_batch_{size}_two_to_one"] = two / one
    return result


def rate_of_workers(number: int, batch_size: int, width: int, *, quick: bool) -> float:
    """Rows per second that ``number`` processes train together; the best of some epochs."""
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:
        options = [folder, str(number), str(batch_size), str(width), str(int(quick))]
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", str(rank), *options],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(number)
        ]
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return float(outputs[0].split()[-1])


def work(rank: int, folder: str, number: int, batch_size: int, width: int, quick: int) -> None:
    """One of ``number`` processes: print the best rate of some epochs."""
    preprocessor, rows = original_loop.synthetic(131_072)
    config = experiment(batch_size, width=width)
    model, wrapper = build(config, preprocessor, rows), None
    if number > 1:
        meeting = (Path(folder) / "meeting").as_uri()
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=number)
        wrapper = nn.parallel.DistributedDataParallel(model.network, forward_sync_buffers=False)
    objective = Objective(config.train, config.time_decay, preprocessor)
    trainer = Trainer(model, rows, objective, Shard(rank, number), data_parallel=wrapper)
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(2 if quick else 4):
        started = time.perf_counter()
        train_epoch(trainer.module, trainer.batches(generator), trainer.step, Shard(rank, number))
        rates.append(len(rows) / (time.perf_counter() - started))
    print(max(rates))
    if number > 1:
        del model, trainer, wrapper
        distributed.destroy_process_group()


BENCHMARKS: Final[dict[str, Callable[..., Result]]] = {
    "small": bench_small,
    "large": bench_large,
    "evaluation": bench_evaluation,
    "recommend": bench_recommend,
    "start": bench_start,
    "workers": bench_workers,
}


def main() -> int:
    """Run the requested benchmarks and print their results."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--first-epoch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_epoch:
        first_epoch()
        return 0
    if options.worker:
        rank, folder, *numbers = options.worker
        work(int(rank), folder, *map(int, numbers))
        return 0
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    results = {name: BENCHMARKS[name](quick=options.quick) for name in options.names or BENCHMARKS}
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for name, result in results.items():
        print(name)
        for key, value in result.items():
            print(f"  {key:48} {value:,.3f}" if isinstance(value, float) else f"  {key:48} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
