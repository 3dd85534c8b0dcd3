"""The configuration of a whole job: one TOML file, changed by ``--set section.key=value``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from foundation.config import Section, UsablePath, apply_overrides, problems
from ingest.config import DataConfig, TmdbConfig
from ncf.choice_config import ChoiceConfig
from ncf.config import (
    BaselineName,
    BlendMemberName,
    ExperimentConfig,
    FeaturesConfig,
    LossName,
    ModelConfig,
    SplitConfig,
    SplitFiles,
    TimeDecayConfig,
    TrainConfig,
)
from ncf.registry import BASELINES, CHOICE_BASELINES, RANKING_METRICS

if TYPE_CHECKING:
    ChoiceBaselineName = str
else:
    # Names are checked, and listed in messages, as those of any other choice.
    ChoiceBaselineName = Literal[tuple(CHOICE_BASELINES)]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
FoldName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([^\n]*[^\s])?$")]
Member = Literal["ease", "network"]
Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
Choice = Value | dict[str, Value]


def _number_or_range(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"([1-9][0-9]*)-([1-9][0-9]*)", value)):
        first, last = map(int, found.groups())
        if first <= last:
            return value
    raise ValueError('expected a whole number, or a range such as "1-8" that begins at 1 or more')


def _range_of(value: int | str) -> tuple[int, int]:
    """First and last number of what ``_number_or_range`` accepts."""
    if isinstance(value, int):
        return value, value
    first, _, last = value.partition("-")
    return int(first), int(last)


class ScalingConfig(Section):
    """What one training run takes from the cluster."""

    num_workers: Annotated[int | str, BeforeValidator(_number_or_range)] = 1
    """Workers of one model; more than one train data-parallel. With 0 the job's own processes
    train, without a GPU, one model at a time: for data so small that starting workers takes most of
    the time. A text such as ``"1-8"``: where a single model is trained, on as many workers of that
    range as the cluster has room for, whose number changes when nodes come and go, at most every 30
    seconds; each change repeats the epoch that it interrupts. Models that are trained side by side
    have the smaller number each."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs, and torch threads, of each worker."""
    memory_per_worker: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"
    """GiB of memory that Ray reserves for each worker, so that it starts no more of them on a node
    than its memory holds. ``auto``: 0.5, about what a worker takes without rows, unless an
    autoscaler adds nodes, whose types may not say what memory they have; 0 reserves none."""
    use_gpu: Literal["auto", True, False] = "auto"
    """``auto``: if the cluster has a GPU for each worker; after a search that timed epochs on both
    (``tune.also_on_cpus``), what was quicker."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a model whose workers end with an error of their own is continued, or trained
    again, by others; a trial of a search that does fails. Workers that are lost to the cluster are
    another matter: ``tune.max_preemptions``."""

    @property
    def min_workers(self) -> int:
        """Workers of each of several models."""
        return _range_of(self.num_workers)[0]

    @property
    def max_workers(self) -> int:
        """Most workers of a single model."""
        return _range_of(self.num_workers)[1]

    @property
    def world_size(self) -> int:
        """The largest number of processes that share each batch."""
        return max(1, self.max_workers)

    @model_validator(mode="after")
    def _refuse_a_gpu_without_workers(self) -> Self:
        if self.num_workers == 0 and self.use_gpu is True:
            raise ValueError("use_gpu = true needs a worker: set num_workers = 1 or more")
        return self


class RayConfig(Section):
    """Which Ray to run on."""

    address: str = ""
    """Cluster to join, ``auto`` for the one on this machine; empty joins that of the environment
    variable RAY_ADDRESS, which Ray sets in a submitted job, and else starts a local one."""
    num_cpus: Annotated[int, Field(ge=0)] = 0
    """CPUs of a local Ray that is started; 0 takes all there are."""
    dashboard_port: Annotated[int, Field(ge=1, le=65535)] = 8265
    """Port of the dashboard of a local Ray that is started; the next free one if it is taken."""
    autoscaling: Literal["auto", True, False] = "auto"
    """Whether nodes may be added to the cluster; if so, a job that does not fit waits for them.
    ``auto`` asks Ray's autoscaler (version 2). Set it to true with another autoscaler, or if nodes
    are started by hand."""


