"""Throughput and latency of the page's server.

    python benchmarks/bench_serve.py [--checkpoint FOLDER] [--connections N ...] [--seconds S]
        [--replicas N] [--quick] [--json]

Starts ``python -m ray_jobs.serve`` and drives it from this process over persistent connections,
each with one request at a time:

recommendations  POST /api/recommendations: ten movies with reasons, for ten ratings
movies           GET /api/movies: a search for a title

Rates are also given as multiples of a reference, measured in the same run before and after: the
same model called in a plain loop on one thread, without HTTP and JSON. Responses with 503 count as
refused, not as completed or failed. Without --checkpoint, the model has the configuration
configs/models/gaussian-process.toml, random weights and a catalogue of 9,742 generated movies; its
speed does not depend on the weights."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import torch

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ncf.data.batches import Batch  # noqa: E402
from ncf.data.preprocessor import MovieTable, NumericColumn, Preprocessor  # noqa: E402
from ncf.inference import checkpoint  # noqa: E402
from ncf.inference.recommender import Recommender, load  # noqa: E402
from ncf.models.conditioned import ConditionedModel  # noqa: E402
from ncf.models.ncf import NCF  # noqa: E402
from ncf.models.targets import Objective  # noqa: E402
from ncf.models.weights import snapshot  # noqa: E402
from ray_jobs.cli import load_config  # noqa: E402
from ray_jobs.web.search import TitleSearch  # noqa: E402

CONFIG: Final = REPOSITORY / "configs" / "gaussian-process.toml"
NUM_MOVIES: Final = 9_742
NUM_USERS: Final = 610
RATINGS: Final = 10
"""Ratings of a request, and number of recommendations."""
REASONS: Final = 3
DIFFERENT: Final = 200
"""Different requests of each kind, which are repeated."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The requests, sent over HTTP and in the plain loop."""

    is_folded_in: list[tuple[list[int], list[float]]]
    queries: list[str]

    @classmethod
    def of(cls, model: Recommender) -> Asked:
        """Ratings of often rated movies; the first two words of titles."""
        rng = np.random.default_rng(0)
        movies = model.checkpoint.preprocessor.movies
        often = np.argsort(-movies.train_counts, kind="stable")[:1000]
        chosen = [rng.choice(often, RATINGS, replace=False) for _ in range(DIFFERENT)]
        is_folded_in = [
            (movies.ids[each].tolist(), (rng.integers(1, 11, RATINGS) / 2).tolist())
            for each in chosen
        ]
        return cls(is_folded_in, [" ".join(movies.titles[each[0]].split()[:2]) for each in chosen])

    def bodies(self) -> list[Result]:
        """The recommendation requests as JSON."""
        return [
            {
                "ratings": [
                    {"movieId": m, "rating": r} for m, r in zip(movies, ratings, strict=True)
                ],
                "n": RATINGS,
                "reasons": REASONS,
            }
            for movies, ratings in self.is_folded_in
        ]


