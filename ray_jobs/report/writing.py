"""A report as files in a run's folder."""

from __future__ import annotations

from foundation.storage import Storage
from ray_jobs.report.document import Report
from ray_jobs.report.tables import write_tables
from ray_jobs.results.paths import RunPaths


def write(report: Report, paths: RunPaths) -> None:
    """Write the report of a run."""
    write_files(report, paths.plots, paths.report_markdown, paths.report_html)
    write_tables(report, paths.tables / "report")


def write_files(report: Report, plots: Storage, markdown: Storage, html: Storage) -> None:
    """Write the pictures into the folder ``plots``, the Markdown and, last, the page."""
    for plot in report.plots:
        (plots / f"{plot.name}.png").write_bytes(plot.png)
    markdown.write_text(report.markdown(plots.name))
    html.write_text(report.html())
