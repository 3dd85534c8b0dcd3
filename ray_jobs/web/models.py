"""Requests and responses of the API as JSON; ``/openapi.json`` is generated from them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from ncf.evaluation.uncertainty import LEVELS
from ncf.inference.ordering import DEFAULT_ORDERING, OrderName

MOST_MOVIES: Final = 100
"""Maximum movies in a response."""
MOST_RATINGS: Final = 1000
"""Maximum ratings in a request."""
_MOST_REASONS: Final = 10

# Strict: a text or a truth value is no number, as the schema says.
LARGEST_ID: Final = 2**63 - 1024
"""The largest number below 2**63 that programs without 64-bit integers can hold."""
MovieId = Annotated[int, Field(strict=True, ge=0, le=LARGEST_ID, description="Id of the data set.")]
NumReasons = Annotated[
    int,
    Field(
        strict=True,
        ge=0,
        le=_MOST_REASONS,
        description="Maximum number of ratings named that raised a prediction or score, and of "
        "those that lowered it; 0 omits the reasons.",
    ),
]


class _Json(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class Problem(_Json):
    """The reason why a request failed."""

    detail: str = Field(description="What was found, what was expected, and what to do.")


class Health(_Json):
    """The model is loaded and responds."""

    status: Literal["ok"] = "ok"


class TestErrors(_Json):
    """Errors of predictions on held-out ratings."""

    rmse: float = Field(description="Root of the mean squared error, in stars.")
    mae: float = Field(description="Mean absolute error, in stars.")
    r2: float = Field(description="Share of the variance that is explained.")
    num_ratings: int = Field(description="Number of held-out ratings.")


class TestRankings(_Json):
    """Scores of rankings by choice, on held-out ratings."""

    ndcg10: float = Field(
        description="Mean NDCG over the first ten movies; relevant are held-out ratings of at "
        "least four stars."
    )
    num_users: int = Field(description="Users with a relevant movie.")


class ModelInfo(_Json):
    """The models behind the page."""

    name: str = Field(description="Name of the run, or of the checkpoint's folder.")
    dataset: str | None = Field(description="Data set that it was trained on, if known.")
    num_movies: int = Field(description="Movies in the catalogue.")
    num_users: int = Field(description="Users with a training rating.")
    rating_min: float = Field(description="Lowest training rating, in stars.")
    rating_max: float = Field(description="Highest training rating, in stars.")
    ranks_by_choice: bool = Field(
        description="Whether it can order recommendations by what the user is likely to choose."
    )
    predicts_stars: bool = Field(description="Whether it predicts ratings.")
    takes_ratings: bool = Field(
        description="Whether it can fold in a new user, as recommendations do."
    )
    gives_reasons: bool = Field(
        description="Whether it can explain a prediction, or a score of a choice, as a sum over "
        "the given ratings."
    )
    explains_stars: bool = Field(
        description="Whether it can explain predicted ratings; else givesReasons is of choices."
    )
    orders: tuple[OrderName, ...] = Field(
        description="By what recommendations for given ratings can be ordered; the first is what "
        "auto means."
    )
    genres: tuple[str, ...] = Field(description="Genres of movies, in alphabetical order.")
    knows_people: bool = Field(description="Whether movies are found by their directors and cast.")
    test: TestErrors | None = Field(description="Test errors of predicted ratings, if known.")
    test_rankings: TestRankings | None = Field(
        description="Test scores of rankings by choice, if known."
    )
    notices: tuple[str, ...] = Field(description="Attributions that its data require.")


class Movie(_Json):
    """A movie of the catalogue."""

    movie_id: MovieId
    title: str = Field(description="As released.")


class FoundMovie(Movie):
    """A movie found by a search."""

    year: int | None = Field(description="Year of release, if the title has it.")
    genres: tuple[str, ...]
    num_ratings: int = Field(description="Training ratings.")
    matched: str | None = Field(
        description="The person or genre that the query means, if not the title."
    )
    close: bool = Field(
        description="Whether the title only has a similar spelling and does not contain the query."
    )


class FoundMovies(_Json):
    """Result of a search, best first."""

    movies: tuple[FoundMovie, ...]


class LikeMovie(Movie):
    """A movie similar to another."""

    similarity: float = Field(description="At most 1.")


class LikeMovies(_Json):
    """Movies similar to one, most similar first."""

    movie: Movie
    similar: tuple[LikeMovie, ...]


def _known_level(level: float) -> float:
    if level not in LEVELS:
        raise ValueError(f"found {level!r}, expected one of {', '.join(map(str, LEVELS))}")
    return level


Level = Annotated[
    float,
    Field(strict=True, json_schema_extra={"enum": list(LEVELS)}),
    AfterValidator(_known_level),
]


class OwnRating(_Json):
    """A rating by the requesting user."""

    movie_id: MovieId
    rating: float = Field(
        strict=True,
        allow_inf_nan=False,
        description="Stars, from ratingMin to ratingMax of /api/model.",
    )
    timestamp: int | None = Field(
        default=None,
        strict=True,
        ge=0,
        lt=2**33,
        description="Time of the rating, in seconds since 1970 UTC, for all ratings or for none. "
        "Defaults to the day of the newest training rating.",
    )


class _Request(_Json):
    ratings: tuple[OwnRating, ...] = Field(
        min_length=1, max_length=MOST_RATINGS, description="Each movie once."
    )
    reasons: NumReasons = 0
    interval: Level | None = Field(
        default=None,
        description="Also return intervals that hold this share of ratings, if the model was "
        "trained with validation rows.",
    )

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


class RecommendationsRequest(_Request):
    """Ratings of a user to recommend movies to."""

    n: int = Field(default=10, strict=True, ge=1, le=MOST_MOVIES, description="How many movies.")
    order: OrderName = Field(
        default=DEFAULT_ORDERING.by,
        description="What the movies are ordered by. choice: how likely the user is to choose "
        "them; stars: the predicted rating; stars+popularity: that plus the logarithm of 1 + "
        "training ratings; lower_bound: that minus its standard deviation; auto: choice if "
        "ranksByChoice of /api/model, else stars.",
    )
    min_ratings: int = Field(
        default=DEFAULT_ORDERING.min_ratings,
        strict=True,
        ge=0,
        lt=2**31,
        description="Training ratings of a movie that is recommended.",
    )


class PredictionsRequest(_Request):
    """Ratings of a user, and movies to predict."""

    movies: tuple[MovieId, ...] = Field(
        min_length=1, max_length=MOST_MOVIES, description="Movies to predict the rating of."
    )


class Part(_Json):
    """A term of a prediction that does not belong to a single rating."""

    name: str = Field(
        description="network (with the mean rating), biases, or factors; of a blend, its members "
        "and features too."
    )
    adds: float = Field(description="Stars.")


class RatingPart(Movie):
    """The attribution of one of the given ratings."""

    rating: float = Field(description="The given rating, in the unit of the training data.")
    adds: float = Field(description="Stars, or a part of the score of a choice.")


class OtherParts(_Json):
    """The sum of the attributions that are not named."""

    count: int
    adds: float = Field(description="Stars, or a part of the score of a choice.")


Raised = Annotated[
    tuple[RatingPart, ...], Field(description="Ratings that raised it most, best first.")
]
Lowered = Annotated[
    tuple[RatingPart, ...], Field(description="Ratings that lowered it most, worst first.")
]


class Why(_Json):
    """A prediction as a sum: base, features, raised, lowered and others add up to it."""

    prediction: float = Field(description="Not clipped to the range of ratings.")
    base: tuple[Part, ...]
    features: tuple[Part, ...] = Field(
        description="Of a blend: the features of its trees that add or take most, and the sum of "
        "the others."
    )
    raised: Raised
    lowered: Lowered
    others: OtherParts


class WhyChosen(_Json):
    """The part of a choice that is a sum, the score of EASE: context, raised, lowered and others
    add up to it."""

    score: float = Field(
        description="About 1 for a movie that the user would choose, 0 for others."
    )
    context: float = Field(description="Term of the time of the newest rating.")
    raised: Raised
    lowered: Lowered
    others: OtherParts


class Interval(_Json):
    """What is known of the error of a predicted rating."""

    level: float = Field(description="The share of ratings that such intervals hold.")
    low: float = Field(description="Lower end, in stars.")
    high: float = Field(description="Upper end, in stars.")
    standard_deviation: float = Field(description="Of the rating, in stars.")


class Predicted(Movie):
    """A movie with its predicted rating."""

    stars: float = Field(description="Predicted rating, within the range of ratings.")
    interval: Interval | None = Field(description="Its interval, if requested and known.")
    reasons: Why | None = Field(description="The explanation, if requested.")


class Recommended(Movie):
    """A recommended movie."""

    score: float = Field(
        description="What it is ordered by; of choices the logarithm of a probability, up to a "
        "constant of the user."
    )
    stars: float | None = Field(
        description="Predicted rating, within the range of ratings; null unless predictsStars of "
        "/api/model."
    )
    interval: Interval | None = Field(description="Its interval, if requested and known.")
    reasons: Why | None = Field(
        description="The explanation of the predicted rating, if requested and known."
    )
    choice_reasons: WhyChosen | None = Field(
        description="The explanation of the choice, if requested, known, and ordered by choice."
    )


class Recommendations(_Json):
    """Movies that the user has not rated, best first."""

    order: OrderName = Field(description="What they are ordered by; never auto.")
    recommendations: tuple[Recommended, ...]


class Predictions(_Json):
    """The requested movies, in their order."""

    predictions: tuple[Predicted, ...]
