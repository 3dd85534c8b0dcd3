"""Settings of preparation, model and training; each is validated when it is made."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LossName = Literal["mse", "l1", "smooth_l1"]
ModelInput = Literal["user", "movie", "genres", "decade", "numeric"]
NumericName = Literal[
    "budget",
    "revenue",
    "popularity",
    "vote_average",
    "vote_count",
    "runtime",
    "year",
    "train_ratings",
]


class Section(BaseModel):
    """Base of every configuration section: immutable, validated, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SplitConfig(Section):
    """Which rows are for training, validation and testing."""

    kind: Literal["random", "global-time", "per-user-time"] = "random"
    """``random`` rows (the test rows are those of scikit-learn's ``train_test_split`` with the same
    seed), ``global-time``: the newest of all, ``per-user-time``: the newest of each user."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all rows that only the final figures see."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all rows that early stopping and the search see; 0 turns both off."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the random split."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.test + self.validation >= 1:
            raise ValueError(
                f"split.test + split.validation is {self.test + self.validation:g}: "
                "they must leave rows to train on, so their sum must be below 1"
            )
        return self


class TimeDecayConfig(Section):
    """Older ratings count for less: weight = exp(-rate_per_day * age in days)."""

    rate_per_day: Annotated[float, Field(ge=0)] = 0.0002
    """Decay rate; 0.0002 halves a rating's weight in 9.5 years, the original's 0.001 in 1.9."""
    apply_to: Literal["loss", "target", "none"] = "loss"
    """``loss``: the weight multiplies a row's loss and the target is the rating in stars;
    ``target``: the target is rating * weight, as in the original work; ``none``: the weight is used
    for the weighted metrics alone."""
    reference: date | Literal["newest-training-rating"] = "newest-training-rating"
    """Day from which ages count; ratings after it have age 0."""


class FeaturesConfig(Section):
    """Which movie features are made, and how."""

    numeric: tuple[NumericName, ...] = (
        "budget",
        "revenue",
        "popularity",
        "vote_average",
        "vote_count",
        "runtime",
        "year",
        "train_ratings",
    )
    """Numeric features; one without any value in the training movies is left out.
    ``train_ratings`` is the movie's number of training ratings (a training row is one of them),
    ``year`` its release year, the others come from TMDb."""
    transform: Literal["yeo-johnson", "log1p", "none"] = "yeo-johnson"
    """How skew is taken out before scaling to mean 0 and standard deviation 1; not of ``year``."""
    missing_indicators: bool = True
    """Add, for each numeric feature with gaps, a feature that is 1 where it was missing."""


class ModelConfig(Section):
    """The network: embedded inputs, concatenated, through dense layers to one rating."""

    inputs: Annotated[tuple[ModelInput, ...], Field(min_length=1)] = (
        "user",
        "movie",
        "genres",
        "decade",
        "numeric",
    )
    """Inputs that are embedded and concatenated, in this order."""
    embedding_dim: Annotated[int, Field(ge=1)] = 16
    """Size of every input's embedding."""
    embedding_std: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the embeddings' initial values; the original used 1."""
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (64, 32)
    """Sizes of the dense layers, each followed by ReLU and dropout."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of activations dropped after each dense layer while training."""

    @model_validator(mode="after")
    def _inputs_differ(self) -> Self:
        if len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"model.inputs names an input twice: {', '.join(self.inputs)}")
        return self


class TrainConfig(Section):
    """How a model is trained."""

    loss: LossName = "mse"
    """Mean squared error, mean absolute error, or SmoothL1 (Huber with a threshold of one star)."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.005
    """Adam's step size at the start."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """``cosine`` lets the learning rate fall to zero over ``epochs``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW) on every parameter."""
    embedding_l2: Annotated[float, Field(ge=0)] = 20.0
    """Ridge on user and movie embeddings: this times their squared norm, divided by the number of
    training rows, is added to the loss. It shrinks rarely seen users and movies most."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Rows in one optimiser step, summed over all workers."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Most passes over the training rows."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop after this epoch, although the schedule is made for ``epochs``; 0 goes to the end."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Stop after this many epochs without a better validation RMSE in stars; 0 never does."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initial weights, shuffling and dropout."""


class ExperimentConfig(Section):
    """What one trained model depends on, apart from the data."""

    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
    time_decay: TimeDecayConfig = TimeDecayConfig()
    """What the weights of the rows are, and what they weigh."""