def made_model(folder: Path) -> None:
    """A checkpoint of the size of ml-latest-small's, with random weights."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    movies = MovieTable(
        ids=np.arange(1, NUM_MOVIES + 1),
        titles=tuple(
            f"Film{i % 97} of Word{i % 1009} ({1950 + i % 70})" for i in range(NUM_MOVIES)
        ),
        embedding_index=np.arange(1, NUM_MOVIES + 1),
        genres=rng.random((NUM_MOVIES, 19)) < 0.12,
        decade=rng.integers(1, 8, NUM_MOVIES),
        numeric=rng.normal(size=(NUM_MOVIES, 2)).astype(np.float32),
        train_counts=rng.integers(1, 300, NUM_MOVIES),
    )
    columns = [
        NumericColumn(name, "none", 1.0, 0.0, 0.0, 1.0, indicator=False)
        for name in ("year", "train_count")
    ]
    preprocessor = Preprocessor(
        user_ids=np.arange(1, NUM_USERS + 1),
        genres=tuple(f"genre {i}" for i in range(19)),
        decades=tuple(range(1950, 2020, 10)),
        numeric=tuple(columns),
        rating_mean=3.5,
        rating_min=0.5,
        rating_max=5.0,
        decay_reference=10**9,
        decay_rate_per_day=0.0,
        movies=movies,
    )
    count = 10 * NUM_USERS
    rows = Batch(
        users=torch.arange(count, dtype=torch.int32) % NUM_USERS + 1,
        movies=torch.randint(NUM_MOVIES, (count,), dtype=torch.int32),
        ratings=torch.randint(1, 11, (count,)) / 2,
        weights=torch.ones(count),
        times=torch.randint(10**9, (count,)),
    )
    experiment = load_config([str(CONFIG)], []).experiment
    network = NCF(experiment.model, preprocessor)
    network.init_output_bias(3.5)
    model = ConditionedModel(network)
    objective = Objective(experiment.train, experiment.time_decay, preprocessor)
    model.fit_history(objective.training_rows(rows))
    checkpoint.save(folder, snapshot(network), experiment, preprocessor, {}, model.history)


@contextlib.contextmanager
def server(stored: Path, replicas: int) -> Iterator[str]:
    """Start the command as a user does; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--checkpoint", str(stored), "--port", str(port)]
    options += ["--set", f"serve.replicas={replicas}"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "ray_jobs.serve", *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            if "until Ctrl-C" in line:
                break
        else:
            raise RuntimeError("the server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


@dataclass
class Tally:
    """Responses within the measured time."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    def summary(self, duration: float) -> Result:
        """The printed figures; without responses there are no percentiles."""
        p50, p99 = np.percentile(self.seconds or [np.nan], [50, 99]) * 1e3
        return {
            "requests_per_s": len(self.seconds) / duration,
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "refused": self.refused,
            "failed": self.failed,
        }


async def drive(url: str, requests: Sequence[Result], connections: int, duration: float) -> Tally:
    """Send requests over all connections; responses in the first fifth of the time do not count.

    A refused request is repeated after Retry-After.
    """
    tally = Tally()
    begun = time.perf_counter() + duration / 4
    end = begun + duration

    async def one(number: int, session: aiohttp.ClientSession) -> None:
        turn = number
        while (started := time.perf_counter()) < end:
            request = requests[turn % len(requests)]
            turn += connections
            try:
                async with session.request(
                    url=f"{url}{request['path']}", **request["is"]
                ) as answer:
                    await answer.read()
                    status = answer.status
                    again = float(answer.headers.get("Retry-After", 0))
            except aiohttp.ClientError:
                status, again = 0, 0.0
            ended = time.perf_counter()
            if begun <= ended < end:
                if status == 200:
                    tally.seconds.append(ended - started)
                elif status == 503:
                    tally.refused += 1
                else:
                    tally.failed += 1
            await asyncio.sleep(again)

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(one(number, session) for number in range(connections)))
    return tally


def loop(calls: Callable[[int], object], duration: float) -> float:
    """Sequential calls per second."""
    calls(0)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < duration:
        calls(count % DIFFERENT)
        count += 1
    return count / (time.perf_counter() - begun)


def references(model: Recommender, recommender: Asked) -> dict[str, Callable[[int], object]]:
    """The same without HTTP."""
    search = TitleSearch(model.checkpoint.preprocessor.movies)

    def recommend(turn: int) -> object:
        movies, ratings = recommender.is_folded_in[turn]
        theirs = model.fold_in(movies, ratings)
        best = theirs.recommend(0, RATINGS, movies)
        return theirs.explain(0, best.movies)

    return {
        "recommendations": recommend,
        "movies": lambda turn: search.find(recommender.queries[turn], 20),
    }


def measure(stored: Path, replicas: int, connections: Sequence[int], duration: float) -> Result:
    """Both kinds of request, over each number of connections."""
    torch.set_num_threads(1)
    model = load(stored)
    recommender = Asked.of(model)
    kinds: dict[str, list[Result]] = {
        "recommendations": [
            {"path": "/api/recommendations", "is": {"method": "POST", "json": body}}
            for body in recommender.bodies()
        ],
        "movies": [
            {"path": "/api/movies", "is": {"method": "GET", "params": {"query": query}}}
            for query in recommender.queries
        ],
    }
    plain = references(model, recommender)
    before = {kind: loop(plain[kind], duration) for kind in kinds}
    rows: list[Result] = []
    with server(stored, replicas) as url:
        for kind, requests in kinds.items():
            for number in connections:
                tally = asyncio.run(drive(url, requests, number, duration))
                row: Result = {"kind": kind, "connections": number} | tally.summary(duration)
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
    after = {kind: loop(plain[kind], duration) for kind in kinds}
    reference = {kind: (before[kind] + after[kind]) / 2 for kind in kinds}
    for each in rows:
        each["ratio_to_loop"] = each["requests_per_s"] / reference[each["kind"]]
    movies = len(model.checkpoint.preprocessor.movies)
    return {"movies": movies, "replicas": replicas, "loop_per_s": reference, "rows": rows}


def show(result: Result) -> None:
    """A table."""
    print(f"{result['movies']:,} movies, replicas: {result['replicas']}")
    for kind, rate in result["loop_per_s"].items():
        print(f"  {kind} in a plain loop: {rate:,.0f}/s")
    titles = ("connections", "requests/s", "x loop", "p50 ms", "p99 ms", "refused", "failed")
    print(f"  {'':16}" + "".join(f"{title:>12}" for title in titles))
    for row in result["rows"]:
        numbers = f"{row['requests_per_s']:12,.0f}{row['ratio_to_loop']:12.2f}"
        numbers += f"{row['p50_ms']:12.1f}{row['p99_ms']:12.1f}"
        counts = f"{row['refused']:12,}{row['failed']:12,}"
        print(f"  {row['kind']:16}{row['connections']:12}{numbers}{counts}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="of a model")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--replicas", type=int, default=1, help="processes with the model")
    parser.add_argument("--quick", action="store_true", help="3 seconds each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    # Shells make background processes ignore Ctrl-C, which the server would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds = 3.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        stored = options.checkpoint
        if stored is None:
            stored = Path(folder) / "checkpoint"
            made_model(stored)
        result = measure(stored.resolve(), options.replicas, options.connections, seconds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