class Dimension(Section):
    """One searched setting: ``choices``, or a range from ``low`` to ``high``."""

    choices: tuple[Choice, ...] = ()
    """Values to choose from. One that is a table sets the settings that it names, whatever other
    keys have drawn for them, such as ``{ "train.loss" = "nll", "model.head" = "ordinal" }``."""
    low: float | None = None
    """Lower end of a range."""
    high: float | None = None
    """Upper end of a range."""
    log: bool = False
    """Sample the range uniformly in the logarithm."""
    integer: bool = False
    """Sample whole numbers, both ends included."""

    @field_validator("choices", mode="before")
    @classmethod
    def _names_in_tables_are_quoted(cls, choices: Any) -> Any:
        found = choices if isinstance(choices, list | tuple) else ()
        tables = (choice for choice in found if isinstance(choice, Mapping))
        for section, value in (item for table in tables for item in table.items()):
            if isinstance(value, Mapping):
                example = f"{section}.{next(iter(value), 'key')}"
                raise ValueError(
                    f'a table names settings with quotes around them: {{ "{example}" = ... }}'
                )
        return choices

    @model_validator(mode="after")
    def _either_choices_or_range(self) -> Self:
        is_range = self.low is not None and self.high is not None
        is_partly_range = self.low is not None or self.high is not None
        if bool(self.choices) == is_range or (self.choices and is_partly_range):
            raise ValueError("give either choices = [...] or both low and high")
        if self.choices and (self.log or self.integer):
            raise ValueError("log and integer are for a range from low to high, not for choices")
        ends = [end for end in (self.low, self.high) if end is not None]
        if self.integer and any(end != int(end) for end in ends):
            raise ValueError(f"integer = true needs whole numbers, found {self.low} to {self.high}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"log = true needs low above 0, found {self.low}")
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        # Lists and tables travel as texts, and a column of texts and numbers is no table's.
        texts = [c for c in self.choices if isinstance(c, str | tuple | dict)]
        others = [c for c in self.choices if not isinstance(c, str | tuple | dict)]
        if others and any(not isinstance(c, str) for c in texts):
            raise ValueError(
                f"choices mix lists or tables with {others[0]!r}: write that as a table too, "
                f'{{ "section.key" = {json.dumps(others[0])} }}'
            )
        return self

    @property
    def tables(self) -> tuple[dict[str, Value], ...]:
        """The choices that set several settings."""
        return tuple(choice for choice in self.choices if isinstance(choice, dict))

    def examples(self) -> list[Any]:
        """Values that a valid configuration must accept: all choices, or both ends."""
        if self.choices:
            return list(self.choices)
        return [int(end) if self.integer else end for end in (self.low or 0, self.high or 0)]


LOSS: Final = "train.loss"

_PREPARED_WITH = frozenset({"time_decay.rate_per_day", "time_decay.reference"})

DEFAULT_SPACE: dict[str, Dimension] = {
    "train.loss": Dimension(choices=("mse", "l1", "smooth_l1")),
    "train.learning_rate": Dimension(low=1e-3, high=2e-2, log=True),
    "train.embedding_l2": Dimension(low=5.0, high=100.0, log=True),
    "model.embedding_dim": Dimension(choices=(8, 16, 32)),
    "model.hidden_dims": Dimension(choices=((64, 32), (128, 64), (128, 64, 32))),
    "model.dropout": Dimension(low=0.0, high=0.4),
}


RANKING_METRIC: Final = rf"^({'|'.join(RANKING_METRICS)})@[1-9][0-9]*$"

DEFAULT_CHOICE_SPACE: dict[str, Dimension] = {
    "ease.values.stars": Dimension(low=0.0, high=1.0),
    "ease.content": Dimension(low=0.0, high=6.0),
    "ease.names": Dimension(choices=(0.0, 1.5)),
    "ease.context": Dimension(choices=(0.0, 1.0, 3.0)),
    "ease.user_half_life_years": Dimension(choices=(0.0, 2.0, 4.0, 8.0)),
    "ease.rating_half_life_years": Dimension(choices=(0.0, 2.0, 4.0, 8.0)),
    "network.loss": Dimension(choices=("softmax", "sampled_softmax", "bpr", "warp", "bce")),
    "network.dim": Dimension(choices=(32, 64)),
    "network.l2": Dimension(low=5.0, high=50.0, log=True),
    "network.stars": Dimension(low=0.0, high=1.0),
    "network.user_power": Dimension(choices=(0.0, 0.5, 1.0)),
    "network.learning_rate": Dimension(low=3e-3, high=2e-2, log=True),
    "network.epochs": Dimension(choices=(15, 30, 60)),
}


class ChoiceSearchConfig(Section):
    """The searches for the choice model, one for each of its members; what is not here is as in
    ``tune``."""

    metric: Annotated[str, Field(pattern=RANKING_METRIC)] = "ndcg@10"
    """The metric of validation users' rankings by which trials, epochs, ridges and powers are
    chosen: ``ndcg``, ``recall``, ``map``, ``hit_rate`` or ``mrr`` over the first so many movies;
    relevant are held-out ratings of at least four stars."""
    num_trials: Annotated[int, Field(ge=0)] | None = None
    """Configurations of each member to try, those of EASE each with all its ridges; by default as
    many as ``tune.num_trials``. 0 uses the configuration as it is. The first trial is the
    configuration as it is, if the space has it."""
    grace_epochs: Annotated[int, Field(ge=1)] = 15
    """Epochs of the network before the scheduler may stop a trial."""
    space: dict[str, Dimension] = DEFAULT_CHOICE_SPACE
    """What is searched, as ``tune.space``, for keys of ``choice.ease`` and ``choice.network``:
    ``"ease.content" = { low = 0.0, high = 6.0 }``. A member without keys is not searched."""

    @model_validator(mode="after")
    def _keys_are_of_a_member(self) -> Self:
        for key, dimension in self.space.items():
            settings = [s for table in dimension.tables for s in table] or [key]
            for setting in settings:
                self._check_key(key, setting, settings[0])
        return self

    def _check_key(self, key: str, setting: str, first: str) -> None:
        member = setting.partition(".")[0]
        if member not in ("ease", "network"):
            raise ValueError(
                f"tune.choice.space names {setting!r}, expected a setting of choice.ease or "
                "choice.network, such as ease.content"
            )
        if member != first.partition(".")[0]:
            raise ValueError(
                f"tables of tune.choice.space's {key!r} set both {first} and {setting}: EASE and "
                "the network are searched one after the other"
            )

    def of(self, member: Member) -> dict[str, Dimension]:
        """The part of the space that is a member's."""
        return {key: each for key, each in self.space.items() if _member_of(key, each) == member}


def _member_of(key: str, dimension: Dimension) -> str:
    setting = next((s for table in dimension.tables for s in table), key)
    return setting.partition(".")[0]


class TuneConfig(Section):
    """The search by Ray Tune and Optuna."""

    renamed_values: ClassVar = {"executor": {"warm": "persistent"}}

    num_trials: Annotated[int, Field(ge=0)] = 20
    """Configurations to try; 0 skips the search and uses the configuration as it is. Trials that
    the same search has already made count, whether it was killed or had another number of trials: a
    larger number adds trials, a smaller one uses only the first ones. A change of ``num_trials``,
    ``max_concurrent_trials``, ``also_on_cpus``, ``executor``, ``keep_models``, ``live_table`` or
    ``mlflow_uri`` continues the same search, any other change starts a new one."""
    scheduler: str = "asha"
    """Which trials are stopped early. ``asha``: at each rung all but the best one in
    ``reduction_factor``; ``median``: those worse than the median of the other trials' means so far;
    ``hyperband``: as ``asha``, but in up to three brackets, of which the later ones stop later;
    ``none``: no trial."""
    sampler: str = "tpe"
    """Which configuration is tried next, by Optuna's sampler of this name. ``tpe``: tree-structured
    Parzen estimators; ``random``: independent draws; ``gp``: a Gaussian process, for few trials;
    ``cmaes``: CMA-ES, for ranges alone: settings with choices are drawn at random, with a
    warning."""
    metric: Literal["rmse", "mae", "r2"] = "rmse"
    """The metric on the validation rows that chooses the best epoch of every rating model and stops
    it early, and by which trials are compared: by the best trial's configuration, by the scheduler
    and by the sampler. A metric of rankings, such as ``"ndcg@10"``, is taken for
    ``tune.choice.metric``."""
    max_concurrent_trials: Annotated[int, Field(ge=0)] = 0
    """Trials, and models of a comparison, that are trained at once; 0: as many as fit the cluster.
    Each holds the training rows in memory, or streams them where they would not fit together. With
    one at a time a search is reproducible, with more its suggestions depend on which trials end
    first."""
    max_preemptions: Annotated[int, Field(ge=0)] = 5
    """How often a trial, or a model of a comparison or of the final training, that has lost its
    workers to the cluster is trained again: their node or process is gone, or was taken away. Other
    workers continue from its last epoch where its state was stored, else they begin anew. One whose
    workers Ray has ended for want of memory is trained once more."""
    also_on_cpus: Literal["auto", True, False] = "auto"
    """If trials train on GPUs, train further ones on the CPUs that are left, which needs
    ``executor = "persistent"``; ``auto``: as long as that helps. The epochs of the search are timed
    on both, and the slower of the two takes no further trial once one there would take longer than
    all that are left on the other. Which trial trains where depends on timing, and devices round
    differently: with ``false`` all train on GPUs."""
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """Epochs before the scheduler may stop a trial."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """Of ``asha`` and ``hyperband``, which keep the best one in this many at each rung."""
    seed: Seed = 0
    """Seed of the sampler, and of the brackets of ``hyperband``."""
    executor: Literal["persistent", "isolated"] = "persistent"
    """``persistent``: worker groups train one model after another; ``isolated``: each trial gets
    new workers, which costs seconds a trial and helps only with models that corrupt a process.
    Results are the same. Without workers, ``scaling.num_workers = 0``, it makes no difference."""
    keep_models: Annotated[int, Field(ge=0)] = 1
    """How many of the best trials keep their best and last weights, next to the records of trials.
    Weights of a trial that the scheduler stopped may be up to two epochs newer than its record,
    because its worker stops later; with ``executor = "isolated"`` it keeps none."""
    live_table: bool = False
    """On a terminal, show the running trials in a table below the lines of those that ended."""
    mlflow_uri: str = ""
    """MLflow tracking URI, such as http://127.0.0.1:5000, that gets a run for each trial, in an
    experiment with the run's name; empty: none. Needs ``pip install mlflow-skinny``. Set user and
    password in the environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)."""
    space: dict[str, Dimension] = DEFAULT_SPACE
    """What is searched: ``"section.key" = { choices = [...] }`` or ``{ low, high, log }``, for keys
    of the sections model and train, and for time_decay.apply_to. If all choices are tables, the key
    may be any name."""
    choice: ChoiceSearchConfig = ChoiceSearchConfig()
    """The searches for the choice model."""

    @model_validator(mode="before")
    @classmethod
    def _metrics_of_rankings_are_the_choice_models(cls, values: Any) -> Any:
        metric = values.get("metric") if isinstance(values, Mapping) else None
        if not isinstance(metric, str) or not re.match(RANKING_METRIC, metric):
            return values
        given = values.get("choice") or {}
        if not isinstance(given, Mapping):
            return values  # refused for that
        if given.get("metric", metric) != metric:
            raise ValueError(
                f"tune.metric = {metric!r} and tune.choice.metric = {given['metric']!r} contradict "
                "each other: both are the metric of rankings; give one"
            )
        choice = dict(given) | {"metric": metric}
        return {key: value for key, value in values.items() if key != "metric"} | {"choice": choice}

    @field_validator("mlflow_uri")
    @classmethod
    def _no_secret_in_the_address(cls, value: str) -> str:
        if urlsplit(value).username is not None:
            raise ValueError(
                "holds a user's name, which would be written to files: put it into the environment "
                "as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value

    @property
    def wants_cpus_too(self) -> bool:
        """Whether trials also train on the CPUs that those on GPUs leave."""
        return self.also_on_cpus is not False and self.executor == "persistent"

    @model_validator(mode="after")
    def _kinds_of_groups_need_persistent_workers(self) -> Self:
        if self.also_on_cpus is True and self.executor == "isolated":
            raise ValueError(
                'also_on_cpus = true needs executor = "persistent": isolated trials all take the '
                "same resources"
            )
        return self


class ComparedConfig(ExperimentConfig):
    """A fixed configuration that a comparison trains. ``extends`` names configuration files; of
    them, and of this table, the sections ``features``, ``time_decay``, ``model`` and ``train``
    count. A section that neither has is that of the comparison's own configuration."""

    features: FeaturesConfig = FeaturesConfig()
    """Movie features, in a prepared data set of its own if they differ from the comparison's."""

    @property
    def experiment(self) -> ExperimentConfig:
        """The parts that one trained model depends on, apart from the data."""
        return ExperimentConfig(model=self.model, train=self.train, time_decay=self.time_decay)


