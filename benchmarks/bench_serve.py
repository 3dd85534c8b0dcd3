"""Throughput and latency of the page's server.

    python benchmarks/bench_serve.py [--checkpoint FOLDER] [--connections N ...] [--seconds S]
        [--replicas N] [--kinds KIND ...] [--proxy] [--quick] [--json]

Starts ``python -m ray_jobs.serve`` and drives it from this process over persistent connections,
each with one request at a time:

health           GET /api/health: HTTP alone, which no request can be faster than
recommendations  POST /api/recommendations: ten movies by choice with stars, for ten ratings
reasons          the same with reasons
stars            the same movies by predicted stars, without reasons
movies           GET /api/movies: a search for a title

Rates are also given as multiples of a reference, measured in the same run before and after: the
same model called in a plain loop on one thread, without HTTP and JSON, one user after the other.
"cpu" is the CPU time of the replicas for a request, which bounds the rate of a replica on a core of
its own. Responses with 503 count as refused, not as completed or failed. --proxy measures health
once more behind the HTTP proxy of Ray Serve. Without --checkpoint, the rating model has
the configuration configs/models/gaussian-process.toml and random weights, the choice model is
fitted to random ratings but for the network, whose weights are random, and the catalogue has 9,742
generated movies; speed does not depend on the weights."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
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

from ncf.choice_config import ChoiceConfig, EaseConfig, ExpertsConfig  # noqa: E402
from ncf.data.batches import Batch  # noqa: E402
from ncf.data.interactions import Interactions  # noqa: E402
from ncf.data.preprocessor import MovieTable, NumericColumn, Preprocessor  # noqa: E402
from ncf.inference import checkpoint, choice_checkpoint  # noqa: E402
from ncf.inference.ordering import Ordering  # noqa: E402
from ncf.inference.recommender import CHOICE, Recommender, load  # noqa: E402
from ncf.inference.titles import TitleSearch  # noqa: E402
from ncf.models.choice.ease import EasePath  # noqa: E402
from ncf.models.choice.experts import ProductOfExperts  # noqa: E402
from ncf.models.choice.network import NetworkChoiceModel, build_network  # noqa: E402
from ncf.models.conditioned import ConditionedModel  # noqa: E402
from ncf.models.ncf import NCF  # noqa: E402
from ncf.models.targets import Objective  # noqa: E402
from ncf.models.weights import snapshot  # noqa: E402
from ray_jobs.cli import load_config  # noqa: E402
from ray_jobs.web.new_users import NewUser, NewUsers, Wanted  # noqa: E402

CONFIG: Final = REPOSITORY / "configs" / "models" / "gaussian-process.toml"
NUM_MOVIES: Final = 9_742
NUM_USERS: Final = 610
PER_USER: Final = 115
"""Training ratings of a user."""
RATINGS: Final = 10
"""Ratings of a request, and number of recommendations."""
REASONS: Final = 3
DIFFERENT: Final = 200
"""Different requests of each kind, which are repeated."""
AT_ONCE: Final = (1, 8, 32)
"""Users that are recommended to at once, without HTTP."""
KINDS: Final = ("health", "recommendations", "reasons", "stars", "movies")
Result = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The requests, sent over HTTP and in the plain loop."""

    users: list[tuple[list[int], list[float]]]
    """Ids of movies, and their ratings."""
    queries: list[str]

    @classmethod
    def of(cls, model: Recommender) -> Asked:
        """Ratings of often rated movies; the first two words of titles."""
        rng = np.random.default_rng(0)
        movies = model.preprocessor.movies
        often = np.argsort(-movies.train_counts, kind="stable")[:1000]
        chosen = [rng.choice(often, RATINGS, replace=False) for _ in range(DIFFERENT)]
        users = [
            (movies.ids[each].tolist(), (rng.integers(1, 11, RATINGS) / 2).tolist())
            for each in chosen
        ]
        return cls(users, [" ".join(movies.display_titles[each[0]].split()[:2]) for each in chosen])

    def posts(self, **options: object) -> list[Result]:
        """The requests for recommendations."""
        bodies = [
            {"ratings": [{"movieId": m, "rating": r} for m, r in zip(*user, strict=True)]}
            for user in self.users
        ]
        return [
            {
                "path": "/api/recommendations",
                "is": {"method": "POST", "json": body | {"n": RATINGS} | options},
            }
            for body in bodies
        ]

    def requests(self) -> dict[str, list[Result]]:
        """Those of each kind."""
        return {
            "health": [{"path": "/api/health", "is": {"method": "GET"}}],
            "recommendations": self.posts(),
            "reasons": self.posts(reasons=REASONS),
            "stars": self.posts(order="stars"),
            "movies": [
                {"path": "/api/movies", "is": {"method": "GET", "params": {"query": query}}}
                for query in self.queries
            ],
        }


