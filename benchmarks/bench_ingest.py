"""Speed of the TMDb crawl, relative to the rate limit and to a plain aiohttp pool.

    python benchmarks/bench_ingest.py [rate] [ceiling] [memory] [--quick] [--json]

rate     all of ml-latest-small against the replay server at 40 requests/s with a burst of 40:
         share of the permitted rate that is used, and refusals (429). 4 minutes.
ceiling  the same without limit: requests per second and CPU per request, as ratios to a plain pool
         of aiohttp workers that read and discard each response, and one that also parses the JSON,
         in the same run. Merging the parts at the end is measured separately.
memory   100,000 movies through the command line: peak resident memory of that process.

``rate`` and ``ceiling`` need the shared development data beside the repository.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.storage import Storage  # noqa: E402
from ingest.config import DataConfig, TmdbConfig  # noqa: E402
from ingest.dataset import prepare_tables  # noqa: E402
from ingest.tmdb.crawl import crawl  # noqa: E402
from ingest.tmdb.credentials import Credentials  # noqa: E402
from ingest.tmdb.progress import LogView  # noqa: E402
from ingest.tmdb.shards import Shards  # noqa: E402

SHARED: Final = REPOSITORY.parent / "shared"
TOKEN: Final = "replay-read-access-token"
ENVIRON: Final = {"TMDB_ACCESS_TOKEN": TOKEN}
CONCURRENCY: Final = 32
TURNS: Final = 5
RATE: Final = 40.0
Result = dict[str, Any]


@contextlib.contextmanager
def process(*command: str) -> Iterator[str]:
    """A server process; yields the URL that ends the first line it prints."""
    server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
    finally:
        server.terminate()
        server.communicate(timeout=10)


def replay(*options: str) -> contextlib.AbstractContextManager[str]:
    """The replay server."""
    data = SHARED / "data" / "tmdb" / "movies.jsonl.gz"
    tool = SHARED / "tools" / "tmdb_replay.py"
    return process(str(tool), "--data", str(data), "--port", "0", *options)


def stats_of(url: str) -> Result:
    """The replay server's counters."""
    with urllib.request.urlopen(f"{url.removesuffix('/3')}/__stats") as answer:
        stats: Result = json.load(answer)
    return stats


def some_movies(folder: Path, count: int | None) -> Path:
    """ml-latest-small, or a copy cut to the first ``count`` movies."""
    source = SHARED / "data" / "ml-latest-small"
    if count is None:
        return source
    target = folder / f"first-{count}"
    target.mkdir()
    kept = set()
    for name in ("movies.csv", "links.csv"):
        lines = (source / name).read_text(encoding="utf-8").splitlines()[: count + 1]
        kept |= {line.partition(",")[0] for line in lines[1:]}
        (target / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    header, *ratings = (source / "ratings.csv").read_text(encoding="utf-8").splitlines()
    chosen = [line for line in ratings if line.split(",")[1] in kept]
    (target / "ratings.csv").write_text("\n".join([header, *chosen]) + "\n", encoding="utf-8")
    return target


def crawl_all(url: str, source: Path, folder: Path, rate: float) -> Result:
    """Crawl ``source``, then merge; wall and CPU seconds of each."""
    config = TmdbConfig(base_url=url, requests_per_second=rate, concurrency=CONCURRENCY)
    target = prepare_tables(DataConfig(path=str(source)), Storage.at(folder) / "raw").folder
    links = (target / "links.parquet").read_table()
    ids = links["movie_id"].to_numpy()
    shards = Shards(target)
    credentials = Credentials.from_environ(ENVIRON)
    assert credentials is not None
    started = time.perf_counter(), time.process_time()
    summary = asyncio.run(crawl(links, ids, shards, config, credentials, LogView()))
    crawled = time.perf_counter(), time.process_time()
    shards.merge(ids)
    merged = time.perf_counter(), time.process_time()
    return {
        "requests": summary.requests,
        "wall_s": crawled[0] - started[0],
        "cpu_s": crawled[1] - started[1],
        "merge_wall_s": merged[0] - crawled[0],
        "merge_cpu_s": merged[1] - crawled[1],
        "coverage": shards.coverage(),
    }


def bench_rate(folder: Path, *, quick: bool) -> Result:
    """The share of the permitted rate."""
    source = some_movies(folder, 1_000 if quick else None)
    with replay("--rate", str(RATE), "--burst", str(RATE)) as url:
        crawled = crawl_all(url, source, folder / "rate", RATE)
        stats = stats_of(url)
    return {
        "requests": stats["requests"],
        "requests_per_s": stats["mean_rps"],
        "share_of_permitted_rate": stats["mean_rps"] / RATE,
        "share_including_start_and_end": crawled["requests"] / crawled["wall_s"] / RATE,
        "refusals": stats["rate_limited"],
        "wall_s": crawled["wall_s"],
        "coverage": crawled["coverage"],
    }


async def bare_pool(url: str, ids: list[int], parse: Callable[[bytes], Any]) -> None:
    """Workers that fetch, read, ``parse`` and discard."""
    queue = iter(ids)
    params = {"append_to_response": "credits,keywords"}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONCURRENCY), headers=headers
    ) as session:

        async def worker() -> None:
            for tmdb_id in queue:
                async with session.get(f"{url}/movie/{tmdb_id}", params=params) as response:
                    parse(await response.read())

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(worker())


