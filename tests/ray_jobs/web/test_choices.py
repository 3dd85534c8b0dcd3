"""Recommendations by choice over the API, against the same models asked directly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ncf.config import ModelConfig
from ncf.inference.choice_checkpoint import Member
from ncf.inference.explanations import Explanation
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import Recommender
from ray_jobs.results.run import Workspace
from ray_jobs.web.about import describe
from ray_jobs.web.app import make_app
from ray_jobs.web.new_user_stars import NewUserStars
from ray_jobs.web.reasons import why
from tests.ray_jobs.made import (
    CLOSED,
    FITTED,
    METRICS,
    NEWEST,
    PLAIN,
    complete,
    kept,
    recommender,
)
from tests.ray_jobs.web.made_choices import CHOICE_METRICS, NUM_MOVIES, TIMED, kept_choices

RATED: Final = {11: 5.0, 201: 0.5, 61: 3.0, 331: 4.5}
MINE: Final = [{"movieId": movie, "rating": stars} for movie, stars in RATED.items()]
ORDINAL = TIMED.model_copy(update={"head": "ordinal"})
OF_USERS = TIMED.model_copy(update={"inputs": ("user", "genres", "time"), "biases": ("user",)})
"""A Gaussian process beside parameters of single users."""
ROUNDING: Final = 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a replica."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def app_of(workspace: Workspace) -> FastAPI:
    model = recommender(workspace)
    return make_app(model, describe(workspace.paths.checkpoint, model))


def client_of(workspace: Workspace) -> TestClient:
    return TestClient(app_of(workspace), raise_server_exceptions=False)


def best_of(client: TestClient, **request: Any) -> list[dict[str, Any]]:
    response = client.post("/api/recommendations", json={"ratings": MINE} | request)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["recommendations"]
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return kept_choices(tmp_path_factory.mktemp("both"), TIMED)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return kept_choices(tmp_path_factory.mktemp("alone"))


def folded_in(workspace: Workspace) -> Recommender:
    return recommender(workspace).fold_in(list(RATED), list(RATED.values()))


# -- what is recommended ---------------------------------------------------------------------------


def test_the_order_is_that_of_the_choice_model_with_stars_beside(both: Workspace) -> None:
    found = best_of(client_of(both), n=7)
    theirs = folded_in(both)
    assert theirs.choices is not None
    assert theirs.own is not None
    best = theirs.choices.best(theirs.own, theirs.own, 7, min_ratings=3)
    ids = theirs.preprocessor.movies.ids[best.movies[0]]
    assert [row["movieId"] for row in found] == ids.tolist()
    assert [row["title"] for row in found] == [theirs.title(movie) for movie in ids]
    assert set(RATED).isdisjoint(ids)
    np.testing.assert_allclose([row["score"] for row in found], best.scores[0], atol=ROUNDING)
    stars = theirs.predict(0, ids)
    np.testing.assert_allclose([row["stars"] for row in found], stars, atol=ROUNDING)
    assert len(set(stars.tolist())) > 1
    assert {row["reasons"] for row in found} == {row["choiceReasons"] for row in found} == {None}


def test_reasons_add_up_to_the_score_and_to_the_stars(both: Workspace) -> None:
    found = best_of(client_of(both), n=5, reasons=1)
    theirs = folded_in(both)
    movies = [row["movieId"] for row in found]
    chosen, predicted = theirs.explain_choices(0, movies), theirs.explain(0, movies)
    for row, choice, prediction in zip(found, chosen, predicted, strict=True):
        of_choice = row["choiceReasons"]
        named = [*of_choice["raised"], *of_choice["lowered"], of_choice["others"]]
        total = of_choice["context"] + sum(part["adds"] for part in named)
        assert of_choice["score"] == pytest.approx(total, abs=1e-5)
        assert of_choice["score"] == pytest.approx(choice.score, abs=1e-5)
        added = dict(zip(choice.rated.tolist(), choice.added.tolist(), strict=True))
        for part, most in ((of_choice["raised"], max), (of_choice["lowered"], min)):
            for one in part:
                assert one["adds"] == pytest.approx(most(added.values()), abs=1e-5)
                assert one["adds"] == pytest.approx(added[one["movieId"]], abs=1e-5)
                assert one["rating"] == RATED[one["movieId"]]
        num_named = len(of_choice["raised"]) + len(of_choice["lowered"])
        assert of_choice["others"]["count"] == len(RATED) - num_named
        stars = row["reasons"]
        parts = [*stars["base"], *stars["raised"], *stars["lowered"], stars["others"]]
        total = sum(part["adds"] for part in parts)
        assert stars["prediction"] == pytest.approx(total, abs=1e-5)
        assert stars["prediction"] == pytest.approx(prediction.prediction, abs=ROUNDING)
        assert row["stars"] == pytest.approx(np.clip(stars["prediction"], 0.5, 5), abs=ROUNDING)


@pytest.fixture(scope="module", params=[False, True], ids=["network", "blend"])
def completed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """With intervals, and with or without a blend."""
    folder = tmp_path_factory.mktemp("completed")
    return complete(kept_choices(folder, TIMED), blended=request.param)


@pytest.mark.parametrize("order", ["choice", "stars"])
def test_stars_come_with_their_intervals_and_reasons(order: str, completed: Workspace) -> None:
    found = best_of(client_of(completed), n=6, order=order, interval=0.8, reasons=2, minRatings=0)
    theirs = folded_in(completed)
    movies = [row["movieId"] for row in found]
    expected = theirs.predict_intervals(0, movies, level=0.8)
    np.testing.assert_allclose([row["stars"] for row in found], expected.stars, atol=ROUNDING)
    for at, row in enumerate(found):
        interval = row["interval"]
        ends = (interval["low"], interval["high"], interval["standardDeviation"])
        of_row = (expected.low[at], expected.high[at], expected.sd[at])
        assert ends == pytest.approx(of_row, abs=ROUNDING)
        assert interval["level"] == 0.8
        sums, (known,) = row["reasons"], theirs.explain(0, row["movieId"])
        parts = [*sums["base"], *sums["features"], *sums["raised"], *sums["lowered"]]
        total = sum(part["adds"] for part in parts) + sums["others"]["adds"]
        assert sums["prediction"] == pytest.approx(total, abs=1e-5)
        assert sums["prediction"] == pytest.approx(known.prediction, abs=ROUNDING)


def test_intervals_are_given_where_they_are_asked_for_and_known(
    completed: Workspace, both: Workspace
) -> None:
    asked = {"ratings": MINE, "movies": [401, 11]}
    client, theirs = client_of(completed), folded_in(completed)
    expected = theirs.predict_intervals(0, [401, 11], level=0.5)
    found = client.post("/api/predictions", json={**asked, "interval": 0.5}).json()["predictions"]
    assert [row["interval"]["low"] for row in found] == pytest.approx(expected.low.tolist())
    without = client.post("/api/predictions", json=asked).json()["predictions"]
    assert [row["interval"] for row in without] == [None, None]
    unknown = client_of(both).post("/api/predictions", json={**asked, "interval": 0.5})
    assert [row["interval"] for row in unknown.json()["predictions"]] == [None, None]
    for level in (0.7, "0.9", True):
        answer = client.post("/api/predictions", json={**asked, "interval": level})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("interval: ")


def test_features_of_trees_are_named_by_how_much_they_add() -> None:
    features = {"a": 0.1, "b": -0.5, "c": 0.3, "d": -0.02, "e": 0.01}
    none = np.zeros(0, np.float32)
    known = Explanation(1, 3.0, {"network": 3.11}, none.astype(np.int64), none, none, features)
    table = FITTED.movies
    shown = why(known, 1, table).features
    assert [part.name for part in shown] == ["b", "c", "other features"]
    assert [part.adds for part in shown] == pytest.approx([-0.5, 0.3, 0.09])
    assert why(replace(known, features={}), 1, table).features == ()


@pytest.mark.parametrize("order", ["stars", "stars+popularity", "lower_bound"])
def test_other_orders_are_the_rating_models(order: Any, both: Workspace) -> None:
    response = client_of(both).post(
        "/api/recommendations",
        json={"ratings": MINE, "n": 5, "order": order, "minRatings": 2, "reasons": 1},
    )
    assert response.json()["order"] == order
    found = response.json()["recommendations"]
    expected = folded_in(both).recommend(0, 5, list(RATED), Ordering(order, 2))
    assert expected.stars is not None
    assert [row["movieId"] for row in found] == expected.movies.tolist()
    np.testing.assert_allclose([row["stars"] for row in found], expected.stars, atol=ROUNDING)
    for row in found:
        assert row["reasons"] is not None
        assert row["choiceReasons"] is None


def test_movies_with_fewer_ratings_come_only_if_they_are_asked_for(alone: Workspace) -> None:
    client, counts = client_of(alone), recommender(alone).preprocessor.movies.train_counts
    for at_least in (0, 1, 5):
        found = best_of(client, n=NUM_MOVIES, minRatings=at_least)
        rated = sum(counts[(movie - 1) // 10] >= at_least for movie in RATED)
        assert len(found) == (counts >= at_least).sum() - rated
    default = [row["movieId"] for row in best_of(client, n=NUM_MOVIES)]
    assert default == [row["movieId"] for row in best_of(client, n=NUM_MOVIES, minRatings=3)]
    assert best_of(client, n=NUM_MOVIES, minRatings=1000, reasons=2) == []


# -- many at once ----------------------------------------------------------------------------------


def asked(generator: np.random.Generator, number: int) -> dict[str, Any]:
    """Different users, who want different things."""
    count = int(generator.integers(1, 30)) if number else 1
    movies = generator.choice(NUM_MOVIES, count, replace=False) * 10 + 1
    times = generator.integers(0, 2 * NEWEST, count)
    ratings = [
        {"movieId": int(movie), "rating": int(generator.integers(1, 11)) / 2}
        | ({"timestamp": int(time)} if number % 2 else {})
        for movie, time in zip(movies, times, strict=True)
    ]
    return {
        "ratings": ratings,
        "n": int(generator.integers(1, 4)) * 5,
        "minRatings": int(generator.integers(0, 3)),
        "reasons": number % 3,
    }


async def answers_at_once(app: FastAPI, requests: Sequence[dict[str, Any]]) -> list[Any]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
        posts = (client.post("/api/recommendations", json=request) for request in requests)
        return [response.json() for response in await asyncio.gather(*posts)]


def assert_close(found: Any, expected: Any) -> None:
    """Equal but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=ROUNDING)
    else:
        assert found == expected


