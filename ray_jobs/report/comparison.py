"""The report on a comparison alone: ``comparison.html`` and ``comparison.md``."""

from __future__ import annotations

import logging

from ingest.dataset import RawData
from ray_jobs.report.document import Listing, Report, ReportSection
from ray_jobs.report.pipeline import SYNTHETIC
from ray_jobs.report.sections.comparison import comparison_section, differences_section
from ray_jobs.report.sections.errors import calibration_section, slices_section
from ray_jobs.report.sections.origin import licences_section
from ray_jobs.report.writing import write_files
from ray_jobs.results.comparison import Comparison
from ray_jobs.results.run import Workspace

logger = logging.getLogger(__name__)


def write_comparison_report(workspace: Workspace, raw: RawData, comparison: Comparison) -> None:
    """Write the report on a finished comparison into the run's folder."""
    assessed = (
        (
            differences_section(comparison),
            slices_section(comparison),
            calibration_section(comparison),
        )
        if comparison.scored == "test"
        else ()
    )
    paths = workspace.paths
    config = Listing("The whole configuration, as config.toml", paths.config.read_bytes().decode())
    report = Report(
        title=f"Comparison on {raw.name}: run {workspace.config.name}",
        warnings=((SYNTHETIC,) if raw.synthetic else ()),
        key_figures=(),
        sections=(
            comparison_section(comparison),
            *assessed,
            ReportSection("What was run", (config,)),
            licences_section(raw),
        ),
    )
    write_files(report, paths.plots, paths.comparison_markdown, paths.comparison_html)
    logger.info(f"report: {paths.comparison_html}")
