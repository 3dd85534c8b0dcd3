"""What the API takes and gives, as JSON; ``/openapi.json`` is made of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

MOST_MOVIES: Final = 100
"""That one answer names."""
MOST_RATINGS: Final = 1000
"""That one request brings."""
_MOST_REASONS: Final = 10

MovieId = Annotated[int, Field(ge=0, lt=2**63, description="Id of the data set.")]
NumReasons = Annotated[
    int,
    Field(
        ge=0,
        le=_MOST_REASONS,
        description="How many ratings to name at most that raised a prediction, and as many that "
        "lowered it; 0 leaves the reasons out.",
    ),
]


class _Json(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class Problem(_Json):
    """Why there is no other answer."""

    detail: str = Field(description="What was found, what was expected, and what to do.")


class Health(_Json):
    """The model is loaded and answers."""

    status: Literal["ok"] = "ok"


class TestErrors(_Json):
    """How far predictions are off, on ratings that were held out."""

    rmse: float = Field(description="Root of the mean squared error, in stars.")
    mae: float = Field(description="Mean absolute error, in stars.")
    r2: float = Field(description="Share of the variance that is explained.")
    num_ratings: int = Field(description="Ratings that this was measured on.")


class ModelInfo(_Json):
    """The model behind the page."""

    name: str = Field(description="Name of the run, or of the checkpoint's folder.")
    dataset: str | None = Field(description="What it was trained on, if that is known.")
    num_movies: int = Field(description="Movies in the catalogue.")
    num_users: int = Field(description="Users with a training rating.")
    rating_min: float = Field(description="Lowest rating it knows, in stars.")
    rating_max: float = Field(description="Highest rating it knows, in stars.")
    takes_ratings: bool = Field(
        description="Whether it can use the ratings of somebody new: whether recommendations and "
        "predictions work."
    )
    gives_reasons: bool = Field(
        description="Whether it can say what each of the given ratings adds to a prediction."
    )
    test: TestErrors | None = Field(description="Test errors, if they are known.")
    notices: tuple[str, ...] = Field(description="What must be said with the data it was made of.")


class Movie(_Json):
    """A movie of the catalogue."""

    movie_id: MovieId
    title: str = Field(description="As released.")


class FoundMovie(Movie):
    """A movie that a search found."""

    num_ratings: int = Field(description="Training ratings.")
    close: bool = Field(
        description="Whether the query is not in the title, which is only spelt like it."
    )


class FoundMovies(_Json):
    """Result of a search, best first."""

    movies: tuple[FoundMovie, ...]


class LikeMovie(Movie):
    """A movie that is like another."""

    similarity: float = Field(description="At most 1.")


class LikeMovies(_Json):
    """Movies like one, the most alike first."""

    movie: Movie
    similar: tuple[LikeMovie, ...]


class OwnRating(_Json):
    """A rating of the one who asks."""

    movie_id: MovieId
    rating: float = Field(
        allow_inf_nan=False, description="Stars, from ratingMin to ratingMax of /api/model."
    )
    timestamp: int | None = Field(
        default=None,
        ge=0,
        lt=2**33,
        description="When it was given, seconds since 1970 UTC, of all ratings or of none. Without "
        "it they are of the day of the newest training rating.",
    )


class _Asked(_Json):
    ratings: tuple[OwnRating, ...] = Field(
        min_length=1, max_length=MOST_RATINGS, description="Each movie once."
    )
    reasons: NumReasons = 0

    @model_validator(mode="after")
    def _each_movie_once(self) -> Self:
        first: dict[int, int] = {}
        for position, own in enumerate(self.ratings):
            if own.movie_id in first:
                raise ValueError(
                    f"movie {own.movie_id} is rated at positions {first[own.movie_id]} and "
                    f"{position}; expected each movie once"
                )
            first[own.movie_id] = position
        return self

    @model_validator(mode="after")
    def _times_of_all_or_none(self) -> Self:
        timed = sum(own.timestamp is not None for own in self.ratings)
        if timed not in (0, len(self.ratings)):
            raise ValueError(
                f"{timed} of {len(self.ratings)} ratings have a timestamp; expected all or none"
            )
        return self


class RecommendationsRequest(_Asked):
    """Whose recommendations are asked for, by ratings."""

    n: int = Field(default=10, ge=1, le=MOST_MOVIES, description="How many movies.")


class PredictionsRequest(_Asked):
    """Whose predictions are asked for, by ratings, and for which movies."""

    movies: tuple[MovieId, ...] = Field(
        min_length=1, max_length=MOST_MOVIES, description="Movies to predict the rating of."
    )


class Part(_Json):
    """A part of a prediction that comes from none of the ratings alone."""

    name: str = Field(description="network (with the mean rating), biases, or factors.")
    adds: float = Field(description="Stars.")


class RatingPart(Movie):
    """What one of the given ratings adds to a prediction."""

    rating: float = Field(description="As given, in the unit that the model was trained in.")
    adds: float = Field(description="Stars.")


class OtherParts(_Json):
    """What the ratings that are not named add together."""

    count: int
    adds: float = Field(description="Stars.")


class Why(_Json):
    """A prediction as a sum: base, raised, lowered and others add up to it."""

    prediction: float = Field(description="Not clipped to the range of ratings.")
    base: tuple[Part, ...]
    raised: tuple[RatingPart, ...] = Field(description="Ratings that raised it most, best first.")
    lowered: tuple[RatingPart, ...] = Field(
        description="Ratings that lowered it most, worst first."
    )
    others: OtherParts


class Predicted(Movie):
    """A movie with its predicted rating."""

    stars: float = Field(description="Predicted rating, within the range of ratings.")
    reasons: Why | None = Field(description="If they were asked for.")


class Recommendations(_Json):
    """Movies that were not rated, with the highest predicted rating first."""

    recommendations: tuple[Predicted, ...]


class Predictions(_Json):
    """The asked movies, in their order."""

    predictions: tuple[Predicted, ...]