RATING_MODELS: Final = [
    pytest.param(TIMED, True, id="Gaussian process"),
    pytest.param(ORDINAL, True, id="ordinal"),
    pytest.param(OF_USERS, False, id="with parameters of users"),
    pytest.param(PLAIN, False, id="takes no ratings"),
    pytest.param(None, False, id="none"),
]


@pytest.mark.parametrize(("config", "together"), RATING_MODELS)
def test_requests_at_once_are_answered_as_each_alone(
    config: ModelConfig | None, *, together: bool, tmp_path: Path
) -> None:
    workspace = kept_choices(tmp_path, config)
    model, app = recommender(workspace), app_of(workspace)
    if model.rating_model:
        assert NewUserStars.takes(model.rating_model) is together
    generator = np.random.default_rng(3)
    requests = [asked(generator, number) for number in range(36)]
    found = asyncio.run(answers_at_once(app, requests))
    client = TestClient(app)
    for request, answer in zip(requests, found, strict=True):
        alone = client.post("/api/recommendations", json=request).json()
        assert answer["order"] == "choice"
        assert_close(answer, alone)
        expected = directly(model, request)
        assert [row["movieId"] for row in answer["recommendations"]] == expected.movies.tolist()
        if config:
            stars = [row["stars"] for row in answer["recommendations"]]
            np.testing.assert_allclose(stars, expected.stars, atol=ROUNDING)


