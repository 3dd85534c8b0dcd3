"""A report as files in a run's folder."""

from __future__ import annotations

from ray_jobs.report.document import Report
from ray_jobs.results.paths import RunPaths


def write(report: Report, paths: RunPaths) -> None:
    """Write the pictures, the Markdown and, last, the page."""
    for plot in report.plots:
        (paths.plots / f"{plot.name}.png").write_bytes(plot.png)
    paths.report_markdown.write_text(report.markdown(paths.plots.name))
    paths.report_html.write_text(report.html())
