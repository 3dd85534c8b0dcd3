"""Settings of preparation, model and training; each is validated when it is made."""

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
from ncf.registry import BRANCHES, LOSSES

BaselineName = Literal[
    "global-mean",
    "damped-bias",
    "neighbours",
    "matrix-factorization",
    "boosting",
    "boosting-with-times",
]
NameList = Literal["directors", "cast", "keywords"]
if TYPE_CHECKING:
    ModelInput = str
    LossName = str
else:
    # Names are checked, and listed in messages, as those of any other choice.
    ModelInput = Literal[tuple(BRANCHES)]
    LossName = Literal[tuple(LOSSES)]
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
    """Ratings that only the final figures see."""


class SplitConfig(Section):
    """Which rows are for training, validation and testing."""

    kind: Literal["random", "global-time", "per-user-time", "files"] = "random"
    """``random`` rows (the test rows are those of scikit-learn's ``train_test_split`` with the same
    seed), ``global-time``: the newest of all, ``per-user-time``: the newest of each user,
    ``files``: as ``files`` lists them."""
    files: SplitFiles | None = None
    """For ``kind = "files"`` alone: every rating of the data set is in one of them."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all rows that only the final figures see; not used by ``files``."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all rows that early stopping and the search see; 0 turns both off."""
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
        # What has no files is written, and hashed, as if there were no such setting.
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
    ``train_ratings`` is the movie's number of training ratings (a training row is one of them, so
    a movie that has none counts as one with a single rating), ``year`` its release year, the others
    come from TMDb."""
    transform: Literal["yeo-johnson", "log1p", "none"] = "yeo-johnson"
    """How skew is taken out before scaling to mean 0 and standard deviation 1; not of ``year``."""
    missing_indicators: bool = True
    """Add, for each numeric feature with gaps, a feature that is 1 where it was missing."""
    names: tuple[NameList, ...] = ("directors", "cast", "keywords")
    """Lists of TMDb's people and keywords that are kept for each movie."""
    max_names: Annotated[int, Field(ge=1)] = 10
    """Entries of a movie's list that are kept, the first ones: of the cast, the top-billed."""
    min_movies_per_name: Annotated[int, Field(ge=1)] = 3
    """Training movies that an entry must have, lest it be a movie's second name."""


class HistoryConfig(Section):
    """What the user's other ratings add to a prediction."""

    renamed: ClassVar = {
        "forecasts": "causal",
        "small_chunks": "cold_start_share",
        "radial_dim": "rbf_dim",
    }
    renamed_values: ClassVar = {"encoders": {"closed-form": "gaussian-process"}}

    encoders: tuple[HistoryEncoderName, ...] = ()
    """What reads the other ratings; nothing does by default. ``statistics``: by how much they are
    above expectation, on average over all, over like movies and over those near in time;
    ``implicit``: mean vector of the movies, whatever their ratings; ``explicit``: the same weighted
    by the ratings; ``transformer``: a transformer block that attends to them; all these are inputs
    of the dense layers. ``gaussian-process``: the posterior mean of a Gaussian process over what
    the rest of the network leaves unexplained, added to the prediction; it is best without the
    inputs ``user`` and ``movie`` and with the bias of the movie alone."""
    use_times: bool = True
    """Whether ratings that are near in time tell more about each other. Fair if the question is
    what a user would have said that day, as on a random split; of no use for the future."""
    causal: bool = False
    """Learn to predict each rating from the user's earlier ones alone, for splits by time. A
    prediction still looks at all ratings that the user has in the training rows."""
    vector_dim: Annotated[int, Field(ge=1)] = 16
    """Size of the movie vectors whose dot product says how alike two movies are."""
    linear_dim: Annotated[int, Field(ge=1)] = 8
    """Size of their further part that follows from the content alone."""
    rbf_dim: Annotated[int, Field(ge=1)] = 6
    """Size of the space in which movies with like content are near each other."""
    chunk: Annotated[int, Field(ge=2)] = 128
    """Ratings of a user that predict each other in training."""
    cold_start_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the ratings that are put into chunks of five at most, so that the network learns
    what to say to somebody whom it hardly knows."""
    max_ratings: Annotated[int, Field(ge=1)] = 4096
    """Ratings of a user, the newest ones, that a prediction looks at."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads of the transformer block."""

    @model_validator(mode="after")
    def _encoders_go_together(self) -> Self:
        if len(set(self.encoders)) < len(self.encoders):
            raise ValueError(f"history.encoders names one twice: {', '.join(self.encoders)}")
        reads_ratings = set(self.encoders) - {"gaussian-process", "implicit"}
        if "gaussian-process" in self.encoders and reads_ratings:
            raise ValueError(
                "history.encoders: gaussian-process cannot stand beside "
                f"{', '.join(sorted(reads_ratings))}, which tell of the rating to be predicted "
                "through what they say of the user's other ratings"
            )
        if self.vector_dim % self.heads:
            raise ValueError(
                f"history.vector_dim = {self.vector_dim} must be a multiple of history.heads = "
                f"{self.heads}"
            )
        return self


