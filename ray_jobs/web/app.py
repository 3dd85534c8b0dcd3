"""The API and the page as one FastAPI application, without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from ncf.errors import UnknownIdError, UnsupportedError
from ncf.inference import recommender
from ncf.inference.recommender import Recommender
from ray_jobs.web import models
from ray_jobs.web.middleware import Waiting, WithHeaders
from ray_jobs.web.models import MOST_MOVIES
from ray_jobs.web.search import TitleSearch

PAGE: Final = Path(__file__).parent / "page"
LARGEST_BODY: Final = 1 << 18
"""Bytes; more than twice the size of a request with ``MOST_RATINGS`` ratings."""
MOST_WAITING: Final = 64
"""Requests that may wait for a response; further ones are refused immediately."""
_NAMED: Final = 3
"""Number of faults of a request that its response names."""

Limit = Annotated[int, Query(ge=1, le=MOST_MOVIES, description="How many movies at most.")]
_Answers = dict[int | str, dict[str, Any]]


def make_app(
    recommender: Recommender, about: models.ModelInfo, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """The application for one model.

    Args:
        recommender: the model.
        about: description of the model.
        hosts: host names that requests may use; others are refused with 400, which prevents DNS
            rebinding: a page elsewhere cannot reach a server on loopback under its own name.
    """
    app = FastAPI(
        title="Movie recommendations",
        description="Predictions of a model trained with `python -m ray_jobs.train`.",
        version="1",
        # Both load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_routes(Answers(recommender, about)), prefix="/api")
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(UnsupportedError)(_unsupported)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=LARGEST_BODY)
    app.add_middleware(Waiting, most=MOST_WAITING)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(WithHeaders)
    return app


class Answers:
    """Responses of the API, computed by the model."""

    def __init__(self, recommender: Recommender, about: models.ModelInfo) -> None:
        self.about = about
        self._recommender = recommender
        self._movies = recommender.checkpoint.preprocessor.movies
        self._search = TitleSearch(self._movies)

    def found(self, query: str, limit: int) -> models.FoundMovies:
        """Movies by title."""
        return models.FoundMovies(
            movies=tuple(
                models.FoundMovie(
                    movie_id=int(self._movies.ids[i]),
                    title=self._movies.titles[i],
                    num_ratings=int(self._movies.train_counts[i]),
                    close=close,
                )
                for i, close in self._search.find(query, limit)
            )
        )

    def like(self, movie: int, limit: int) -> models.LikeMovies:
        """Movies similar to one.

        Raises:
            HTTPException: if the movie is unknown.
        """
        try:
            title = self._recommender.title(movie)
        except UnknownIdError as error:
            raise HTTPException(404, str(error)) from error
        best = self._recommender.similar(movie, limit)
        return models.LikeMovies(
            movie=models.Movie(movie_id=movie, title=title),
            similar=tuple(
                models.LikeMovie(movie_id=m, title=title, similarity=similarity)
                for m, title, similarity in zip(
                    best.movies.tolist(), best.titles, best.scores.tolist(), strict=True
                )
            ),
        )

    def recommended(self, request: models.RecommendationsRequest) -> models.Recommendations:
        """The best movies for a user's ratings; raises as ``predicted``."""
        folded_in = self._fold_in(request.ratings)
        rated = [own.movie_id for own in request.ratings]
        best = folded_in.recommend(0, request.n, rated)
        rows = _predicted(folded_in, best.movies, best.scores, request.reasons)
        return models.Recommendations(recommendations=tuple(rows))

    def predicted(self, request: models.PredictionsRequest) -> models.Predictions:
        """Predicted ratings of some movies, for a user's ratings.

        Raises:
            HTTPException: if a movie is unknown or a rating out of range.
            UnsupportedError: if the model cannot fold in a new user.
        """
        folded_in = self._fold_in(request.ratings)
        movies = np.array(request.movies, np.int64)
        try:
            stars = folded_in.predict(0, movies)
        except UnknownIdError as error:
            raise HTTPException(422, f"movies: {error}") from error
        rows = _predicted(folded_in, movies, stars, request.reasons)
        return models.Predictions(predictions=tuple(rows))

    def _fold_in(self, ratings: Sequence[models.OwnRating]) -> Recommender:
        lowest, highest = self.about.rating_min, self.about.rating_max
        for position, own in enumerate(ratings):
            if not lowest <= own.rating <= highest:
                raise HTTPException(
                    422,
                    f"ratings.{position}.rating: found {own.rating:g}, expected a number from "
                    f"{lowest:g} to {highest:g}, as in the training data",
                )
        times = [own.timestamp for own in ratings]
        try:
            return self._recommender.fold_in(
                [own.movie_id for own in ratings],
                [own.rating for own in ratings],
                None if times[0] is None else np.array(times, np.int64),
            )
        except UnknownIdError as error:
            raise HTTPException(422, f"ratings: {error}") from error