def directly(model: Recommender, request: dict[str, Any]) -> Any:
    ratings = request["ratings"]
    movies, stars = [r["movieId"] for r in ratings], [r["rating"] for r in ratings]
    times = [r["timestamp"] for r in ratings] if "timestamp" in ratings[0] else None
    ordering = Ordering("auto", request["minRatings"])
    return model.fold_in(movies, stars, times).recommend(0, request["n"], movies, ordering)


def test_a_wrong_request_among_others_fails_alone(both: Workspace) -> None:
    unknown = {"ratings": [{"movieId": 777, "rating": 4}]}
    requests: list[Any] = [{"ratings": MINE}, unknown, {"ratings": MINE, "n": 3}]
    first, wrong, last = asyncio.run(answers_at_once(app_of(both), requests))
    assert "777 (at position 0)" in wrong["detail"]
    assert len(first["recommendations"]) == 10
    assert len(last["recommendations"]) == 3


# -- what a model can do ---------------------------------------------------------------------------


def test_a_choice_model_alone_ranks_and_explains_but_predicts_no_stars(alone: Workspace) -> None:
    client = client_of(alone)
    about = client.get("/api/model").json()
    assert about["ranksByChoice"]
    assert about["takesRatings"]
    assert about["givesReasons"]
    assert about["predictsStars"] is False
    assert about["orders"] == ["choice"]
    for row in best_of(client, reasons=2):
        assert row["stars"] is row["reasons"] is None
        assert row["choiceReasons"]["raised"]
    assert len(client.get("/api/movies/11/similar").json()["similar"]) == 10
    refused = client.post("/api/predictions", json={"ratings": MINE, "movies": [11]})
    assert refused.status_code == 501
    assert "only a choice model here, so no rating can be predicted" in refused.json()["detail"]
    refused = client.post("/api/recommendations", json={"ratings": MINE, "order": "stars"})
    assert refused.status_code == 501