def made_model(folder: Path) -> None:
    """A checkpoint of the size of ml-latest-small's."""
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
    known = Interactions.of(
        np.repeat(preprocessor.user_ids, PER_USER),
        np.concatenate([rng.choice(NUM_MOVIES, PER_USER, replace=False) for _ in range(NUM_USERS)]),
        rng.integers(1, 11, NUM_USERS * PER_USER) / 2,
        rng.integers(0, 10**9, NUM_USERS * PER_USER),
        NUM_MOVIES,
    )
    keep_ratings_model(folder, preprocessor, known)
    keep_choice_model(folder / CHOICE, preprocessor, known)


def keep_ratings_model(folder: Path, preprocessor: Preprocessor, known: Interactions) -> None:
    """A Gaussian process with random weights."""
    rows = Batch(
        users=torch.from_numpy(known.rows.astype(np.int32)) + 1,
        movies=torch.from_numpy(known.movies),
        ratings=torch.from_numpy(known.ratings),
        weights=torch.ones(known.num_ratings),
        times=torch.from_numpy(known.times),
    )
    experiment = load_config([str(CONFIG)], []).experiment
    network = NCF(experiment.model, preprocessor)
    network.init_output_bias(3.5)
    model = ConditionedModel(network)
    objective = Objective(experiment.train, experiment.time_decay, preprocessor)
    model.fit_history(objective.training_rows(rows))
    checkpoint.save(folder, snapshot(network), experiment, preprocessor, {}, model.history)