def _predicted(
    folded_in: Recommender, movies: np.ndarray, stars: np.ndarray, reasons: int
) -> Iterable[models.Predicted]:
    """A row for each movie."""
    sums = folded_in.explain(0, movies) if reasons and len(movies) else [None] * len(movies)
    for movie, predicted, why in zip(movies.tolist(), stars.tolist(), sums, strict=True):
        yield models.Predicted(
            movie_id=movie,
            title=folded_in.title(movie),
            stars=predicted,
            reasons=None if why is None else _why(folded_in, why, reasons),
        )


def _why(folded_in: Recommender, why: recommender.Explanation, at_most: int) -> models.Why:
    """The largest attributions by name, and the sum of the others."""
    order = np.argsort(-why.added, kind="stable")
    up = [int(i) for i in order[:at_most] if why.added[i] > 0]
    down = [int(i) for i in order[::-1][:at_most] if why.added[i] < 0]

    def named(i: int) -> models.RatingPart:
        movie = int(why.rated[i])
        return models.RatingPart(
            movie_id=movie,
            title=folded_in.title(movie),
            rating=float(why.ratings[i]),
            adds=float(why.added[i]),
        )

    return models.Why(
        prediction=why.prediction,
        base=tuple(models.Part(name=name, adds=adds) for name, adds in why.base.items()),
        raised=tuple(named(i) for i in up),
        lowered=tuple(named(i) for i in down),
        others=models.OtherParts(
            count=len(order) - len(up) - len(down),
            adds=float(why.added.sum() - why.added[[*up, *down]].sum()),
        ),
    )


def _problems(*codes: int) -> _Answers:
    meanings = {
        404: "The movie is unknown.",
        422: "The request is invalid.",
        501: "This kind of model does not support the request.",
        503: "Too many requests are waiting for a response; try again after Retry-After.",
    }
    return {
        code: {"model": models.Problem, "description": meanings[code]} for code in (*codes, 503)
    }


def _routes(answers: Answers) -> APIRouter:
    """All routes of the API.

    The functions are ``async`` and never await: one thread processes one request after the other.
    Meanwhile further requests wait, up to the limit of ``Waiting``.
    """
    routes = APIRouter()

    @routes.get("/health", summary="Whether the model is loaded", responses=_problems())
    async def health() -> models.Health:
        return models.Health()

    @routes.get("/model", summary="The model", responses=_problems())
    async def model() -> models.ModelInfo:
        return answers.about

    @routes.get("/movies", summary="Movies by title", responses=_problems(422))
    async def movies(
        query: Annotated[
            str,
            Query(
                min_length=1,
                max_length=200,
                description="Words of the title, or beginnings of them, in any order and case; "
                "titles spelt like it come last.",
            ),
        ],
        limit: Limit = 20,
    ) -> models.FoundMovies:
        return answers.found(query, limit)

    @routes.get(
        "/movies/{movieId}/similar",
        summary="Movies similar to one",
        responses=_problems(404, 422, 501),
    )
    async def similar(
        movie_id: Annotated[
            int, InPath(alias="movieId", ge=0, lt=2**63, description="Id of the data set.")
        ],
        limit: Limit = 10,
    ) -> models.LikeMovies:
        return answers.like(movie_id, limit)

    @routes.post(
        "/recommendations",
        summary="The best movies for a user's ratings",
        responses=_problems(422, 501),
    )
    async def recommendations(request: models.RecommendationsRequest) -> models.Recommendations:
        return answers.recommended(request)

    @routes.post(
        "/predictions",
        summary="Predicted ratings of some movies, for a user's ratings",
        responses=_problems(422, 501),
    )
    async def predictions(request: models.PredictionsRequest) -> models.Predictions:
        return answers.predicted(request)

    return routes


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