def test_what_each_kind_of_model_can_do_is_told(both: Workspace, tmp_path: Path) -> None:
    about = client_of(both).get("/api/model").json()
    assert about["orders"] == ["choice", "stars", "stars+popularity", "lower_bound"]
    assert about["ranksByChoice"]
    assert about["predictsStars"]
    plain = client_of(kept_choices(tmp_path / "plain", PLAIN)).get("/api/model").json()
    assert plain["orders"] == ["choice"]
    assert plain["takesRatings"]
    assert plain["predictsStars"]
    rating = client_of(kept(tmp_path / "rating", CLOSED)).get("/api/model").json()
    assert rating["orders"] == ["stars", "stars+popularity", "lower_bound"]
    assert rating["ranksByChoice"] is False
    closed = client_of(kept(tmp_path / "closed", PLAIN)).get("/api/model").json()
    assert closed["orders"] == []
    assert closed["takesRatings"] is False


@pytest.mark.parametrize("member", ["ease", "network"])
def test_a_single_member_ranks_too(member: Member, tmp_path: Path) -> None:
    workspace = kept_choices(tmp_path, PLAIN, member)
    client = client_of(workspace)
    expected = folded_in(workspace).recommend(0, 10, list(RATED))
    assert [row["movieId"] for row in best_of(client)] == expected.movies.tolist()
    can = client.get("/api/model").json()["givesReasons"]
    assert can is (member == "ease")
    response = client.post("/api/recommendations", json={"ratings": MINE, "reasons": 1})
    assert response.status_code == (200 if can else 501)
    if not can:
        assert "so there are no reasons to show" in response.json()["detail"]


def test_unknown_orders_are_refused_with_those_that_there_are(
    both: Workspace, tmp_path: Path
) -> None:
    client = client_of(both)
    response = client.post("/api/recommendations", json={"ratings": MINE, "order": "best"})
    assert response.status_code == 422
    told = response.json()["detail"]
    assert told.startswith("order: ")
    for order in ("auto", "choice", "stars", "stars+popularity", "lower_bound"):
        assert f"'{order}'" in told
    response = client.post("/api/recommendations", json={"ratings": MINE, "minRatings": -1})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("minRatings: ")
    rating = client_of(kept(tmp_path, CLOSED))
    mine = [{"movieId": 1, "rating": 4}]
    response = rating.post("/api/recommendations", json={"ratings": mine, "order": "choice"})
    assert response.status_code == 501
    assert "needs a choice model" in response.json()["detail"]


@pytest.mark.parametrize("has_errors", [True, False])
def test_test_figures_and_attributions_are_told(*, has_errors: bool, tmp_path: Path) -> None:
    workspace = kept_choices(tmp_path, TIMED if has_errors else None)
    workspace.paths.choice_metrics.write_json(CHOICE_METRICS)
    if has_errors:
        workspace.paths.metrics.write_json(METRICS)
    about = client_of(workspace).get("/api/model").json()
    assert about["testRankings"] == {"ndcg10": 0.31, "numUsers": 9}
    assert (about["test"] is not None) is has_errors
    assert (about["name"], about["dataset"]) == ("made", "ml-latest-small")
    assert about["notices"] == METRICS["raw"]["attribution"]
