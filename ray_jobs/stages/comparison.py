"""Compare losses, or fixed configurations, several seeds each, with each other and with baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. All models are scored on the same scales. A model is called better than
another one only if their difference on the same rows is significant
(``ncf.evaluation.significance``).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from foundation.console import show
from foundation.errors import ConfigError
from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.baselines import BaselineSpec, available, baseline_specs
from ncf.evaluation.assessment import Assessment, ScoredRows, assess
from ncf.evaluation.predictions import Predictions
from ncf.evaluation.slices import slicings
from ncf.registry import STACKED_MEMBERS
from ncf.training.out_of_fold import FOLDS
from ray_jobs.config import CompareConfig
from ray_jobs.results.comparison import (
    Comparison,
    ModelResult,
    differences_table,
    pairs,
    predicted,
    table,
)
from ray_jobs.results.original_ids import OriginalIds
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, key_of
from ray_jobs.results.stored_results import StoredResults, delete_all_but
from ray_jobs.stages.compared_baselines import (
    BaselineInputs,
    baseline_task,
    write_predictions,
)
from ray_jobs.stages.compared_blends import ComparedBlends, label_of
from ray_jobs.stages.compared_models import (
    ComparedData,
    ComparedModel,
    configurations_to_compare,
    has_weights_of,
    losses_to_compare,
    members_of_blends,
    result_of,
    train_models,
    with_weights_of,
)
from ray_jobs.stages.compared_predictions import (
    ComparedPredictions,
    GivenModel,
    given_models,
)
from ray_jobs.stages.compared_stacking import MEMBER, Corrected, correct
from ray_jobs.stages.rows import rows_of
from ray_jobs.stages.stacking import refuse_causal
from ray_jobs.stages.tuning import BestTrial
from ray_jobs.training.run_tasks import Run, run_tasks, train_beside
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompareInputs:
    """Everything that a comparison depends on."""

    data: ComparedData
    """The rows that all models are scored on; baselines learn from them too."""
    models: tuple[ComparedModel, ...]
    compare: CompareConfig
    num_workers: int
    metric: str = "rmse"
    """Name of the metric that chooses the best epoch."""
    given: tuple[GivenModel, ...] = ()
    """Models of which only predictions are known."""

    @property
    def scale(self) -> str:
        """The scale that the models are trained on: ``decayed`` if all are, with the weights of the
        scored rows, else ``stars``."""
        targets = [model.experiment.time_decay.apply_to for model in self.models]
        if any(target != "target" for target in targets):
            return "stars"
        same = all(has_weights_of(model.data, self.data) for model in self.models)
        return "decayed" if same else "stars"

    @property
    def specs(self) -> tuple[BaselineSpec[Any], ...]:
        """The baselines."""
        num_rows = self.data.selection.manifest.counts["train"]
        return baseline_specs(num_rows, self.compare.baselines)

    def model_key(self, model: ComparedModel) -> str:
        """Fingerprint of everything that the result of one model depends on."""
        compare, scored = self.compare, self.data.final
        is_blended = model.name in members_of_blends(compare)
        return key_of(
            [
                replace(model, tried=0),
                scored,
                compare.seeds,
                compare.score_test,
                self.num_workers,
                self.metric,
            ]
            + ([is_blended] if is_blended else [])
        )

    @property
    def corrected(self) -> tuple[Corrected, ...]:
        """The models that trees correct."""
        compare, by_name = self.compare, {model.name: model for model in self.models}
        trials, score_test = compare.trials_per_baseline, compare.score_test
        return tuple(
            Corrected(
                name,
                by_name[model],
                trials,
                score_test,
                key_of([self.model_key(by_name[model]), trials, FOLDS, MEMBER]),
            )
            for name, model in compare.residual_boosting.items()
        )

    def baseline(self, spec: BaselineSpec[Any]) -> BaselineInputs:
        """Everything that the result of one baseline depends on."""
        compare = self.compare
        return BaselineInputs(
            spec.name,
            self.data,
            compare.seeds,
            compare.trials_per_baseline,
            compare.score_test,
            spec.name in members_of_blends(compare),
        )


@dataclass(frozen=True)
class PlannedComparison:
    """A comparison whose models are known."""

    workspace: Workspace
    raw: RawData
    inputs: CompareInputs

    def result(self, run: Run) -> Comparison:
        """Train every model with every seed, and score them with the baselines.

        Args:
            run: does tasks.
        """
        paths = self.workspace.paths
        work = partial(_compare, raw=self.raw, paths=paths, run=run, force=self.workspace.force)
        outputs = (paths.comparison, paths.predictions)
        self.workspace.update(Stage("compare", self.inputs, outputs, work))
        return paths.comparison.read_as(Comparison, "compare again with --force")


def plan_comparison(
    workspace: Workspace,
    raw: RawData,
    data: ComparedData,
    best_trial: BestTrial | None,
    workers: Workers,
) -> PlannedComparison:
    """Choose the models, with a search for each loss if that is configured.

    Args:
        workspace: the run.
        raw: the data set.
        data: its prepared rows.
        best_trial: the configuration that losses are compared with; not used, and may be None, if
            ``compare.configurations`` are.
        workers: what to train on.

    Raises:
        ConfigError: if two models have the same name, or ``compare.against`` names none of them.
        DataError: if a configuration's data do not have the rows of the comparison.
    """
    config = workspace.config
    if config.compare.configurations:
        models = tuple(configurations_to_compare(workspace, raw, data, workers))
    else:
        assert best_trial is not None
        models = tuple(losses_to_compare(workspace, data, best_trial, workers))
    inputs = CompareInputs(
        data,
        models,
        config.compare.of_ratings,
        config.scaling.world_size,
        config.tune.metric,
        given_models(config.compare.predictions),
    )
    _check_names(inputs)
    if config.compare.residual_boosting:
        _check_residual_boosting(inputs)
    return PlannedComparison(workspace, raw, inputs)


def compare(
    workspace: Workspace,
    raw: RawData,
    data: ComparedData,
    best_trial: BestTrial | None,
    workers: Workers,
) -> Comparison:
    """Plan a comparison, make it, and print its tables; see ``plan_comparison``."""
    planned = plan_comparison(workspace, raw, data, best_trial, workers)
    comparison = planned.result(partial(run_tasks, workers=workers, config=workspace.config))
    show_comparison(comparison)
    return comparison


def show_comparison(comparison: Comparison, of_what: str = "") -> None:
    """Print its tables; the title of the first one begins with ``of_what``."""
    show(table(comparison, of_what))
    if comparison.assessment.differences:
        show(differences_table(comparison.assessment.differences))


def _check_names(inputs: CompareInputs) -> None:
    """Refuse names that several models have, and references that none has."""
    names = [model.name for model in inputs.models]
    ensembles = [_ensemble_name(name, len(inputs.compare.seeds)) for name in names]
    known = [*(spec.name for spec in inputs.specs), *names]
    for corrected, model in inputs.compare.residual_boosting.items():
        if model not in names:
            raise ConfigError(
                f"compare.residual_boosting.{corrected} names {model!r}, expected a model of this "
                f"comparison: {'; '.join(names)}"
            )
    known += inputs.compare.residual_boosting
    for blend, members in inputs.compare.blends.items():
        for member in members:
            if member not in known:
                raise ConfigError(
                    f"compare.blends.{blend} names {member!r}, expected models and baselines of "
                    f"this comparison: {'; '.join(known)}"
                )
    known += [*inputs.compare.blends, *(model.name for model in inputs.given)]
    known += ensembles if _has_ensembles(inputs.compare) else []
    for name, count in Counter(known).items():
        if count > 1:
            raise ConfigError(
                f"{count} models of the comparison have the name {name!r}: rename the one in "
                "compare.configurations, compare.residual_boosting, compare.blends or "
                "compare.predictions, and give it no name of a baseline or of a mean of seeds"
            )
    _check_files(inputs, ensembles if _has_ensembles(inputs.compare) else [])
    for setting, named in (
        ("against", inputs.compare.against),
        ("differences", [name for pair in inputs.compare.differences for name in pair]),
    ):
        for name in named:
            if name not in known:
                raise ConfigError(
                    f"compare.{setting} names {name!r}, expected names of this comparison: "
                    f"{'; '.join(known)}"
                )


def _check_residual_boosting(inputs: CompareInputs) -> None:
    """Refuse what cannot be fitted here, or would learn from another kind of errors."""
    notes = list[str]()
    num_rows = inputs.data.selection.manifest.counts["train"]
    if not available(STACKED_MEMBERS, num_rows, (MEMBER,), notes.append):
        raise ConfigError(f"compare.residual_boosting: {' '.join(notes)} Leave it out")
    for each in inputs.corrected:
        refuse_causal(each.model.experiment, f"compare.residual_boosting.{each.name}")


def _check_files(inputs: CompareInputs, ensembles: Sequence[str]) -> None:
    """Refuse names whose files of predictions would have the same name."""
    labels = [
        *(spec.name for spec in inputs.specs),
        *(model.label for model in inputs.models),
        *ensembles,
        *(label_of(name) for name in inputs.compare.blends),
        *(model.label for model in inputs.given),
        *inputs.compare.residual_boosting,
    ]
    files: dict[str, str] = {}
    for label in labels:
        file = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
        if file in files:
            raise ConfigError(
                f"{files[file]!r} and {label!r} would have files of the same name: rename one of "
                "the two in compare.configurations, compare.residual_boosting or compare.blends"
            )
        files[file] = label


def _compare(
    inputs: CompareInputs,
    raw: RawData,
    paths: RunPaths,
    run: Run,
    *,
    force: bool,
) -> None:
    """The work of the stage.

    Args:
        inputs: what the comparison depends on.
        raw: the data set.
        paths: where it goes.
        run: does tasks.
        force: do not use results of single models that an earlier comparison has stored.
    """
    stored = StoredResults(ModelResult, paths.compared, paths.predictions)
    paths.comparison.delete()
    paths.predictions.make_folder()
    delete_all_but(stored.keep_only({} if force else _keys(inputs)), paths.predictions)
    models, baselines = _models_and_baselines(inputs, stored, run)
    ensembles = _ensembles(models, inputs, paths.predictions)
    work = paths.ray("compare") / "out-of-fold"
    if force:
        work.delete()
    corrected = _corrected(models, inputs, stored, run, work)
    blends = ComparedBlends(inputs.data, inputs.compare.blends, paths.predictions)
    blended = blends.results([*baselines, *models, *corrected])
    given = _given(inputs, raw, paths.predictions)
    entries = (
        *_with_budgets(inputs, (*baselines, *models, *ensembles, *corrected, *blended)),
        *given,
    )
    paths.comparison.write_json(asdict(_assessed(inputs, entries, paths.predictions)))


def _given(inputs: CompareInputs, raw: RawData, folder: Storage) -> tuple[ModelResult, ...]:
    """The results of models of which only predictions are known."""
    if not inputs.given:
        return ()
    ids = OriginalIds.of(raw.folder)
    return tuple(ComparedPredictions(inputs.data, ids, folder).results(inputs.given))


def _keys(inputs: CompareInputs) -> dict[str, str]:
    models = {model.name: inputs.model_key(model) for model in inputs.models}
    corrected = {each.name: each.key for each in inputs.corrected}
    return models | corrected | {spec.name: key_of(inputs.baseline(spec)) for spec in inputs.specs}


def _models_and_baselines(
    inputs: CompareInputs, stored: StoredResults[ModelResult], run: Run
) -> tuple[list[ModelResult], list[ModelResult]]:
    """The results of all models and baselines; those that are not stored are made, all of them at
    the same time."""
    keys = _keys(inputs)
    found = {name: stored.find(name, key) for name, key in keys.items()}
    models = [model for model in inputs.models if not found[model.name]]
    specs = [spec for spec in inputs.specs if not found[spec.name]]
    if len(models) < len(inputs.models):
        logger.info(f"   {len(inputs.models) - len(models)} model(s) are unchanged")

    def store(result: ModelResult) -> None:
        stored.store(keys[result.name], result)
        found[result.name] = result

    # The simplest are the first in the registry; what takes longest begins first.
    calls = [baseline_task(spec, inputs.baseline(spec), stored.files) for spec in reversed(specs)]
    train = train_beside(calls[1:], run, lambda call: store(call.value), first=calls[:1])
    for model, of_seeds in train_models(models, inputs.compare, inputs.metric, stored.files, train):
        found_here = result_of(model, of_seeds)
        if not has_weights_of(model.data, inputs.data):
            found_here = with_weights_of(inputs.data, found_here, stored.files)
        store(found_here)

    def results_of(names: Iterable[str]) -> list[ModelResult]:
        return [result for name in names if (result := found[name])]

    return (
        results_of(model.name for model in inputs.models),
        results_of(spec.name for spec in inputs.specs),
    )


def _with_budgets(
    inputs: CompareInputs, entries: tuple[ModelResult, ...]
) -> tuple[ModelResult, ...]:
    """The entries with the number of settings that were tried for each."""
    compare = inputs.compare
    has_validation = inputs.data.selection.manifest.counts["validation"] > 0
    trials = compare.trials_per_baseline
    # Of each entry, the searches that it depends on.
    searches = {spec.name: {spec.name: spec.tried(trials)} for spec in inputs.specs}
    for model in inputs.models:
        searches[model.name] = {model.name: model.tried}
        searches[_ensemble_name(model.name, len(compare.seeds))] = searches[model.name]
    for each in inputs.corrected:
        searches[each.name] = searches[each.model.name] | {each.name: each.trials}
    for name, members in compare.blends.items():
        searches[name] = {k: v for member in members for k, v in searches[member].items()}
    return tuple(
        replace(entry, tried=sum(searches[entry.name].values()) if has_validation else 0)
        for entry in entries
    )


def _corrected(
    models: Sequence[ModelResult],
    inputs: CompareInputs,
    stored: StoredResults[ModelResult],
    run: Run,
    work: Storage,
) -> list[ModelResult]:
    """The results of the models that trees correct; those that are not stored are made."""
    keys = {each.name: each.key for each in inputs.corrected}
    found = {name: stored.find(name, key) for name, key in keys.items()}
    by_name = {model.name: model for model in models}
    missing = [
        (each, by_name[each.model.name]) for each in inputs.corrected if not found[each.name]
    ]
    if missing:
        for made in correct(missing, inputs.compare.seeds, run, work, stored.files):
            data = next(each.model.data for each, _ in missing if each.name == made.name)
            if not has_weights_of(data, inputs.data):
                made = with_weights_of(inputs.data, made, stored.files)
            stored.store(keys[made.name], made)
            found[made.name] = made
        work.delete()
    return [result for each in inputs.corrected if (result := found[each.name])]


def _has_ensembles(compare: CompareConfig) -> bool:
    # Of one seed it would be the model itself.
    return compare.ensembles and compare.score_test and len(compare.seeds) > 1


def _ensemble_name(name: str, num_seeds: int) -> str:
    return f"{name}, mean of {num_seeds} seeds"


def _ensembles(
    models: Sequence[ModelResult], inputs: CompareInputs, folder: Storage
) -> Iterator[ModelResult]:
    """The mean prediction of each model's seeds, with its predictions written into ``folder``."""
    for model in models if _has_ensembles(inputs.compare) else ():
        of_seeds = [Predictions.from_arrow((folder / f).read_table()) for f in model.predictions]
        name = _ensemble_name(model.name, len(of_seeds))
        predictions = Predictions.mean(of_seeds)
        yield ModelResult(
            name=name,
            detail="mean prediction",
            kind="ensemble",
            test=(predictions.score(inputs.data.test).as_dict(),),
            validation=(),
            predictions=(write_predictions(name, predictions, inputs.data, folder),),
        )


