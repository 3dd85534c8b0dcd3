"""The API and the page as one FastAPI application, without Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ncf.errors import UnsupportedError
from ncf.inference.recommender import Recommender
from ray_jobs.web import models
from ray_jobs.web.answers import Answers
from ray_jobs.web.catalogue import Catalogue
from ray_jobs.web.door import WholeBody
from ray_jobs.web.middleware import Waiting, WithHeaders
from ray_jobs.web.models import LARGEST_ID, MOST_MOVIES

PAGE: Final = Path(__file__).parent / "page"
LARGEST_BODY: Final = 1 << 18
"""Bytes; more than twice the size of a request with ``MOST_RATINGS`` ratings."""
MOST_WAITING: Final = 64
"""Requests that may wait for a response; further ones are refused immediately."""
_NAMED: Final = 3
"""Number of faults of a request that its response names."""

Limit = Annotated[int, Query(ge=1, le=MOST_MOVIES, description="How many movies at most.")]
Genre = Annotated[
    str | None, Query(max_length=200, description="Only movies of this genre, of /api/model.")
]
_Answers = dict[int | str, dict[str, Any]]


def make_app(
    recommender: Recommender,
    about: models.ModelInfo,
    hosts: Sequence[str] = ("*",),
    people: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> FastAPI:
    """The application for one model.

    Args:
        recommender: the model.
        about: description of the model.
        hosts: host names that requests may use; others are refused with 400, which prevents DNS
            rebinding: a page elsewhere cannot reach a server on loopback under its own name.
        people: names of directors and cast by movie id, for searches.
    """
    app = FastAPI(
        title="Movie recommendations",
        description="Recommendations and predictions of a model trained with "
        "`python -m ray_jobs.train`.",
        version="1",
        # Both load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(
        _routes(Answers(recommender, about), Catalogue(recommender, people)), prefix="/api"
    )
    app.router.routes.append(_Files("/", StaticFiles(directory=PAGE, html=True)))
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(UnsupportedError)(_unsupported)
    app.add_middleware(Waiting, most=MOST_WAITING)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(WholeBody, largest=LARGEST_BODY)  # what is still coming does not wait
    app.add_middleware(WithHeaders)
    return app


class _Files(Mount):
    """The files of the page, which answer for nothing below /api: a request there with another
    method gets 405 with those that there are."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for a file."""
        is_of_api = scope["type"] == "http" and scope["path"].startswith("/api/")
        return (Match.NONE, {}) if is_of_api else super().matches(scope)


def _problems(*codes: int) -> _Answers:
    meanings = {
        400: "The request is no HTTP, or names another host.",
        404: "The movie is unknown.",
        408: "The request did not come to its end in time.",
        413: "The body is too large.",
        422: "The request is invalid.",
        501: "This kind of model does not support the request.",
        503: "Too many requests are waiting for a response; try again after Retry-After.",
    }
    return {
        code: {"model": models.Problem, "description": meanings[code]}
        for code in (400, *codes, 408, 413, 503)
    }


def _routes(answers: Answers, catalogue: Catalogue) -> APIRouter:
    """All routes of the API.

    The functions are ``async`` and all run in one thread. Meanwhile further requests wait, up to
    the limit of ``Waiting``; those for recommendations by choice are then answered together.
    """
    routes = APIRouter()

    # The first, because each request is compared with one route after the other.
    @routes.post(
        "/recommendations",
        summary="The best movies for a user's ratings",
        response_model=models.Recommendations,
        responses=_problems(422, 501),
    )
    async def recommendations(request: models.RecommendationsRequest) -> Response:
        return _json(await answers.recommended(request))

    @routes.get("/health", summary="Whether the model is loaded", responses=_problems())
    async def health() -> models.Health:
        return models.Health()

    @routes.get("/model", summary="The model", responses=_problems())
    async def model() -> models.ModelInfo:
        return answers.about

    @routes.get(
        "/movies",
        summary="Movies by title, person or genre",
        responses=_problems(422),
        dependencies=[Depends(_each_once)],
    )
    async def movies(
        query: Annotated[
            str,
            Query(
                min_length=1,
                max_length=200,
                description="Words of a title, or beginnings of them, in any order and case; then "
                "of a director's or actor's name, if TMDb was used, and genres; titles spelt like "
                "it if there are no others.",
            ),
        ],
        limit: Limit = 20,
        genre: Genre = None,
    ) -> models.FoundMovies:
        return catalogue.found(query, limit, genre)

    @routes.get(
        "/movies/popular",
        summary="The most often rated movies",
        responses=_problems(422),
        dependencies=[Depends(_each_once)],
    )
    async def popular(limit: Limit = 20, genre: Genre = None) -> models.FoundMovies:
        return catalogue.popular(limit, genre)

    @routes.get(
        "/movies/{movieId}/similar",
        summary="Movies similar to one",
        responses=_problems(404, 422, 501),
        dependencies=[Depends(_each_once)],
    )
    async def similar(
        movie_id: Annotated[
            int, InPath(alias="movieId", ge=0, le=LARGEST_ID, description="Id of the data set.")
        ],
        limit: Limit = 10,
    ) -> models.LikeMovies:
        return answers.like(movie_id, limit)

    @routes.post(
        "/predictions",
        summary="Predicted ratings of some movies, for a user's ratings",
        responses=_problems(422, 501),
    )
    async def predictions(request: models.PredictionsRequest) -> models.Predictions:
        return answers.predicted(request)

    return routes


async def _each_once(request: Request) -> None:
    """Refuse a query whose parameters are given more than once; FastAPI would take the last.

    Raises:
        HTTPException: naming the parameter.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if count > 1:
            raise HTTPException(422, f"{name[:200]}: found {count} values, expected one")


def _json(answer: models.Recommendations) -> Response:
    """The answer, without FastAPI checking it again."""
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first faults of a request in one line."""
    assert isinstance(error, RequestValidationError)
    faults = [_fault(fault) for fault in error.errors()]
    further = len(faults) - _NAMED
    more = f"; and {further} further faults" if further > 0 else ""
    return JSONResponse({"detail": "; ".join(faults[:_NAMED]) + more}, 422)


def _fault(fault: dict[str, Any]) -> str:
    """Location and description of a fault."""
    if fault["type"] == "json_invalid":
        return f"the body is not valid JSON: {fault['ctx']['error']}"
    where = ".".join(str(part) for part in fault["loc"][1:]) or fault["loc"][0]
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"


async def _unsupported(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 501)
