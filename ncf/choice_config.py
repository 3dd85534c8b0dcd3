"""Settings of the choice models, which are validated when they are created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from foundation.config import Section
from ncf.registry import CHOICE_LOSSES

if TYPE_CHECKING:
    ChoiceLossName = str
else:
    # Names are checked, and listed in messages, as those of any other choice.
    ChoiceLossName = Literal[tuple(CHOICE_LOSSES)]


class ValuesConfig(Section):
    """What a rating says about a choice: a movie with more stars counts more."""

    stars: Annotated[float, Field(ge=0)] = 0.4
    """By how much a star above the user's own mean raises the value of a rating, which is 1 at the
    mean; 0 lets all ratings count the same."""
    damping: Annotated[float, Field(ge=0)] = 5.0
    """Ratings of the overall mean that are added to each user's, so that the mean of a user with
    few ratings is near the overall mean."""
    floor: Annotated[float, Field(gt=0)] = 0.05
    """Lowest value: also a movie that the user disliked was chosen."""


class EaseConfig(Section):
    """EASE: ridge regression of each movie on all others, in closed form."""

    ridges: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        560.0,
        280.0,
        140.0,
        70.0,
        35.0,
    )
    """L2 penalties, tried one after the other, all from one decomposition; the best on the
    validation rows is used, or without validation rows the first."""
    values: ValuesConfig = ValuesConfig()
    """Values of ratings."""
    content: Annotated[float, Field(ge=0)] = 3.0
    """Weight of genres, decade and numbers of the movies, which are rows beside those of users; 0
    leaves them out."""
    names: Annotated[float, Field(ge=0)] = 0.0
    """Weight of directors, cast and keywords likewise; 0 leaves them out."""
    context: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the time of the user's newest rating, as columns beside those of movies; 0 leaves
    it out."""
    user_half_life_years: Annotated[float, Field(ge=0)] = 0.0
    """Time after which a user who has left counts half in training; 0 counts all the same."""
    rating_half_life_years: Annotated[float, Field(ge=0)] = 0.0
    """Time before the user's newest rating at which a rating counts half; 0 counts all the same."""
    max_movies: Annotated[int, Field(ge=1)] = 10_000
    """With more users than movies the movies are decomposed, and only so many of them,
    the most rated ones: memory grows with the square. Others are scored by the network, or last."""


class NetworkConfig(Section):
    """The choice network."""

    users: Annotated[tuple[Literal["history", "embedding"], ...], Field(min_length=1)] = (
        "history",
    )
    """What a user's vector is the sum of. ``history``: vectors of the rated movies, each weighted
    by a learned number for its stars; ``embedding``: a vector of each training user's own, which
    new users do not have."""
    dim: Annotated[int, Field(ge=1)] = 64
    """Size of the vectors of users and movies."""
    content: bool = True
    """Whether a movie's vectors and bias depend on its genres, decade and numbers."""
    age: bool = True
    """Whether scores depend on the movie's age at the time of asking."""
    era: bool = True
    """Whether the user's vector depends on the time of asking."""
    loss: ChoiceLossName = "softmax"
    """``softmax``: the choices' likelihood among all movies that the user does not know;
    ``sampled_softmax``: an estimate of the same from movies that are drawn by their popularity;
    ``bpr``: each choice is to score higher than movies drawn by popularity; ``warp``: higher than
    movies drawn evenly, weighted by the estimated rank; ``bce``: the likelihood of each choice and
    of movies drawn evenly. All but ``softmax`` need memory for the drawn movies alone."""
    negatives: Annotated[int, Field(ge=1)] = 32
    """Movies drawn for each user of a batch, all of which are shared by its users; not used by
    ``softmax``."""
    mask: Literal["auto", "random", "forward"] = "auto"
    """How each user's ratings are divided into known ones and choices to predict, anew in each
    epoch. ``random``: at random; ``forward``: all known ones are older; ``auto``: ``random`` on a
    random split, else ``forward``."""
    stars: Annotated[float, Field(ge=0)] = 0.6
    """By how much a star above the user's mean raises the weight of a choice, as
    ``ease.values.stars``."""
    user_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Users with n choices count n to the power of 1 minus this: 0 counts all choices the same, 1
    all users."""
    l2: Annotated[float, Field(ge=0)] = 15.0
    """L2 penalty of the movies' own vectors, divided by the number of training rows."""
    bias_l2: Annotated[float, Field(ge=0)] = 2.0
    """The same for the movies' biases, whose deviation from the logarithm of the movie's number of
    ratings is penalised."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate at the start; it falls to zero along a cosine."""
    batch_users: Annotated[int, Field(ge=1)] = 128
    """Users in one optimiser step, summed over all workers."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the training users."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop after this epoch, with a schedule for ``epochs``; 0 does not."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many epochs without a better value of the search's metric on the validation
    rows; 0 never does."""
    evaluate_every: Annotated[int, Field(ge=1)] = 5
    """Epochs between rankings of the validation users; the last epoch is always ranked."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initial weights, order, masks and drawn movies."""

    @model_validator(mode="after")
    def _users_differ(self) -> Self:
        if len(set(self.users)) < len(self.users):
            raise ValueError(f"choice.network.users names one twice: {', '.join(self.users)}")
        return self


class ExpertsConfig(Section):
    """The product of both models' distributions."""

    powers: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.5,
        0.25,
        0.35,
        0.7,
        1.0,
    )
    """Powers of the network's distribution, tried with each of ``ridges``; that of EASE has power
    1. Without validation rows the first is used."""
    ridges: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Ridges of EASE that are tried; by default those of ``ease``. The network makes up for a
    lower one, which recommends more movies."""
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """Of all pairs of ridge and power that are worse than the best one, on the validation users, by
    at most so many standard errors of the difference, the one that recommends the most movies is
    used; 0 uses the best one."""
    floor: Annotated[float, Field(gt=0)] = 0.02
    """Lowest score of EASE, in standard deviations of the user's scores, of which the logarithm is
    taken."""


class ChoiceConfig(Section):
    """The model of what users choose, by which recommendations are ordered."""

    member: Literal["ease", "network", "experts"] = "experts"
    """``ease``: closed form; ``network``: neural collaborative filtering; ``experts``: the product
    of both, which is the best on every split that was measured."""
    ease: EaseConfig = EaseConfig()
    """The closed form."""
    network: NetworkConfig = NetworkConfig()
    """The network."""
    experts: ExpertsConfig = ExpertsConfig()
    """How both are combined."""
    num_given: Annotated[int, Field(ge=0)] = 10
    """On a split by global time most held-out ratings are of users who are new then. Of each user's
    held-out ratings the oldest so many are given to the model, without training on them, and the
    rest is to be found; users with fewer are not scored."""
    max_validation_users: Annotated[int, Field(ge=1)] = 10_000
    """Of more validation users so many are drawn, always the same, whose rankings choose settings
    and end trainings. All test users are ranked."""