class ModelConfig(Section):
    """The network: embedded inputs, concatenated, through dense layers to one rating."""

    inputs: Annotated[tuple[ModelInput, ...], Field(min_length=1)] = (
        "user",
        "movie",
        "genres",
        "decade",
        "numeric",
    )
    """Inputs that are embedded and put together, in this order. ``directors``, ``cast`` and
    ``keywords`` are averages over those of the movie; ``time`` is when the rating is given."""
    embedding_dim: Annotated[int, Field(ge=1)] = 16
    """Size of every input's embedding."""
    embedding_std: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the embeddings' initial values; the original used 1."""
    fusion: Literal["concat", "attention", "transformer"] = "concat"
    """How the inputs are put together: side by side as they are, each weighted by a learned
    attention, or after they have attended to each other in a transformer block."""
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (64, 32)
    """Sizes of the dense layers, each followed by normalisation, ReLU and dropout."""
    normalization: Literal["none", "batch", "layer"] = "none"
    """What normalises the dense layers' outputs."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of activations dropped after each dense layer while training."""
    biases: tuple[Literal["user", "movie"], ...] = ()
    """Entities with a bias of their own, added to the prediction."""
    gmf_dim: Annotated[int, Field(ge=0)] = 0
    """Size of the matrix factorisation beside the dense layers, added to the prediction; 0 leaves
    it out."""
    history: HistoryConfig = HistoryConfig()
    """What the user's other ratings add."""
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
    for the ordinal head the negative logarithm of the rating's probability."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.005
    """Adam's step size at the start."""
    schedule: Literal["constant", "cosine", "one-cycle", "plateau"] = "cosine"
    """``cosine`` lets the learning rate fall to zero over ``epochs``, ``one-cycle`` rise first for
    three tenths of them, ``plateau`` halves it after an epoch whose error is no better."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW) on every parameter."""
    embedding_l2: Annotated[float, Field(ge=0)] = 20.0
    """Ridge on user and movie embeddings: this times their squared norm, divided by the number of
    training rows, is added to the loss. It shrinks rarely seen users and movies most."""
    bias_l2: Annotated[float, Field(ge=0)] = 2.0
    """The same for the biases of users and movies."""
    history_l2: Annotated[float, Field(ge=0)] = 1000.0
    """The same for the movies' vectors in the history."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Rows in one optimiser step, summed over all workers."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Most passes over the training rows."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop after this epoch, although the schedule is made for ``epochs``; 0 goes to the end."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Stop after this many epochs without a better validation RMSE in stars; 0 never does."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are the result: those with the lowest validation RMSE, or the last.
    Where a schedule brings the learning rate to zero, differences between its last epochs are
    mostly chance, and choosing among them is no gain."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initial weights, shuffling and dropout."""
    rows: Literal["auto", "resident", "streaming"] = "auto"
    """Where each worker has the rows: all of them in memory, or two windows of 2 million that are
    read from disk as training goes on. ``auto`` streams a split if it does not fit;
    results then differ as those of another seed do. A model with ``history`` needs all training
    rows in memory."""
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """For ``rows = "auto"``: the share of the free memory that rows may take, on the machine and on
    the GPU. It is divided among the workers of a machine, and is that of the worker that has the
    least."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether several steps are compiled into one function, which at small batches is about three
    times as fast. Compiling takes 15 to 20 seconds, or 3 if the same was done before (it is kept in
    ``TORCHINDUCTOR_CACHE_DIR``, or else below ``XDG_CACHE_HOME`` or ``~/.cache``), so ``auto``
    compiles runs of 50,000 steps or more: rows * epochs / batch_size, which says the same of all
    trials that share them. Results are the same up to the order of additions. Needs a C++ compiler
    and one worker on a CPU; a model with ``history`` or batch normalisation is not compiled. Where
    it cannot be, training goes on without, and says so if this is ``on``."""


class ExperimentConfig(Section):
    """What one trained model depends on, apart from the data."""

    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
    time_decay: TimeDecayConfig = TimeDecayConfig()
    """What the weights of the rows are, and what they weigh."""

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        compares = LOSSES[self.train.loss].compares
        if compares == "distribution" and self.model.head != "ordinal":
            raise ValueError(f'train.loss = "{self.train.loss}" needs model.head = "ordinal"')
        if self.train.rows == "streaming" and self.model.history.encoders:
            raise ValueError(
                'train.rows = "streaming" reads rows a part at a time, and model.history.encoders '
                f"= {', '.join(self.model.history.encoders)} needs all of a user's at once: set "
                'train.rows to "auto" or "resident", or leave the encoders out'
            )
        if self.model.head == "ordinal" and self.time_decay.apply_to == "target":
            raise ValueError(
                'model.head = "ordinal" predicts levels of stars, which a target multiplied by '
                'the decay does not have: set time_decay.apply_to to "loss" or "none"'
            )
        return self