class ChoiceCompareConfig(Section):
    """What the choice model is compared with."""

    baselines: tuple[ChoiceBaselineName, ...] = tuple(CHOICE_BASELINES)
    """``popular``: by the number of ratings; ``popular-lately``: by those of a last period;
    ``item-knn``: item-based nearest neighbours; ``bpr``: matrix factorisation that ranks pairs;
    ``ials``: implicit alternating least squares; ``ease``; ``ease-with-values``: EASE on values of
    ratings by their stars."""
    trials_per_baseline: Annotated[int, Field(ge=1)] = 24
    """Settings tried of each, by Optuna as those of the choice model are."""


class CompareConfig(Section):
    """The comparison of losses, or of fixed configurations."""

    renamed_values: ClassVar = {"baselines": {"factors": "matrix-factorization"}}

    losses: Annotated[tuple[LossName, ...], Field(min_length=1)] = ("mse", "l1", "smooth_l1")
    """Losses, each trained with every seed. Not used with ``configurations``."""
    configurations: dict[ModelName, ComparedConfig] = Field(default_factory=dict)
    """Fixed configurations to compare instead of losses, by their names in tables:
    ``"Gaussian process" = { extends = "../models/gaussian-process.toml", train.epochs = 4 }``.
    Nothing is searched. Paths are relative to the file that has them. A file that sets ``data``,
    ``tmdb`` or ``split`` otherwise than the comparison's files is refused; the command line changes
    these for all configurations."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds of initial weights, shuffling and dropout, each once."""
    trials_per_loss: Annotated[int, Field(ge=0)] = 0
    """Trials of a search for each loss alone, so that none runs with settings that were found for
    another one; 0 takes the settings of the search's winner, or the given ones, for all losses."""
    refit_on_validation: bool = False
    """Train each model, and each baseline, again on training and validation rows before it is
    scored, for the number of epochs and with the settings that were best."""
    score_test: bool = True
    """Score on the test rows. ``false`` is for choosing settings: it reads no test row, removes
    test errors that the same run had before, and reports errors on the validation rows."""
    residual_boosting: dict[ModelName, str] = Field(default_factory=dict)
    """Models of this comparison that boosted trees correct, by the names of the corrected ones in
    tables: ``"with residual boosting" = "Gaussian process"``. The trees learn from out-of-fold
    predictions: each model is trained five times more, and another five times for the test rows
    with ``refit_on_validation``, each time by one worker's CPU with all rows in memory. They take
    part in ``blends``; ``trials_per_baseline`` settings are tried."""
    blends: dict[ModelName, Annotated[tuple[str, ...], Field(min_length=2)]] = Field(
        default_factory=dict
    )
    """Blends of models and baselines of this comparison, each with the names of its members as in
    the table of errors: ``"blend" = ["Gaussian process", "LightGBM"]``. Weights are non-negative
    least squares on the validation rows, of each seed alone."""
    predictions: dict[ModelName, UsablePath] = Field(default_factory=dict)
    """Models of your own, which other programs have trained: for each the file with its predictions
    for the test rows, CSV or Parquet with the columns userId, movieId and prediction. ``{fold}`` in
    the name of a file stands for the names of splits. ``movie-ratings preprocess --export-splits
    FOLDER`` writes the rows."""
    ensembles: bool = False
    """Score the mean prediction of each model's seeds too, and compare it with the baseline."""
    against: tuple[str, ...] = ()
    """Names of models or baselines, as in the table of errors, that all others are compared with.
    By default models are compared with each other and with the best baseline."""
    differences: tuple[tuple[str, str], ...] = ()
    """The only differences that are tested, each the first one's error minus the second one's:
    ``[["blend", "LightGBM"]]``. The fewer, the less their intervals are widened for their number.
    By default those that ``against`` says."""
    baselines: tuple[BaselineName, ...] = tuple(
        name for name, entry in BASELINES.items() if entry.by_default
    )
    """What the models are compared with: ``global-mean`` always, ``damped-bias`` (users, movies),
    ``neighbours`` (item-based), ``matrix-factorization`` (matrix factorisation),
    ``bayesian-factorization`` (its mean over draws of a Gibbs sampler), ``svdpp`` and
    ``time-svdpp`` (SVD++ and timeSVD++, not by default), ``boosting`` (LightGBM on statistics of
    users and movies), ``boosting-with-times`` (and of ratings near in time)."""
    trials_per_baseline: Annotated[int, Field(ge=1)] = 24
    """Settings tried of ``matrix-factorization``, each ``svdpp`` and each ``boosting``, by Optuna
    as the models' are. For a fair comparison set as many as a model had; this is not checked. For
    the others a grid of 32 or 36 is tried, which takes less time, and four ranks of
    ``bayesian-factorization``."""
    choice: ChoiceCompareConfig = ChoiceCompareConfig()
    """Of choice models; seeds and what is scored are those of rating models."""
    resamples: Annotated[int, Field(ge=100)] = 10_000
    """Draws of the bootstrap over users that tells differences between models from chance."""

    @model_validator(mode="after")
    def _names_of_files_differ(self) -> Self:
        names: dict[str, str] = {}
        for name in self.configurations:
            other = names.setdefault(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), name)
            if other != name:
                raise ValueError(
                    f"configurations {other!r} and {name!r} differ in case or punctuation alone, "
                    "which names of files do not tell apart: rename one"
                )
        return self

    @model_validator(mode="after")
    def _pairs_and_blends_have_different_members(self) -> Self:
        for first, second in self.differences:
            if first == second:
                raise ValueError(f"differences names {first!r} twice in a pair")
        for name, members in self.blends.items():
            if len(set(members)) < len(members):
                raise ValueError(f"blends.{name} names a member twice: {'; '.join(members)}")
        if self.differences and self.against:
            raise ValueError(
                "differences and against are two ways to name what is compared: give one of them"
            )
        return self

    @model_validator(mode="after")
    def _predictions_are_for_test_rows(self) -> Self:
        if self.predictions and not self.score_test:
            raise ValueError(
                "predictions are for the test rows, which score_test = false does not read: leave "
                "one of them out"
            )
        return self

    @property
    def of_ratings(self) -> Self:
        """The part that a comparison of rating models depends on."""
        return self.model_copy(update={"choice": ChoiceCompareConfig()})

    @property
    def trains_again(self) -> bool:
        """Whether models are trained again before they are scored, if there are validation rows."""
        return self.refit_on_validation and self.score_test

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        twice = sorted({seed for seed in value if value.count(seed) > 1})
        if twice:
            raise ValueError(f"has {twice[0]} more than once: a model is trained once with a seed")
        return value

    @model_validator(mode="after")
    def _a_fixed_configuration_is_not_searched(self) -> Self:
        if self.configurations and self.trials_per_loss:
            raise ValueError(
                f"trials_per_loss = {self.trials_per_loss} searches for each of compare.losses, "
                "which configurations replace: set trials_per_loss = 0"
            )
        return self


