"""The report on a comparison alone: ``comparison.html`` and ``comparison.md``."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ray_jobs.report.document import Listing, Report, ReportSection
from ray_jobs.report.pipeline import SYNTHETIC, verdicts
from ray_jobs.report.sections.choices import choices_sections
from ray_jobs.report.sections.comparison import comparison_section, differences_section
from ray_jobs.report.sections.errors import calibration_section, slices_section
from ray_jobs.report.sections.origin import licences_section
from ray_jobs.report.tables import write_tables
from ray_jobs.report.writing import write_files
from ray_jobs.results.comparison import Comparison
from ray_jobs.stages.graph import Stages

logger = logging.getLogger(__name__)


def write_comparison_report(stages: Stages) -> None:
    """Write the report on finished comparisons into the run's folder."""
    workspace, raw = stages.workspace, stages.raw
    config, paths = workspace.config, workspace.paths
    listing = Listing("The whole configuration, as config.toml", paths.config.read_bytes().decode())
    report = Report(
        title=f"Comparison on {raw.name}: run {config.name}",
        warnings=((SYNTHETIC,) if raw.synthetic else ()),
        key_figures=(),
        verdicts=tuple(verdicts(stages)),
        sections=(
            *(_of_ratings(stages.comparison) if config.wants_ratings else ()),
            *(choices_sections(stages.choice_comparison) if config.wants_choices else ()),
            ReportSection("What was run", (listing,)),
            licences_section(raw),
        ),
    )
    write_files(report, paths.plots, paths.comparison_markdown, paths.comparison_html)
    write_tables(report, paths.tables / "comparison")
    logger.info(f"report: {paths.comparison_html}")


def _of_ratings(comparison: Comparison) -> Iterator[ReportSection]:
    yield comparison_section(comparison)
    if comparison.scored == "test":
        yield differences_section(comparison)
        yield slices_section(comparison)
        yield calibration_section(comparison)