def time_bare_pool(url: str, ids: list[int], parse: Callable[[bytes], Any]) -> Result:
    """Wall and CPU seconds of a plain pool."""
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(bare_pool(url, ids, parse))
    return {
        "requests": len(ids),
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


def bench_ceiling(folder: Path, *, quick: bool) -> Result:
    """Speed without a limit, relative to plain pools; all take turns, and the best turn counts."""
    source = some_movies(folder, 2_000 if quick else None)
    lines = (source / "links.csv").read_text(encoding="utf-8").splitlines()[1:]
    ids = [int(tmdb_id) for line in lines if (tmdb_id := line.rsplit(",", 1)[1])]
    turns: dict[str, list[Result]] = {"bare": [], "bare_json": [], "ingest": []}
    with replay("--rate", "0") as url:
        for turn in range(TURNS):
            turns["bare"].append(time_bare_pool(url, ids, len))
            turns["bare_json"].append(
                time_bare_pool(url, ids, lambda body: json.loads(body) if body[:1] == b"{" else 0)
            )
            turns["ingest"].append(crawl_all(url, source, folder / f"ceiling{turn}", 1e9))

    def best(name: str, measure: str) -> float:
        values: list[float] = [turn[measure] / turn["requests"] for turn in turns[name]]
        return min(values)

    result: Result = {"concurrency": CONCURRENCY, "turns": TURNS}
    for name in turns:
        result[f"{name}_requests_per_s"] = 1 / best(name, "wall_s")
        result[f"{name}_cpu_us_per_request"] = best(name, "cpu_s") * 1e6
    for measure in ("wall_s", "cpu_s"):
        ours = best("ingest", measure)
        result[f"ratio_to_bare_by_{measure[:-2]}"] = best("bare", measure) / ours
        result[f"ratio_to_bare_json_by_{measure[:-2]}"] = best("bare_json", measure) / ours
    result["merge_cpu_us_per_request"] = best("ingest", "merge_cpu_s") * 1e6
    return result


def bench_memory(folder: Path, *, quick: bool) -> Result:
    """Peak memory of a large crawl."""
    count = 20_000 if quick else 100_000
    source = folder / "large"
    source.mkdir()
    for name, header, line in (
        ("movies.csv", "movieId,title,genres", "{0},Movie {0} (2000),Drama|Comedy"),
        ("links.csv", "movieId,imdbId,tmdbId", "{0},{0:07d},{0}"),
        ("ratings.csv", "userId,movieId,rating,timestamp", "1,{0},4.0,1000000000"),
    ):
        rows = "\n".join(line.format(number) for number in range(1, count + 1))
        (source / name).write_text(f"{header}\n{rows}\n", encoding="utf-8")
    with process(__file__, "--serve") as url:
        started = time.perf_counter()
        client = subprocess.Popen(
            [
                *(sys.executable, "-m", "ingest", "tmdb", "--json"),
                *("--storage", str(folder / "memory"), "--set", f"data.path={source}"),
                *("--set", f"tmdb.base_url={url}", "--set", "tmdb.requests_per_second=1e9"),
            ],
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRON},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
    scale = 1024 if sys.platform == "linux" else 1  # macOS counts bytes, Linux KiB
    return {
        "movies": count,
        "exit_code": client.returncode,
        "peak_mib": usage.ru_maxrss * scale / 2**20,
        "wall_s": time.perf_counter() - started,
    }


def serve_large_records() -> None:
    """A server that responds to every movie id with a record of typical size, about 7 kB."""
    person = {"gender": 0, "known_for_department": "Acting", "popularity": 1.0, "character": "X"}
    cast = [{"id": n, "name": f"Actor number {n}", "order": n, **person} for n in range(40)]
    crew = [{"id": 7, "name": "The Director", "job": "Director"}]
    keywords = [{"id": n, "name": f"keyword {n}"} for n in range(20)]
    record = {"budget": 1, "revenue": 2, "popularity": 3.5, "vote_average": 7, "vote_count": 8,
              "overview": "x" * 400, "credits": {"cast": cast, "crew": crew},
              "keywords": {"keywords": keywords}}  # fmt: skip
    rest = json.dumps(record).encode()[1:]

    async def movie(request: web.Request) -> web.Response:
        tmdb_id = request.match_info["tmdb_id"].encode()
        return web.Response(body=b'{"id":%s,' % tmdb_id + rest, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/3/movie/{tmdb_id}", movie)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/3", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


BENCHMARKS: Final[dict[str, Callable[..., Result]]] = {
    "rate": bench_rate,
    "ceiling": bench_ceiling,
    "memory": bench_memory,
}


def main() -> int:
    """Run the requested benchmarks and print their results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer movies")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_large_records()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    results: Result = {}
    for name in options.names or BENCHMARKS:
        if name != "memory" and not SHARED.is_dir():
            print(f"{name}: skipped, no shared data beside the repository", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(prefix="bench-ingest-") as folder:
            results[name] = BENCHMARKS[name](Path(folder), quick=options.quick)
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for name, result in results.items():
        print(name)
        for key, value in result.items():
            print(f"  {key:32} {value:,.3f}" if isinstance(value, float) else f"  {key:32} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