def keep_choice_model(folder: Path, preprocessor: Preprocessor, known: Interactions) -> None:
    """Both members and their product."""
    config = ChoiceConfig(ease=EaseConfig(ridges=(140.0,)), experts=ExpertsConfig(powers=(0.5,)))
    ease = EasePath(known, preprocessor, config.ease).at(140.0)
    network = NetworkChoiceModel(build_network(config.network, preprocessor, known).eval())
    experts = ProductOfExperts(ease, network, 0.5, config.experts.floor)
    nothing = Interactions.of([], [], [], [], NUM_MOVIES)
    choice_checkpoint.save(
        folder,
        {"ease": ease, "network": network, "experts": experts},
        config,
        preprocessor,
        known,
        nothing,
        {},
    )


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    pid: int

    def replica_seconds(self) -> float:
        """CPU time of its replicas so far; 0 where the system does not tell."""
        parents, replicas = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                if "ray::ServeReplica" in (folder / "cmdline").read_text():
                    replicas[int(folder.name)] = int(fields[11]) + int(fields[12])
        ticks = sum(used for pid, used in replicas.items() if self._is_above(pid, parents))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _is_above(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents and pid != self.pid:
            pid = parents[pid]
        return pid == self.pid


@contextlib.contextmanager
def server(stored: Path, replicas: int, *, proxy: bool = False) -> Iterator[Server]:
    """Start the command as a user does, or the same application behind Serve's proxy."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = ["-m", "ray_jobs.serve", "--checkpoint", str(stored), "--port", port]
    options += ["--set", f"serve.replicas={replicas}"]
    if proxy:
        options = [__file__, "--checkpoint", str(stored), "--behind-proxy", port]
    process = subprocess.Popen(
        [sys.executable, "-u", *options], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            if "until Ctrl-C" in line:
                break
        else:
            raise RuntimeError("the server did not start")
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def serve_behind_proxy(stored: Path, port: int) -> None:
    """Serve the application as an ingress of Ray Serve until Ctrl-C."""
    from fastapi import FastAPI
    from ray import serve

    from foundation.storage import Storage
    from ray_jobs.cluster.session import ensure_ray, leave_ray
    from ray_jobs.web.about import describe
    from ray_jobs.web.app import make_app

    @serve.ingress()
    class Page:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            model = load(stored)
            self._app = make_app(model, describe(Storage.at(str(stored)), model))

        def __serve_build_asgi_app__(self) -> FastAPI:
            return self._app

    ensure_ray(load_config([], []))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    page = serve.deployment(
        Page, max_ongoing_requests=256, logging_config={"enable_access_log": False}
    )
    serve.run(page.bind())
    print("serving until Ctrl-C", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    leave_ray()


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


async def drive(
    url: str, requests: Sequence[Result], connections: int, duration: float
) -> tuple[Tally, int]:
    """Send requests over all connections; responses in the first fifth of the time do not count.

    A refused request is repeated after Retry-After.

    Returns:
        The tally, and the number of all responses with 200.
    """
    tally, total = Tally(), 0
    begun = time.perf_counter() + duration / 4
    end = begun + duration

    async def one(number: int, session: aiohttp.ClientSession) -> None:
        nonlocal total
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
            total += status == 200
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
    return tally, total


def loop(calls: Callable[[int], object], duration: float) -> float:
    """Sequential calls per second."""
    calls(0)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < duration:
        calls(count % DIFFERENT)
        count += 1
    return count / (time.perf_counter() - begun)


def references(model: Recommender, asked: Asked) -> dict[str, Callable[[int], object]]:
    """The same without HTTP."""
    search = TitleSearch(model.preprocessor.movies)

    def recommend(turn: int, order: Ordering, *, reasons: bool = False) -> object:
        movies, ratings = asked.users[turn]
        theirs = model.fold_in(movies, ratings)
        best = theirs.recommend(0, RATINGS, movies, order)
        if not reasons:
            return best
        return theirs.explain(0, best.movies), theirs.explain_choices(0, best.movies)

    return {
        "recommendations": lambda turn: recommend(turn, Ordering("choice")),
        "reasons": lambda turn: recommend(turn, Ordering("choice"), reasons=True),
        "stars": lambda turn: recommend(turn, Ordering("stars")),
        "movies": lambda turn: search.find(asked.queries[turn], 20),
    }


def wanted_of(model: Recommender, asked: Asked) -> list[Wanted]:
    """Ten movies for each user, without reasons."""
    table, now = model.preprocessor.movies, model.preprocessor.decay_reference
    return [
        Wanted(
            NewUser(
                table.index_of(np.array(movies)),
                np.array(ratings, np.float32),
                np.full(len(movies), now),
            ),
            RATINGS,
            min_ratings=3,
            has_reasons=False,
        )
        for movies, ratings in asked.users
    ]


def at_once(model: Recommender, asked: Asked) -> tuple[dict[int, float], dict[int, int]]:
    """New users' ten best with stars, by the number of users at once.

    Returns:
        CPU milliseconds a user, and how many users have other movies, or another order, than alone.
    """
    new_users, wanted = NewUsers(model), wanted_of(model, asked)
    cpu, found = {}, {}
    for count in AT_ONCE:
        parts = [wanted[start : start + count] for start in range(0, DIFFERENT, count)]
        new_users.recommend(parts[0])
        begun = time.process_time()
        found[count] = [
            each.movies.tolist() for part in parts for each in new_users.recommend(part)
        ]
        cpu[count] = (time.process_time() - begun) / DIFFERENT * 1e3
    differ = {
        count: sum(one != other for one, other in zip(movies, found[AT_ONCE[0]], strict=True))
        for count, movies in found.items()
    }
    return cpu, differ


def measure(
    stored: Path,
    replicas: int,
    connections: Sequence[int],
    duration: float,
    kinds: Sequence[str],
    *,
    proxy: bool,
) -> Result:
    """Each kind of request, over each number of connections."""
    torch.set_num_threads(1)
    model = load(stored)
    asked = Asked.of(model)
    requests, plain = asked.requests(), references(model, asked)
    measured = [kind for kind in kinds if kind in plain]
    before = {kind: loop(plain[kind], duration) for kind in measured}
    rows: list[Result] = []
    with server(stored, replicas) as running:
        for kind in kinds:
            rows += rows_of(running, kind, requests[kind], connections, duration)
    if proxy:
        with server(stored, 1, proxy=True) as running:
            rows += rows_of(running, "proxy", requests["health"], connections, duration)
    after = {kind: loop(plain[kind], duration) for kind in measured}
    reference = {kind: (before[kind] + after[kind]) / 2 for kind in measured}
    for each in rows:
        rate = reference.get(each["kind"])
        each["ratio_to_loop"] = each["requests_per_s"] / rate if rate else None
    cpu, differ = at_once(model, asked)
    return {
        "movies": len(model.preprocessor.movies),
        "replicas": replicas,
        "loop_per_s": reference,
        "cpu_ms_a_user": cpu,
        "users_with_others_than_alone": differ,
        "rows": rows,
    }


def rows_of(
    running: Server,
    kind: str,
    requests: Sequence[Result],
    connections: Sequence[int],
    duration: float,
) -> Iterator[Result]:
    """A row for each number of connections."""
    for number in connections:
        before = running.replica_seconds()
        tally, total = asyncio.run(drive(running.url, requests, number, duration))
        cpu = (running.replica_seconds() - before) / max(1, total) * 1e3
        row: Result = {"kind": kind, "connections": number, "cpu_ms": cpu}
        row |= tally.summary(duration)
        print(json.dumps(row), file=sys.stderr, flush=True)
        yield row


def show(result: Result) -> None:
    """A table."""
    print(f"{result['movies']:,} movies, replicas: {result['replicas']}")
    for kind, rate in result["loop_per_s"].items():
        print(f"  {kind} in a plain loop: {rate:,.0f}/s")
    for count, cpu in result["cpu_ms_a_user"].items():
        differ = result["users_with_others_than_alone"][count]
        print(f"  {count} new users at once, without HTTP: {cpu:.2f} ms of CPU a user", end="")
        print(f", {differ} of {DIFFERENT} with other movies than alone")
    titles = ("connections", "requests/s", "x loop", "cpu ms", "p50 ms", "p99 ms")
    print(f"  {'':16}" + "".join(f"{title:>12}" for title in (*titles, "refused", "failed")))
    for row in result["rows"]:
        ratio = "-" if row["ratio_to_loop"] is None else f"{row['ratio_to_loop']:.2f}"
        numbers = f"{row['requests_per_s']:12,.0f}{ratio:>12}{row['cpu_ms']:12.2f}"
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
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--proxy", action="store_true", help="also behind Serve's proxy")
    parser.add_argument("--behind-proxy", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="3 seconds each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    # Shells make background processes ignore Ctrl-C, which the server would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.behind_proxy:
        serve_behind_proxy(options.checkpoint, options.behind_proxy)
        return 0
    seconds = 3.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        stored = options.checkpoint
        if stored is None:
            stored = Path(folder) / "checkpoint"
            made_model(stored)
        result = measure(
            stored.resolve(),
            options.replicas,
            options.connections,
            seconds,
            options.kinds,
            proxy=options.proxy,
        )
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
