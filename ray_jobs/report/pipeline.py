"""The report of a finished run: ``report.html``, ``report.md`` and ``plots/``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from ray_jobs.report.document import Report, ReportSection
from ray_jobs.report.sections.choices import choice_model_section, choices_sections
from ray_jobs.report.sections.comparison import comparison_section, differences_section
from ray_jobs.report.sections.data import data_section
from ray_jobs.report.sections.errors import calibration_section, residuals_section, slices_section
from ray_jobs.report.sections.model import examples_section, model_section, rankings_section
from ray_jobs.report.sections.origin import licences_section, run_section
from ray_jobs.report.sections.search import search_section
from ray_jobs.report.verdict import choice_verdict, rating_verdict
from ray_jobs.report.writing import write
from ray_jobs.results.comparison import METRICS
from ray_jobs.results.undefined import shown
from ray_jobs.stages.graph import Stages

logger = logging.getLogger(__name__)

SYNTHETIC: Final = (
    "SYNTHETIC DATA: every user, movie and rating here was generated. The figures say that the "
    "program works and nothing about real movies or real taste."
)


def write_report(stages: Stages) -> None:
    """Write the report of a finished run."""
    workspace, raw, config = stages.workspace, stages.raw, stages.workspace.config
    experiment = stages.best_trial.experiment if config.wants_ratings else config.experiment
    of_ratings = _rating_sections(stages) if config.wants_ratings else ()
    of_choices = choices_sections(stages.choice_comparison) if config.wants_choices else ()
    report = Report(
        title=f"Recommendation models on {raw.name}: run {config.name}",
        warnings=((SYNTHETIC,) if raw.synthetic else ()),
        key_figures=tuple(_key_figures(stages)),
        verdicts=tuple(verdicts(stages)),
        sections=(
            data_section(raw, stages.prepared, experiment),
            *of_ratings,
            *of_choices,
            *search_section(workspace),
            *_final_sections(stages),
            examples_section(workspace, raw),
            run_section(workspace, stages.final_models[0].metrics, experiment.time_decay),
            licences_section(raw),
        ),
    )
    write(report, workspace.paths)
    logger.info(f"report: {workspace.paths.report_html}")


def _rating_sections(stages: Stages) -> Iterator[ReportSection]:
    """Errors of the compared rating models."""
    comparison = stages.comparison
    yield comparison_section(comparison)
    yield differences_section(comparison)
    yield slices_section(comparison)
    yield residuals_section(stages.workspace, comparison, stages.prepared, stages.final_model)
    yield calibration_section(comparison)


def _final_sections(stages: Stages) -> Iterator[ReportSection]:
    """The models that the run keeps."""
    config = stages.workspace.config
    if config.wants_ratings:
        yield model_section(stages.final_model, stages.best_trial, config)
        yield rankings_section(stages.final_model)
    if config.wants_choices:
        yield choice_model_section(stages.final_choice_model.metrics, stages.best_choice)


def verdicts(stages: Stages) -> Iterator[str]:
    """The conclusions of the comparisons of a run."""
    config = stages.workspace.config
    if config.wants_ratings:
        yield rating_verdict(stages.comparison)
    of_choices = choice_verdict(stages.choice_comparison) if config.wants_choices else None
    if of_choices is not None:
        yield of_choices


def _key_figures(stages: Stages) -> Iterator[tuple[str, ...]]:
    config = stages.workspace.config
    yield "Ratings", f"{stages.raw.num_ratings:,}"
    if config.wants_ratings:
        test, comparison = stages.final_model.metrics.test, stages.comparison
        best = next(e for e in comparison.entries if e.name == comparison.baseline)
        rmse, mae, r2 = (comparison.figure(best, name, "stars")[0] for name in METRICS)
        of_final = "of the final model, test rows"
        yield f"RMSE {of_final}", f"{test.rmse:.4f}", f"{best.name}: {shown(rmse, '.4f')}"
        yield f"MAE {of_final}", f"{test.mae:.4f}", f"{best.name}: {shown(mae, '.4f')}"
        yield f"R² {of_final}", shown(test.r2, ".3f"), f"{best.name}: {shown(r2, '.3f')}"
    if config.wants_choices:
        metrics = stages.final_choice_model.metrics
        liked = metrics.test[metrics.member].liked if metrics.test else None
        if liked:
            yield (
                "NDCG@10 of the final choice model, test users, 4 stars or more",
                f"{liked.metrics['ndcg@10']:.4f}",
            )
