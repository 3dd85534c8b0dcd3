"""The report of a finished run: ``report.html``, ``report.md`` and ``plots/``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from ingest.dataset import RawData
from ncf.data.dataset import PreparedDataset
from ray_jobs.report.document import Report, ReportSection
from ray_jobs.report.sections.comparison import comparison_section, differences_section
from ray_jobs.report.sections.data import data_section
from ray_jobs.report.sections.errors import calibration_section, residuals_section, slices_section
from ray_jobs.report.sections.model import examples_section, model_section, rankings_section
from ray_jobs.report.sections.origin import licences_section, run_section
from ray_jobs.report.sections.search import search_section
from ray_jobs.report.writing import write
from ray_jobs.results.comparison import Comparison
from ray_jobs.results.run import Workspace
from ray_jobs.stages.training import FinalModel
from ray_jobs.stages.tuning import BestTrial

logger = logging.getLogger(__name__)

SYNTHETIC: Final = (
    "SYNTHETIC DATA: every user, movie and rating here was generated. The figures say that the "
    "program works and nothing about real movies or real taste."
)


def write_report(
    workspace: Workspace,
    raw: RawData,
    prepared: PreparedDataset,
    best_trial: BestTrial,
    comparison: Comparison,
    model: FinalModel,
) -> None:
    """Write the report of a finished run."""
    sections = (
        data_section(raw, prepared, best_trial.experiment),
        *_error_sections(workspace, prepared, comparison, model),
        *search_section(workspace),
        model_section(model, best_trial, workspace.config),
        rankings_section(model),
        examples_section(workspace, raw),
        run_section(workspace, model, best_trial),
        licences_section(raw),
    )
    report = Report(
        title=f"Rating models on {raw.name}: run {workspace.config.name}",
        warnings=((SYNTHETIC,) if raw.synthetic else ()),
        key_figures=_key_figures(raw, model),
        sections=sections,
    )
    write(report, workspace.paths)
    logger.info(f"report: {workspace.paths.report_html}")


def _error_sections(
    workspace: Workspace, prepared: PreparedDataset, comparison: Comparison, model: FinalModel
) -> Iterator[ReportSection]:
    """Errors of the compared models."""
    yield comparison_section(comparison)
    yield differences_section(comparison)
    yield slices_section(comparison)
    yield residuals_section(workspace, comparison, prepared, model)
    yield calibration_section(comparison)


def _key_figures(raw: RawData, model: FinalModel) -> tuple[tuple[str, str], ...]:
    test = model.metrics.test
    return (
        ("Ratings", f"{raw.num_ratings:,}"),
        ("RMSE of the final model, test rows", f"{test.rmse:.4f}"),
        ("MAE of the final model, test rows", f"{test.mae:.4f}"),
        ("R² of the final model, test rows", f"{test.r2:.3f}"),
    )