def _assessed(
    inputs: CompareInputs, entries: tuple[ModelResult, ...], folder: Storage
) -> Comparison:
    """The comparison, with an assessment of the predictions in ``folder``."""
    scale, compare, counts = inputs.scale, inputs.compare, inputs.data.selection.manifest.counts
    models = [entry for entry in entries if entry.kind == "model"]
    # Without validation rows take the first model: test rows must not choose among models.
    model = _best(models, scale) if models[0].validation else models[0]
    baseline = _best([entry for entry in entries if entry.kind == "baseline"], scale)
    return Comparison(
        entries=entries,
        scale=scale,
        num_test=counts["test"] if compare.score_test else 0,
        trials_per_loss=compare.trials_per_loss,
        refitted=inputs.data.refit,
        model=model.name,
        baseline=baseline.name,
        assessment=_assessment(inputs, entries, model.name, baseline.name, folder)
        if compare.score_test
        else Assessment(0, (), (), ()),
        fixed=bool(compare.configurations),
        against=compare.against,
        scored="test" if compare.score_test else "validation",
        num_validation=counts["validation"],
        named_differences=compare.differences,
        num_train=inputs.data.final.manifest.counts["train"],
    )


def _assessment(
    inputs: CompareInputs,
    entries: Sequence[ModelResult],
    model: str,
    baseline: str,
    folder: Storage,
) -> Assessment:
    compare = inputs.compare
    logger.info(
        f"   differences of {len(entries)} models on {len(inputs.data.test):,} test rows, "
        f"{compare.resamples:,} resamples"
    )
    single = [entry.name for entry in entries if entry.kind != "ensemble"]
    return assess(
        _test_rows(inputs),
        ((entry.name, predicted(entry, inputs.scale, folder)) for entry in entries),
        pairs(entries, baseline, compare.against, compare.differences),
        single if compare.configurations else [model, baseline],
        compare.resamples,
    )


def _best(entries: Sequence[ModelResult], scale: str) -> ModelResult:
    """The lowest RMSE on the validation rows; without any, on the test rows.

    Choosing the baseline on the test rows can only favour the baseline over the models.
    """
    return min(entries, key=lambda entry: entry.figure("rmse", scale, validation=True)[0])


def _test_rows(inputs: CompareInputs) -> ScoredRows:
    final, test = inputs.data.final, inputs.data.test
    weights = test.weights if inputs.scale == "decayed" else 1.0
    return ScoredRows(
        users=final.table("test", ["user_id"])["user_id"].to_numpy(),
        actual=(test.ratings * weights).numpy(),
        slicings=slicings(rows_of(final, "train"), test, final.preprocessor),
    )
