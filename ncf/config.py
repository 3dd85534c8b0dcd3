"""Settings of preparation, model and training, which are validated when they are created."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from foundation.config import Section
from ncf.registry import BASELINES, BRANCHES, LOSSES, STACKED_MEMBERS

NameList = Literal["directors", "cast", "keywords"]
if TYPE_CHECKING:
    BaselineName = str
    BlendMemberName = str
    LossName = str
    ModelInput = str
else:
    # Names are checked, and listed in messages, as those of any other choice.
    BaselineName = Literal[tuple(BASELINES)]
    BlendMemberName = Literal[
        *(name for name, entry in BASELINES.items() if entry.load), *STACKED_MEMBERS
    ]
    LossName = Literal[tuple(LOSSES)]
    ModelInput = Literal[tuple(BRANCHES)]
HistoryEncoderName = Literal[
    "statistics", "implicit", "explicit", "transformer", "gaussian-process"
]
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


class SplitFiles(Section):
    """Files that list the ratings of a published split, such as ``u1.base`` and ``u1.test``.

    Either tab-separated as in ml-100k, or CSV with the columns userId and movieId; other columns
    are not read. A name is a path from the data's folder (``data.path``), or absolute.
    """

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ratings to train on; the validation rows are taken from them."""
    test: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ratings that are only used for the final test metrics."""


class SplitConfig(Section):
    """Which rows are for training, validation and testing."""

    kind: Literal["random", "global-time", "per-user-time", "files"] = "random"
    """``random`` rows (the test rows are those of scikit-learn's ``train_test_split`` with the same
    seed), ``global-time``: the newest of all, ``per-user-time``: the newest of each user,
    ``files``: as ``files`` lists them."""
    files: SplitFiles | None = None
    """For ``kind = "files"`` alone: every rating of the data set is in one of them."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all rows that are only used for the final test metrics; not used by ``files``."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all rows for early stopping and the search; 0 turns both off."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the random split."""

    @model_validator(mode="after")
    def _files_are_for_their_kind(self) -> Self:
        if (self.kind == "files") != (self.files is not None):
            raise ValueError(
                'split.kind = "files" and split.files = { train = [...], test = [...] } '
                "belong together"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent_files(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without files, dumps and fingerprints are those of versions without this setting.
        values: dict[str, Any] = dump(self)
        return {key: value for key, value in values.items() if key != "files" or value is not None}

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.kind != "files" and self.test + self.validation >= 1:
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
    for the decayed metrics alone."""
    reference: date | Literal["newest-training-rating"] = "newest-training-rating"
    """Day from which ages count; ratings after it have age 0."""


class FeaturesConfig(Section):
    """Which movie features are computed, and how."""

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
    ``train_ratings`` is the movie's number of training ratings (at least 1, because a training row
    is itself one of them), ``year`` the release year; the others come from TMDb."""
    transform: Literal["yeo-johnson", "log1p", "none"] = "yeo-johnson"
    """Transform against skewness, before scaling to mean 0 and standard deviation 1; not applied to
    ``year``."""
    missing_indicators: bool = True
    """Add, for each numeric feature with gaps, a feature that is 1 where it was missing."""
    names: tuple[NameList, ...] = ("directors", "cast", "keywords")
    """Lists of TMDb's people and keywords that movies have."""
    max_names: Annotated[int, Field(ge=1)] = 10
    """Maximum entries of a movie's list; the first ones are used, which are the top-billed cast."""
    min_movies_per_name: Annotated[int, Field(ge=1)] = 3
    """Minimum training movies of an entry; an entry of a single movie would only identify it."""


class HistoryConfig(Section):
    """How predictions are conditioned on the user's other ratings."""

    renamed: ClassVar = {
        "forecasts": "causal",
        "small_chunks": "cold_start_share",
        "radial_dim": "rbf_dim",
    }
    renamed_values: ClassVar = {"encoders": {"closed-form": "gaussian-process"}}

    encoders: tuple[HistoryEncoderName, ...] = ()
    """History encoders; none by default. ``statistics``: mean residuals of all ratings, of similar
    movies and of ratings near in time; ``implicit``: mean vector of the movies, without their
    ratings; ``explicit``: the same weighted by the ratings; ``transformer``: a transformer block
    that attends to the ratings; outputs of these are inputs of the dense layers.
    ``gaussian-process``: the posterior mean of a Gaussian process over the residuals of the rest of
    the network, added to the prediction; it works best without the inputs ``user`` and ``movie``
    and with the bias of the movie alone."""
    use_times: bool = True
    """Whether encoders use the distance in time between ratings. This is appropriate to fill in
    ratings, as on a random split, and of no use to predict future ones."""
    causal: bool = False
    """Learn to predict each rating from the user's earlier ones alone, for splits by time.
    Predictions still use all training ratings of the user."""
    vector_dim: Annotated[int, Field(ge=1)] = 16
    """Size of the movie vectors whose dot product is a similarity of movies."""
    linear_dim: Annotated[int, Field(ge=1)] = 8
    """Size of a further part of these vectors that depends on the content alone."""
    rbf_dim: Annotated[int, Field(ge=1)] = 6
    """Size of the space in which movies with similar content are near each other."""
    chunk: Annotated[int, Field(ge=2)] = 128
    """Maximum ratings of a user that predict each other in training."""
    cold_start_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the ratings in chunks of at most five, so that the network learns to predict for
    users with few ratings."""
    max_ratings: Annotated[int, Field(ge=1)] = 4096
    """Maximum ratings in a user's history, the newest ones."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads of the transformer block."""

    @model_validator(mode="after")
    def _encoders_go_together(self) -> Self:
        if len(set(self.encoders)) < len(self.encoders):
            raise ValueError(f"history.encoders names one twice: {', '.join(self.encoders)}")
        reads_ratings = set(self.encoders) - {"gaussian-process", "implicit"}
        if "gaussian-process" in self.encoders and reads_ratings:
            raise ValueError(
                "history.encoders: gaussian-process cannot be combined with "
                f"{', '.join(sorted(reads_ratings))}: their outputs for the user's other ratings "
                "contain the rating to be predicted"
            )
        if self.vector_dim % self.heads:
            raise ValueError(
                f"history.vector_dim = {self.vector_dim} must be a multiple of history.heads = "
                f"{self.heads}"
            )
        return self


class ModelConfig(Section):
    """The network: branches, their fusion, and dense layers to one rating."""

    inputs: Annotated[tuple[ModelInput, ...], Field(min_length=1)] = (
        "user",
        "movie",
        "genres",
        "decade",
        "numeric",
    )
    """The branches, in this order. ``directors``, ``cast`` and ``keywords`` are averages over those
    of the movie; ``time`` is the time of the rating."""
    embedding_dim: Annotated[int, Field(ge=1)] = 16
    """Size of every branch's vector."""
    embedding_std: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the embeddings' initial values; the original used 1."""
    fusion: Literal["concat", "attention", "transformer"] = "concat"
    """How branches are combined: concatenated as they are, each weighted by a learned attention, or
    after they have attended to each other in a transformer block."""
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (64, 32)
    """Sizes of the dense layers, each followed by normalisation, ReLU and dropout."""
    normalization: Literal["none", "batch", "layer"] = "none"
    """Normalisation of the dense layers' outputs."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of activations dropped after each dense layer while training."""
    biases: tuple[Literal["user", "movie"], ...] = ()
    """Entities with a bias of their own, added to the prediction."""
    gmf_dim: Annotated[int, Field(ge=0)] = 0
    """Size of the vectors of generalised matrix factorisation, which is added to the prediction; 0
    leaves it out."""
    history: HistoryConfig = HistoryConfig()
    """How predictions are conditioned on the user's other ratings."""
    head: Literal["regression", "ordinal"] = "regression"
    """``ordinal`` predicts a probability for each level of stars; the prediction is their mean."""

    @model_validator(mode="after")
    def _inputs_differ(self) -> Self:
        if len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"model.inputs names an input twice: {', '.join(self.inputs)}")
        return self


class TrainConfig(Section):
    """How a model is trained."""

    loss: LossName = "mse"
    """Mean squared error, mean absolute error, SmoothL1 (Huber with a threshold of one star), or
    for the ordinal head the negative log-likelihood."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.005
    """Learning rate at the start."""
    schedule: Literal["constant", "cosine", "one-cycle", "plateau"] = "cosine"
    """``cosine`` lowers the learning rate to zero over ``epochs``, ``one-cycle`` raises it during
    the first 30 % of them and then lowers it, ``plateau`` halves it after an epoch without a better
    validation metric."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW) on every parameter."""
    embedding_l2: Annotated[float, Field(ge=0)] = 20.0
    """L2 penalty of user and movie embeddings: this times their squared norm, divided by the number
    of training rows, is added to the loss. It shrinks users and movies with few ratings most."""
    bias_l2: Annotated[float, Field(ge=0)] = 2.0
    """The same for the biases of users and movies."""
    history_l2: Annotated[float, Field(ge=0)] = 1000.0
    """The same for the movie vectors of history encoders."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Rows in one optimiser step, summed over all workers."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Maximum passes over the training rows."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop after this epoch, with a schedule for ``epochs``; 0 does not."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Stop after this many epochs without a better value of ``tune.metric`` on the validation rows,
    by default RMSE in stars; 0 never does."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are the result: the best by ``tune.metric`` on the validation rows, by
    default RMSE in stars, or the last. If the schedule ends at zero, differences between the last
    epochs are mostly chance, and choosing among them is no gain."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initial weights, shuffling and dropout."""
    rows: Literal["auto", "resident", "streaming"] = "auto"
    """Whether each worker holds all rows in memory, or streams them from disk in windows of 2
    million rows, of which two are in memory. ``auto`` streams a split that does not fit; results
    then differ as those of another seed do. A model with ``history`` needs all training rows in
    memory."""
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """For ``rows = "auto"``: the share of the free memory that rows may take, on the machine and on
    the GPU. It is divided among the workers of a machine; the worker with the least memory
    decides."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether several steps are compiled into one function, which at small batches is about three
    times as fast. Compiling takes 15 to 20 seconds, or 3 from the cache (in
    ``TORCHINDUCTOR_CACHE_DIR``, or else below ``XDG_CACHE_HOME`` or ``~/.cache``), so ``auto``
    compiles runs of 50,000 steps or more: rows * epochs / batch_size. Results are the same up to
    the order of additions. Needs a C++ compiler and one worker on a CPU; a model with ``history``
    or batch normalisation is not compiled. If steps cannot be compiled, training runs without, with
    a warning if this is ``on``."""


class ExperimentConfig(Section):
    """All settings that a trained model depends on, apart from the data."""

    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
    time_decay: TimeDecayConfig = TimeDecayConfig()
    """The time-decay weights of rows, and what they apply to."""

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        compares = LOSSES[self.train.loss].compares
        if compares == "distribution" and self.model.head != "ordinal":
            raise ValueError(f'train.loss = "{self.train.loss}" needs model.head = "ordinal"')
        if self.train.rows == "streaming" and self.model.history.encoders:
            raise ValueError(
                'train.rows = "streaming" reads rows in parts, and model.history.encoders '
                f"= {', '.join(self.model.history.encoders)} needs all of a user's at once: set "
                'train.rows to "auto" or "resident", or leave the encoders out'
            )
        if self.model.head == "ordinal" and self.time_decay.apply_to == "target":
            raise ValueError(
                'model.head = "ordinal" predicts levels of stars, which a target multiplied by '
                'the decay does not have: set time_decay.apply_to to "loss" or "none"'
            )
        return self