class CrossValidateConfig(Section):
    """Several splits of the same ratings, for ``movie-ratings cross-validate``."""

    split_seeds: tuple[Seed, ...] = ()
    """Seeds of ``split``, each of which is a split, as ``movie-ratings compare --splits 5`` sets
    them; instead of ``folds``."""
    folds: dict[FoldName, SplitFiles] = Field(default_factory=dict)
    """A name for each fold, and the files that list its ratings; ``split.validation`` and
    ``split.seed`` hold for all of them."""

    @model_validator(mode="after")
    def _either_seeds_or_folds(self) -> Self:
        if self.split_seeds and self.folds:
            raise ValueError("split_seeds and folds are two ways to name splits: give one of them")
        if len(set(self.split_seeds)) < len(self.split_seeds):
            raise ValueError(f"split_seeds = {list(self.split_seeds)} has a seed twice")
        return self


class BlendConfig(Section):
    """Baselines that the final rating model is blended with, in one checkpoint.

    Their settings, the best epoch of the network and the weights of all members are chosen on the
    validation rows; with ``final.refit_on_validation`` all members are then fitted again."""

    members: tuple[BlendMemberName, ...] = ()
    """Beside the network; none by default. ``boosting-with-times`` uses a user's ratings near in
    time, before and after: fair for filling in unknown ratings, as on a random split, but not for
    the future. ``residual-boosting`` corrects the network, by LightGBM on its out-of-fold
    predictions, with times if the network uses them: the network is trained five times more, and
    another five times for the final model, each time by one worker's CPU with all rows in
    memory."""
    trials: Annotated[int, Field(ge=1)] = 24
    """Settings tried of each."""

    @field_validator("members")
    @classmethod
    def _members_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"names a member twice: {', '.join(value)}")
        return value


