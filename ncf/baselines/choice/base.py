"""The interface of all baselines of choice models: what is searched, and how they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from optuna.distributions import BaseDistribution

from ncf.baselines.base import DEFAULT_TRIALS
from ncf.baselines.search import best_settings
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.models.choice.base import ChoiceModel

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

Objective = Callable[[ChoiceModel], float]
"""How good a model is on the validation rows; higher is better."""


@dataclass(frozen=True)
class ChoiceBaselineSpec(Generic[S]):
    """One kind of baseline: its settings, and how it is fitted with them."""

    name: str
    """Name in a configuration."""
    title: str
    """Name in tables."""
    default: S
    """The settings that are tried first, and used without a search."""
    fit: Callable[[Interactions, Preprocessor, S], ChoiceModel]
    """``fit(train, preprocessor, settings) -> model``."""
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    """Fields of the settings that are searched."""
    fit_path: Callable[[Interactions, Preprocessor, S], Iterator[tuple[S, ChoiceModel]]] | None = (
        None
    )
    """The models of one trial, each with its settings, if fitting one makes others cheap. Each is
    as ``fit`` returns it for these settings."""

    @property
    def is_seeded(self) -> bool:
        """Whether the baseline depends on a random seed."""
        return hasattr(self.default, "seed")

    def path(
        self, train: Interactions, preprocessor: Preprocessor, settings: S
    ) -> Iterator[tuple[S, ChoiceModel]]:
        """The models of one trial, each with its settings."""
        if self.fit_path is None:
            yield settings, self.fit(train, preprocessor, settings)
        else:
            yield from self.fit_path(train, preprocessor, settings)

    def fit_seeds(
        self,
        train: Interactions,
        preprocessor: Preprocessor,
        settings: S,
        seeds: Sequence[int] = (0,),
    ) -> tuple[ChoiceModel, ...]:
        """A model for each seed; only one if the baseline does not depend on a seed."""
        if not self.is_seeded:
            return (self.fit(train, preprocessor, settings),)
        changes: list[dict[str, Any]] = [{"seed": seed} for seed in seeds]
        return tuple(self.fit(train, preprocessor, replace(settings, **each)) for each in changes)


def tune_choice_baseline(
    spec: ChoiceBaselineSpec[S],
    train: Interactions,
    preprocessor: Preprocessor,
    objective: Objective,
    num_trials: int = DEFAULT_TRIALS,
) -> S:
    """The settings whose model, fitted on the training rows, has the highest ``objective``.

    The defaults are tried first; of equal ones, the first is returned. There is one trial if
    nothing is searched but what all models of a trial share, and none if nothing is searched.
    """
    if not spec.space and spec.fit_path is None:
        return spec.default
    best: dict[Any, tuple[float, S]] = {}

    def error(settings: S) -> float:
        models = spec.path(train, preprocessor, settings)
        scored = [(objective(model), each) for each, model in models]
        # Trials are minimised; the settings within one are looked up at the end.
        best[settings] = max(scored, key=lambda pair: pair[0])
        return -best[settings][0]

    num_trials = num_trials if spec.space else 1
    return best[best_settings(spec.default, spec.space, error, num_trials)][1]


def described(settings: DataclassInstance) -> str:
    """Settings in words for tables, without the seed, such as "neighbours 40, shrinkage 12.5"."""
    values = {name: value for name, value in asdict(settings).items() if name != "seed"}
    return ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
