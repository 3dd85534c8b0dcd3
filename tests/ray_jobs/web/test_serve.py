"""The API of the page in this process, without Ray, against the same checkpoint asked directly."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pytest
import ray
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from foundation.cli import main
from ingest.manifest import TMDB_ATTRIBUTION
from ingest.sources.movielens import MOVIELENS_CITATION
from ingest.sources.netflix import NETFLIX_CITATION
from ncf.inference.recommender import Recommender
from ray_jobs import serve
from ray_jobs.results import people
from ray_jobs.results.run import Workspace
from ray_jobs.web.about import describe
from ray_jobs.web.app import LARGEST_BODY, PAGE, make_app
from ray_jobs.web.deployment import listening
from ray_jobs.web.middleware import HEADERS, Waiting
from ray_jobs.web.server import allowed_hosts
from tests.ray_jobs.made import (
    CLOSED,
    IDS,
    METRICS,
    NEWEST,
    PLAIN,
    TITLES,
    kept,
    recommender,
)

ORDINAL = CLOSED.model_copy(update={"head": "ordinal"})
RATED = {1: 5.0, 20: 0.5, 6: 3.0}
MINE = [{"movieId": movie, "rating": stars} for movie, stars in RATED.items()]


def client_of(workspace: Workspace) -> TestClient:
    model = recommender(workspace)
    about = describe(workspace.run / "checkpoint", model)
    app = make_app(model, about, ("testserver", "[::1]"))
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return kept(tmp_path_factory.mktemp("served"), CLOSED)


@pytest.fixture(scope="module")
def model(workspace: Workspace) -> Recommender:
    return recommender(workspace)


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> Iterator[TestClient]:
    with client_of(workspace) as client:
        yield client


@pytest.fixture(params=[PLAIN, ORDINAL], ids=["no history", "ordinal"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> TestClient:
    """Of a model that cannot do everything."""
    return client_of(kept(tmp_path, request.param))


def test_recommendations_are_the_best_of_all_predictions_with_their_sums(
    client: TestClient, model: Recommender
) -> None:
    request = {"ratings": MINE, "n": 2, "reasons": 1, "minRatings": 0}
    found = client.post("/api/recommendations", json=request).json()["recommendations"]

    theirs = model.fold_in(list(RATED), list(RATED.values()))
    stars = dict(zip(IDS, theirs.predict(0, IDS).tolist(), strict=True))
    best = sorted(set(IDS) - set(RATED), key=lambda movie: -stars[movie])
    assert [row["movieId"] for row in found] == best
    assert [row["title"] for row in found] == [TITLES[IDS.index(movie)] for movie in best]
    for row in found:
        assert row["stars"] == pytest.approx(stars[row["movieId"]], abs=1e-5)
        (why,) = theirs.explain(0, row["movieId"])
        shown = row["reasons"]
        assert {part["name"]: part["adds"] for part in shown["base"]} == why.base
        added = dict(zip(why.rated.tolist(), why.added.tolist(), strict=True))
        named = shown["raised"] + shown["lowered"]
        for part in named:
            assert part["rating"] == RATED[part["movieId"]]
            assert part["adds"] == pytest.approx(added.pop(part["movieId"]), abs=1e-6)
        assert all(part["adds"] > max([0, *added.values()]) for part in shown["raised"])
        assert all(part["adds"] < min([0, *added.values()]) for part in shown["lowered"])
        assert shown["others"]["count"] == len(added)
        assert shown["others"]["adds"] == pytest.approx(sum(added.values()), abs=1e-6)
        total = sum(part["adds"] for part in [*shown["base"], *named, shown["others"]])
        assert shown["prediction"] == pytest.approx(total, abs=1e-5)


def test_predictions_come_in_the_order_asked_for_and_by_the_times_given(
    client: TestClient, model: Recommender
) -> None:
    times = [5, NEWEST, NEWEST + 10**7]
    timed = [own | {"timestamp": time} for own, time in zip(MINE, times, strict=True)]
    movies = [40, 1, 40]
    for ratings, theirs in (
        (MINE, model.fold_in(list(RATED), list(RATED.values()))),
        (timed, model.fold_in(list(RATED), list(RATED.values()), times)),
    ):
        request = {"ratings": ratings, "movies": movies}
        found = client.post("/api/predictions", json=request).json()["predictions"]
        assert [row["movieId"] for row in found] == movies
        assert {row["reasons"] for row in found} == {None}
        np.testing.assert_allclose([row["stars"] for row in found], theirs.predict(0, movies))


def test_similar_movies_are_the_models(client: TestClient, model: Recommender) -> None:
    found = client.get("/api/movies/6/similar", params={"limit": 3}).json()
    expected = model.similar(6, 3)
    assert found["movie"] == {"movieId": 6, "title": "Heat (1995)"}
    assert [row["movieId"] for row in found["similar"]] == expected.movies.tolist()
    np.testing.assert_allclose([row["similarity"] for row in found["similar"]], expected.scores)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ratings": []}, "ratings: .*at least 1 item"),
        ({"ratings": [{"movieId": 1, "rating": 5}] * 1001}, "at most 1000 items"),
        ({"ratings": [{"movieId": 1, "rating": 5.5}]}, r"0\.rating: found 5.5, expected a .* 0.5 "),
        ({"ratings": [{"movieId": 1, "rating": 0}]}, "found 0, expected a number from 0.5 to 5"),
        ({"ratings": [{"movieId": 1, "rating": "good"}]}, r"ratings\.0\.rating: .*valid number"),
        ({"ratings": [{"movieId": 1, "rating": float("nan")}]}, "finite number"),
        ({"ratings": [{"movieId": 1}]}, r"ratings\.0\.rating: Field required"),
        (
            {"ratings": [{"movieId": 777, "rating": 4}]},
            "not in the model's catalogue of 5 movies: 777 ",
        ),
        ({"ratings": [{"movieId": 2**63, "rating": 4}]}, "less than"),
        ({"ratings": [*MINE, MINE[0]]}, "movie 1 is rated at positions 0 and 3; expected each"),
        (
            {"ratings": [MINE[0], MINE[1] | {"timestamp": 5}]},
            "1 of 2 ratings have a timestamp; expected all or none",
        ),
        (
            {"ratings": [MINE[0] | {"timestamp": 5}, MINE[1] | {"timestamp": 5_000_000_000}]},
            r"ratings\.1\.timestamp: the time 5000000000 is 2128-06-11 in seconds",
        ),
        ({"ratings": [MINE[0] | {"timestamp": 964982703000}]}, "timestamp: .*less than"),
        ({"ratings": [{"movieId": "1", "rating": 5}]}, r"movieId: .*valid integer"),
        ({"ratings": [{"movieId": 1, "rating": "5"}]}, r"rating: .*valid number"),
        ({"ratings": [{"movieId": True, "rating": 5}]}, r"movieId: .*valid integer"),
        ({"ratings": [{"movieId": 1, "rating": True}]}, r"rating: .*valid number"),
        ({"n": "3"}, "n: .*valid integer"),
        ({"n": 2.5}, "n: .*integer"),
        ({"n": 101}, "n: .*less than or equal to 100"),
        ({"n": 0}, "n: .*greater than or equal to 1"),
        ({"reasons": 11}, "reasons: .*less than or equal to 10"),
        ({"stars": 3}, "stars: Extra inputs"),
        ({"n": 0, "reasons": 11, "a": 1, "b": 2}, "; and 1 further faults"),
    ],
)
def test_wrong_requests_are_told_what_was_found_and_expected(
    change: dict[str, Any], told: str, client: TestClient
) -> None:
    body = json.dumps({"ratings": MINE} | change)
    response = client.post(
        "/api/recommendations", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert set(response.json()) == {"detail"}
    assert re.search(told, response.json()["detail"]), response.json()


def test_other_wrong_requests(client: TestClient) -> None:
    def told(method: str, path: str, **options: Any) -> tuple[int, str]:
        response = client.request(method, path, **options)
        return response.status_code, response.json()["detail"]

    post = "/api/recommendations"
    json_type = {"Content-Type": "application/json"}
    assert told("GET", "/api/movies/777/similar")[0] == 404
    assert "777" in told("GET", "/api/movies/777/similar")[1]
    assert told("GET", "/api/movies/x/similar")[1].startswith("movieId: Input should be a valid")
    assert told("GET", "/api/movies")[1] == "query: Field required"
    assert told("GET", "/api/movies?query=a&limit=101")[0] == 422
    twice = "limit: found 2 values, expected one"
    assert told("GET", "/api/movies?query=a&limit=5&limit=x") == (422, twice)
    assert told("GET", "/api/movies/1/similar?limit=5&limit=5") == (422, twice)
    asked_for = {"ratings": MINE, "movies": [1, 777]}
    code, detail = told("POST", "/api/predictions", json=asked_for)
    assert (code, detail[:8]) == (422, "movies: ")
    assert "777 (at position 1)" in detail
    assert told("POST", post, content=b"{no", headers=json_type)[1].startswith("the body is not")
    assert told("POST", post, content=b"[" * 10_000, headers=json_type)[0] == 400
    assert told("GET", post) == (405, "Method Not Allowed")
    assert told("GET", "/api/nothing") == (404, "Not Found")


@pytest.mark.parametrize("known_size", [True, False])
def test_a_body_that_is_too_large_is_refused(known_size: bool, client: TestClient) -> None:
    parts = [b" " * LARGEST_BODY, json.dumps({"ratings": MINE}).encode()]
    content = b"".join(parts) if known_size else iter(parts)
    response = client.post(
        "/api/recommendations", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413


def test_who_comes_when_too_many_wait_is_refused_at_once() -> None:
    async def scenario() -> list[list[int]]:
        answered, full = asyncio.Event(), asyncio.Event()
        inside = []

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":  # as long as the server runs
                await answered.wait()
                return
            inside.append(scope)
            if len(inside) == 2:
                full.set()
            await answered.wait()
            await PlainTextResponse("done")(scope, receive, send)

        async def nothing(*_: Any) -> Any:
            raise AssertionError

        app = Waiting(slow, most=2)
        alive = asyncio.create_task(app({"type": "lifespan"}, nothing, nothing))
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            first = [asyncio.create_task(client.get("/")) for _ in range(2)]
            await asyncio.wait_for(full.wait(), 30)
            refused = await client.get("/")
            assert refused.headers["Retry-After"] == "1"
            assert refused.json()["detail"].startswith("2 requests are waiting already")
            answered.set()
            await alive
            waited = [(await task).status_code for task in first]
            return [[refused.status_code], waited, [(await client.get("/")).status_code]]

    assert asyncio.run(scenario()) == [[503], [200, 200], [200]]


def test_what_a_model_cannot_do_is_said(other: TestClient) -> None:
    about = other.get("/api/model").json()
    assert about["givesReasons"] is False
    reasons = 1 if about["takesRatings"] else 0
    request = {"ratings": MINE, "reasons": reasons, "minRatings": 0}
    response = other.post("/api/recommendations", json=request)
    expected = "the reasons to show" if about["takesRatings"] else "model.history.encoders can"
    assert response.status_code == 501
    assert re.search("no reasons to show|" + expected, response.json()["detail"])
    if about["takesRatings"]:
        plain = other.post("/api/recommendations", json=request | {"reasons": 0})
        assert len(plain.json()["recommendations"]) == 2
    assert len(other.get("/api/movies/6/similar").json()["similar"]) == 4
    assert other.get("/api/movies", params={"query": "heat"}).json()["movies"][0]["movieId"] == 6


def test_only_names_of_this_server_are_answered(client: TestClient) -> None:
    assert client.get("/api/health").json() == {"status": "ok"}
    assert client.get("/api/health", headers={"Host": "[::1]:8000"}).status_code == 200
    for path in ("/", "/api/health", "/openapi.json"):
        refused = client.get(path, headers={"Host": "evil.example:8000"})
        assert refused.status_code == 400
        assert refused.text == "Invalid host header"


@pytest.mark.parametrize(
    ("listening", "named", "status"),
    [
        ("127.0.0.2", "127.0.0.2", 200),
        ("127.0.0.2", "localhost", 200),
        ("MyBox", "mybox", 200),
        ("127.0.0.1", "127.0.0.2", 400),
    ],
)
def test_the_address_that_is_announced_is_answered(
    listening: str, named: str, status: int, workspace: Workspace, model: Recommender
) -> None:
    about = describe(workspace.run / "checkpoint", model)
    app = make_app(model, about, allowed_hosts(listening, is_loopback=True))
    client = TestClient(app, base_url=f"http://{named}:8000")
    assert client.get("/api/health").status_code == status


def test_every_answer_has_the_headers_and_the_page_needs_nothing_from_elsewhere(
    client: TestClient,
) -> None:
    files = sorted(file.name for file in PAGE.iterdir())
    assert files == ["icon.svg", "index.html", "page.css", "page.js"]
    paths = ["/", *(f"/{name}" for name in files), "/api/model", "/openapi.json", "/nothing"]
    for path in paths:
        response = client.get(path)
        assert response.status_code == (404 if path == "/nothing" else 200)
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
        if path.startswith("/page.") or path == "/":
            assert not re.search(r"https?:|[\"'(]//|@import", response.text)
    assert "default-src 'self'" in HEADERS["Content-Security-Policy"]
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    assert "innerHTML" not in client.get("/page.js").text


def test_the_schema_lists_and_describes_everything(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    found = {
        f"{method} {path}": operation
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    }
    assert set(found) == {
        "get /api/health",
        "get /api/model",
        "get /api/movies",
        "get /api/movies/popular",
        "get /api/movies/{movieId}/similar",
        "post /api/recommendations",
        "post /api/predictions",
    }
    for operation in found.values():
        assert operation["summary"]
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"]["description"], parameter
    problem = {"$ref": "#/components/schemas/Problem"}
    answers = found["post /api/predictions"]["responses"]
    assert set(answers) == {"200", "400", "408", "413", "422", "501", "503"}
    assert answers["422"]["content"]["application/json"]["schema"] == problem
    assert "404" in found["get /api/movies/{movieId}/similar"]["responses"]
    assert "movieId" in schema["components"]["schemas"]["OwnRating"]["properties"]
    assert all(part.get("description") for part in schema["components"]["schemas"].values())
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404


OWN = METRICS["raw"] | {"notices": ["a warning"], "attribution": []}
OWN_AND_TMDB = OWN | {"notices": ["a warning", TMDB_ATTRIBUTION], "attribution": [TMDB_ATTRIBUTION]}
NETFLIX = OWN | {"notices": [NETFLIX_CITATION], "attribution": [NETFLIX_CITATION]}
EARLIER = {key: METRICS["raw"][key] for key in ("tmdb_coverage", "notices")}
"""What a run of an earlier release recorded of its data."""
UNKNOWN = [
    "The training data of this model is not recorded beside it. If it was MovieLens or TMDb, the "
    "following applies:",
    MOVIELENS_CITATION,
    TMDB_ATTRIBUTION,
]
SYNTHETIC = "The movies and ratings are synthetic: generated by a program."


@pytest.mark.parametrize(
    ("metrics", "notices"),
    [
        (METRICS, [MOVIELENS_CITATION, TMDB_ATTRIBUTION]),
        (METRICS | {"raw": OWN}, []),
        (METRICS | {"raw": OWN_AND_TMDB}, [TMDB_ATTRIBUTION]),
        (METRICS | {"raw": NETFLIX}, [NETFLIX_CITATION]),
        (METRICS | {"raw": OWN, "synthetic": True}, [SYNTHETIC]),
        (METRICS | {"raw": EARLIER}, UNKNOWN),
        (METRICS | {"raw": EARLIER, "synthetic": True}, [SYNTHETIC]),
        (None, UNKNOWN),
    ],
    ids=[
        "movielens",
        "own",
        "own-tmdb",
        "netflix",
        "synthetic",
        "earlier",
        "earlier-synthetic",
        "none",
    ],
)
def test_what_is_noted_of_a_model_is_told(
    metrics: dict[str, Any] | None, notices: list[str], tmp_path: Path
) -> None:
    workspace = kept(tmp_path, CLOSED)
    if metrics:
        (workspace.run / "metrics.json").write_json(metrics)
    about = client_of(workspace).get("/api/model").json()
    assert (about["numMovies"], about["numUsers"]) == (5, 2)
    assert (about["ratingMin"], about["ratingMax"]) == (0.5, 5.0)
    assert about["takesRatings"]
    assert about["givesReasons"]
    assert about["notices"] == notices
    if metrics is None:
        assert (about["name"], about["dataset"], about["test"]) == ("checkpoint", None, None)
        assert about["notices"][0].startswith("The training data of this model is not recorded")
    else:
        assert (about["name"], about["dataset"]) == ("made", "ml-latest-small")
        assert about["test"] == {"rmse": 0.79, "mae": 0.6, "r2": 0.43, "numRatings": 20_168}


def test_a_search_tells_ids_and_how_often_a_movie_was_rated(client: TestClient) -> None:
    found = client.get("/api/movies", params={"query": "toy"}).json()
    toy_story = {"movieId": 1, "title": TITLES[0], "year": 1995, "genres": ["Comedy"]}
    toy_story |= {"numRatings": 2, "close": False, "matched": None}
    assert found == {"movies": [toy_story]}


def ids_of(client: TestClient, path: str, **params: str) -> list[int]:
    return [each["movieId"] for each in client.get(path, params=params).json()["movies"]]


def test_popular_movies_are_the_most_often_rated(client: TestClient) -> None:
    assert ids_of(client, "/api/movies/popular") == [1, 6, 20, 30, 40]
    assert ids_of(client, "/api/movies/popular", genre="Drama", limit="2") == [6, 20]
    assert ids_of(client, "/api/movies/popular", genre="Western") == []
    assert client.get("/api/movies/popular", params={"limit": 0}).status_code == 422


def test_movies_are_found_by_genre_after_their_titles(client: TestClient) -> None:
    found = client.get("/api/movies", params={"query": "comed"}).json()["movies"]
    assert [(each["movieId"], each["matched"]) for each in found] == [
        (1, "Comedy"),
        (20, "Comedy"),
        (40, "Comedy"),
    ]
    assert ids_of(client, "/api/movies", query="1995", genre="Drama") == [6]
    assert ids_of(client, "/api/movies", query="co") == []


def test_movies_are_found_by_the_people_in_them(workspace: Workspace) -> None:
    stored = workspace.run / "checkpoint"
    rows = [
        {"movie_id": 6, "people": ["Michael Mann", "Al Pacino", "Robert De Niro"]},
        {"movie_id": 20, "people": ["Joel Coen", "Frances McDormand"]},
        {"movie_id": 40, "people": ["Al Pacino", "Toy Maker"]},
        {"movie_id": 999, "people": ["Someone Else"]},
    ]
    (stored / people.FILE).write_table(pa.Table.from_pylist(rows, schema=people.SCHEMA))
    model = recommender(workspace)
    about = describe(stored, model)
    assert about.knows_people
    app = make_app(model, about, ("testserver",), people.read_people(stored))
    client = TestClient(app)
    found = client.get("/api/movies", params={"query": "pacino al"}).json()["movies"]
    assert [(each["movieId"], each["matched"]) for each in found] == [
        (6, "Al Pacino"),
        (40, "Al Pacino"),
    ]
    assert ids_of(client, "/api/movies", query="coen") == [20]
    # Titles first.
    assert ids_of(client, "/api/movies", query="toy") == [1, 40]
    assert ids_of(client, "/api/movies", query="someone else") == []
    (stored / people.FILE).delete()


def test_replicas_share_a_port_that_is_taken_for_others() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listening("127.0.0.1", port) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", port)):
            pass


# -- the command, as far as it comes without Ray ---------------------------------------------------


@pytest.fixture
def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def serving(folder: Path, *arguments: str) -> int:
    settings = ["--set", f"storage={folder}", "--set", "name=made"]
    return main(serve.command, [*settings, *arguments])


@pytest.mark.usefixtures("without_cluster")
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--set", "name=absent"], 1, "no trained model in .* Train it with movie-ratings train"),
        (["--checkpoint", "nowhere"], 1, "there is no folder .*nowhere; --checkpoint takes"),
        (["--set", "ray.address=127.0.0.1:1"], 1, "cannot reach the Ray cluster at 127.0.0.1:1"),
        (["--set", "serve.replicas=0"], 2, "replicas must be 1 or more"),
        (["--set", 'serve.replicas="3-2"'], 2, 'expected a whole number, or a range such as "1-8"'),
        (["--set", "serve.replicas=9999"], 1, "serve.replicas = 9999 need a CPU each"),
        (["--host", "a..b"], 2, "--host is 'a..b', which is no IPv4 address"),
        (["--host", "no.such.invalid"], 2, "--host is 'no.such.invalid', which is no IPv4 address"),
    ],
)
def test_what_cannot_be_served_is_told_before_ray_is_started(
    arguments: list[str],
    code: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept(tmp_path, CLOSED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert serving(tmp_path, "--port", port, *arguments) == code
    assert re.search(told, capsys.readouterr().err)
    assert not ray.is_initialized()


@pytest.mark.usefixtures("without_cluster")
def test_a_taken_port_and_a_damaged_model_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serving(tmp_path, "--port", str(port)) == 1
    assert f"cannot listen at port {port} of 127.0.0.1" in capsys.readouterr().err
    (workspace.run / "checkpoint" / "fitted.json").write_text("{}")
    assert serving(tmp_path) == 1
    assert "cannot read the checkpoint" in capsys.readouterr().err


def test_without_the_packages_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert serving(tmp_path) == 1
    assert "pip install 'movielens-ray-tune[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_cannot_be_is_refused(
    port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serving(tmp_path, "--port", port) == 2
    told = capsys.readouterr().err
    assert "Invalid value for '--port'" in told
    assert port in told