NO_BLEND: Final = BlendConfig()


class FinalConfig(Section):
    """The model that is kept."""

    refit_on_validation: bool = True
    """Train it again on training and validation rows, for the number of epochs that was best."""


class RecommendConfig(Section):
    """Recommendations for every user."""

    top_n: Annotated[int, Field(ge=1)] = 10
    """Movies for each user."""
    order: Literal["auto", "choice", "stars", "stars+popularity", "lower_bound"] = "auto"
    """What movies are ordered by. ``choice``: how likely the user is to choose them; ``stars``: the
    predicted rating; ``stars+popularity``: that plus ``popularity`` times the logarithm of the
    movie's number of training ratings; ``lower_bound``: that minus ``deviations`` standard
    deviations, which the Gaussian process knows; ``auto``: ``choice`` if the run has a choice
    model, else ``stars``. The predicted rating is shown whatever the order."""
    min_ratings: Annotated[int, Field(ge=0)] = 3
    """Training ratings that a movie needs to be recommended; rankings are scored with the same
    rule. The taste for a movie that hardly anybody has rated is not known."""
    popularity: Annotated[float, Field(ge=0)] = 1.0
    """Stars for each factor of e in the number of ratings, for ``stars+popularity``."""
    deviations: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviations for ``lower_bound``."""


class ServeConfig(Section):
    """The page and API of ``movie-ratings serve``."""

    replicas: Annotated[int | str, BeforeValidator(_number_or_range)] = 1
    """Processes that hold the models, each with one CPU and one torch thread; each answers the
    requests that wait together. A text such as ``"1-4"``: on a cluster, as many of that range as
    the requests need; on this machine the smaller number."""

    @property
    def min_replicas(self) -> int:
        """Replicas that there always are."""
        return _range_of(self.replicas)[0]

    @property
    def max_replicas(self) -> int:
        """Replicas under the highest load."""
        return _range_of(self.replicas)[1]

    @model_validator(mode="after")
    def _refuse_no_replica(self) -> Self:
        if self.replicas == 0:
            raise ValueError("replicas must be 1 or more")
        return self


class JobConfig(Section):
    """The whole configuration of a job."""

    renamed: ClassVar = {"folds": "cross_validate.folds"}

    storage: UsablePath = "artifacts"
    """Root of all outputs: a folder, or a URI such as s3://bucket/folder."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "default"
    """Name of the run; its results are in storage/runs/<name>."""
    task: Literal["rating", "choice", "both"] = "both"
    """Which models are tuned, compared, trained and kept: how many stars a user would give, what a
    user would choose to watch, or both."""
    data: DataConfig = DataConfig()
    tmdb: TmdbConfig = TmdbConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    time_decay: TimeDecayConfig = TimeDecayConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    choice: ChoiceConfig = ChoiceConfig()
    scaling: ScalingConfig = ScalingConfig()
    ray: RayConfig = RayConfig()
    tune: TuneConfig = TuneConfig()
    compare: CompareConfig = CompareConfig()
    cross_validate: CrossValidateConfig = CrossValidateConfig()
    blend: BlendConfig = NO_BLEND
    final: FinalConfig = FinalConfig()
    recommend: RecommendConfig = RecommendConfig()
    serve: ServeConfig = ServeConfig()

    @field_validator("storage")
    @classmethod
    def _storage_is_named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must name a folder or a URI")
        if urlsplit(value).password is not None:
            raise ValueError(
                "holds a secret, which would be written to files: put it into the environment (as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://) on every node"
            )
        return value

    @model_validator(mode="after")
    def _search_is_possible(self) -> Self:
        if self.tune.num_trials and not self.split.validation:
            raise ValueError(
                "tune.num_trials > 0 chooses on validation rows, but split.validation is 0: "
                "set tune.num_trials = 0 or give split.validation a share"
            )
        if self.blend.members and not self.split.validation:
            raise ValueError(
                "blend.members are weighted on validation rows, but split.validation is 0: leave "
                "them out or give split.validation a share"
            )
        if self.blend.members and self.time_decay.apply_to == "target":
            raise ValueError(
                'blend.members predict stars, but with time_decay.apply_to = "target" the network '
                "predicts decayed ratings: leave one of them out"
            )
        if self.blend.members and self.task == "choice":
            raise ValueError(
                'blend.members are of the rating model, but task = "choice" trains none: leave one '
                "of them out"
            )
        history = self.model.history
        if "residual-boosting" in self.blend.members and history.encoders and history.causal:
            raise ValueError(
                "blend.members: residual-boosting learns the errors of filling in ratings, but "
                "with model.history.causal the network forecasts them: leave one of them out"
            )
        if self.blend.members and "target" in self._searched("time_decay.apply_to"):
            raise ValueError(
                "blend.members predict stars, but tune.space may choose time_decay.apply_to = "
                '"target", with which the network predicts decayed ratings: leave one of them out'
            )
        if self.cross_validate.split_seeds and self.split.kind != "random":
            raise ValueError(
                "cross_validate.split_seeds draws random splits, but split.kind = "
                f'"{self.split.kind}" gives the same one with every seed: leave one of them out'
            )
        if self.compare.blends and not self.split.validation:
            raise ValueError(
                "compare.blends are weighted on validation rows, but split.validation is 0: leave "
                "them out or give split.validation a share"
            )
        if self.compare.residual_boosting and not self.split.validation:
            raise ValueError(
                "compare.residual_boosting chooses settings on validation rows, but "
                "split.validation is 0: leave it out or give split.validation a share"
            )
        if not self.compare.score_test and not self.split.validation:
            raise ValueError(
                "compare.score_test = false scores on validation rows, but split.validation is 0: "
                "give it a share"
            )
        if not self.compare.configurations:
            self._refuse_impossible_losses()
        if self.compare.trials_per_loss:
            self._refuse_empty_search_of_a_loss()
        if self.tune.num_trials and not self.tune.space:
            raise ValueError("tune.num_trials > 0, but tune.space names nothing to search")
        for key, dimension in self.tune.space.items():
            self._refuse_prepared_settings(key, dimension)
            for value in dimension.examples():
                self._refuse_impossible_parameter(key, value)
        self._refuse_two_tables_for_a_setting()
        self._refuse_impossible_choice_searches()
        return self

    def _searched(self, setting: str) -> list[Any]:
        """The values that the search may choose for a setting, by itself or in a table."""
        values = list[Any]()
        for key, dimension in self.tune.space.items():
            values += dimension.examples() if key == setting else ()
            values += [table[setting] for table in dimension.tables if setting in table]
        return values

    def _refuse_impossible_choice_searches(self) -> None:
        search = self.tune.choice
        if not (self.wants_choices and self.num_choice_trials):
            return
        if not self.split.validation:
            raise ValueError(
                "tune.choice.num_trials > 0 chooses on validation rows, but split.validation is 0: "
                "set tune.choice.num_trials = 0 or give split.validation a share"
            )
        for key, dimension in search.space.items():
            for value in dimension.examples():
                try:
                    with_choice_parameters(self.choice, {key: value})
                except ValidationError as error:
                    reasons = "; ".join(problems(ChoiceConfig, error))
                    raise ValueError(f"tune.choice.space names {key!r}: {reasons}") from error

    def _refuse_prepared_settings(self, key: str, dimension: Dimension) -> None:
        for setting in _PREPARED_WITH & {key, *(s for table in dimension.tables for s in table)}:
            raise ValueError(
                f"{setting} cannot be searched: it is fixed when the data are prepared. Compare "
                f"runs with --set {setting}=... instead"
            )

    def _refuse_impossible_parameter(self, key: str, value: Any) -> None:
        try:
            with_parameters(self.experiment, {key: value})
        except ValidationError as error:
            reasons = "; ".join(problems(ExperimentConfig, error))
            is_a_rule = any(detail["type"] == "value_error" for detail in error.errors())
            # Combinations with other keys are not checked: most of such trials would be wasted.
            hint = (
                f". A choice that is a table sets what belongs together: {{ {json.dumps(key)} = "
                f'{json.dumps(value)}, "..." = ... }}'
                if is_a_rule and not isinstance(value, dict)
                else ""
            )
            raise ValueError(f"tune.space names {key!r}: {reasons}{hint}") from error

    def _refuse_two_tables_for_a_setting(self) -> None:
        setters: dict[str, str] = {}
        for key, dimension in self.tune.space.items():
            for setting in {setting for table in dimension.tables for setting in table}:
                if setting in setters:
                    raise ValueError(
                        f"tables of tune.space's {setters[setting]!r} and {key!r} both set "
                        f"{setting}: put what belongs together into one of them"
                    )
                setters[setting] = key

    def _refuse_impossible_losses(self) -> None:
        for loss in self.compare.losses:
            self._refuse_impossible_loss(loss, {})
            if self.tune.num_trials and not self.compare.trials_per_loss:
                # Whatever the search chooses is trained with each of the losses.
                for key, dimension in self.tune.space.items():
                    for value in dimension.examples():
                        self._refuse_impossible_loss(loss, {key: value})

    def _refuse_impossible_loss(self, loss: LossName, drawn: Mapping[str, Any]) -> None:
        try:
            with_parameters(self.experiment, drawn)
        except ValidationError:
            return  # the space itself is reported
        try:
            with_parameters(self.experiment, {**settings_of(drawn), LOSS: loss})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            where = f", and the search may choose {json.dumps(settings_of(drawn))}" if drawn else ""
            raise ValueError(f"compare.losses names {loss!r}{where}: {reason}") from error

    def _refuse_empty_search_of_a_loss(self) -> None:
        if not self.split.validation:
            raise ValueError(
                "compare.trials_per_loss > 0 chooses on validation rows, but split.validation is "
                "0: set compare.trials_per_loss = 0 or give split.validation a share"
            )
        if not self.tune.space.keys() - {LOSS}:
            raise ValueError(
                "compare.trials_per_loss > 0, but tune.space names nothing to search beside the "
                "loss"
            )
        for key, dimension in self.tune.space.items():
            if key != LOSS and any(LOSS in table for table in dimension.tables):
                raise ValueError(
                    "compare.trials_per_loss > 0 searches for one loss after the other, but tables "
                    f"of tune.space's {key!r} set {LOSS}: leave it out of them"
                )

    def of_loss(self, loss: LossName) -> Self:
        """This configuration with the search of one loss that the comparison makes."""
        space = {key: value for key, value in self.tune.space.items() if key != LOSS}
        tune = {"num_trials": self.compare.trials_per_loss, "space": space}
        return self.model_copy(
            update={
                "train": self.train.model_copy(update={"loss": loss}),
                "tune": self.tune.model_copy(update=tune),
            }
        )

    def of_member(self, member: Member) -> Self:
        """This configuration with the search for one member of the choice model.

        Epochs of EASE are ridges, which take no time, so all of them are tried.
        """
        choice, tune = self.tune.choice, self.tune
        update = {
            "num_trials": self.num_choice_trials,
            "space": choice.of(member),
            "metric": choice.metric,
            "grace_epochs": choice.grace_epochs,
            "scheduler": "none" if member == "ease" else tune.scheduler,
        }
        return self.model_copy(update={"tune": tune.model_copy(update=update)})

    @property
    def experiment(self) -> ExperimentConfig:
        """The parts that one trained model depends on."""
        return ExperimentConfig(model=self.model, train=self.train, time_decay=self.time_decay)

    @property
    def num_choice_trials(self) -> int:
        """Configurations of each member of the choice model to try."""
        own = self.tune.choice.num_trials
        return self.tune.num_trials if own is None else own

    @property
    def wants_ratings(self) -> bool:
        """Whether there is a rating model."""
        return self.task != "choice"

    @property
    def wants_choices(self) -> bool:
        """Whether there is a choice model."""
        return self.task != "rating"


