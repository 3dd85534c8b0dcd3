"""Results of a run -> ``report.html``, ``report.md`` and ``plots/``.

Each module makes the sections about one thing; ``ray_jobs.report.document`` makes a page of them.
"""

from __future__ import annotations

from typing import Final

from foundation.console import say
from ingest.dataset import RawData
from ncf.data.dataset import PreparedDataset
from ray_jobs.report.document import Report
from ray_jobs.report.sections.comparison import comparison_section, differences_section
from ray_jobs.report.sections.data import data_section
from ray_jobs.report.sections.errors import calibration_section, residuals_section, slices_section
from ray_jobs.report.sections.model import examples_section, model_section, rankings_section
from ray_jobs.report.sections.origin import licences_section, run_section
from ray_jobs.report.sections.search import search_section
from ray_jobs.results.comparison import Comparison
from ray_jobs.results.run import Workspace
from ray_jobs.train import Trained
from ray_jobs.tune import BestTrial

SYNTHETIC: Final = (
    "SYNTHETIC DATA: every user, movie and rating here was generated. The figures say that the "
    "program works and nothing about real films or real taste."
)


def write_report(
    workspace: Workspace,
    raw: RawData,
    prepared: PreparedDataset,
    chosen: BestTrial,
    comparison: Comparison,
    trained: Trained,
) -> None:
    """Write the report of a finished run."""
    config, folder = workspace.config, workspace.run
    test = trained.metrics["test"]
    report = Report(
        title=f"Rating models on {raw.name}: run {config.name}",
        warnings=((SYNTHETIC,) if raw.synthetic else ()),
        key_figures=(
            ("Ratings", f"{raw.num_ratings:,}"),
            ("RMSE of the kept model, test rows", f"{test['rmse']:.4f}"),
            ("MAE of the kept model, test rows", f"{test['mae']:.4f}"),
            ("R² of the kept model, test rows", f"{test['r2']:.3f}"),
        ),
        sections=(
            data_section(raw, prepared, chosen.experiment),
            comparison_section(comparison),
            differences_section(comparison),
            slices_section(comparison),
            residuals_section(workspace, comparison, prepared, trained),
            calibration_section(comparison),
            *search_section(workspace),
            model_section(trained, chosen, config),
            rankings_section(trained),
            examples_section(workspace, raw),
            run_section(workspace, trained, chosen),
            licences_section(raw),
        ),
    )
    for plot in report.plots:
        (folder / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    (folder / "report.md").write_text(report.markdown("plots"))
    (folder / "report.html").write_text(report.html())
    say(f"report: {folder / 'report.html'}")