def settings_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's parameters set: those that are tables set what they name, whatever else was
    drawn for it."""
    tables = [value for value in parameters.values() if isinstance(value, Mapping)]
    plain = {key: value for key, value in parameters.items() if not isinstance(value, Mapping)}
    return plain | {setting: value for table in tables for setting, value in table.items()}


def with_parameters(
    experiment: ExperimentConfig, parameters: Mapping[str, Any]
) -> ExperimentConfig:
    """``experiment`` with each ``"section.key"`` of a trial put in, as ``settings_of`` has them.

    Raises:
        ValueError: if a key is unknown or a value is invalid (pydantic's ``ValidationError``).
    """
    return ExperimentConfig.model_validate(_overridden(experiment, parameters))


def with_choice_parameters(choice: ChoiceConfig, parameters: Mapping[str, Any]) -> ChoiceConfig:
    """``choice`` with each ``"member.key"`` of a trial put in, as ``settings_of`` has them.

    Raises:
        ValueError: if a key is unknown or a value is invalid (pydantic's ``ValidationError``).
    """
    return ChoiceConfig.model_validate(_overridden(choice, parameters))


def _overridden(section: Section, parameters: Mapping[str, Any]) -> dict[str, Any]:
    settings = settings_of(parameters)
    texts = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return apply_overrides(section.model_dump(), texts)
