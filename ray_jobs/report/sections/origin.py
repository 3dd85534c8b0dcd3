"""What was run, on what, for how long, and whose data it used."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.dataset import RawData
from ray_jobs.config import JobConfig
from ray_jobs.report.document import DataTable, Listing, ReportSection, Text
from ray_jobs.results.run import Workspace
from ray_jobs.stages.training import FinalModel
from ray_jobs.stages.tuning import BestTrial


def run_section(workspace: Workspace, model: FinalModel, best_trial: BestTrial) -> ReportSection:
    """Seeds, versions, hardware, wall times and the whole configuration."""
    return ReportSection(
        "What was run",
        (
            _settings(workspace, model, best_trial),
            _hardware(model),
            DataTable(
                "Versions",
                ("package", "version"),
                tuple(model.metrics.versions.items()),
                words=(0, 1),
            ),
            _times(workspace, model),
            Listing(
                "The whole configuration, as config.toml",
                workspace.paths.config.read_bytes().decode(),
            ),
        ),
    )


def _settings(workspace: Workspace, model: FinalModel, best_trial: BestTrial) -> DataTable:
    metrics, config, decay = model.metrics, workspace.config, best_trial.experiment.time_decay
    rows = (
        ("split", f"{metrics.split.kind}, seed {metrics.split.seed}"),
        ("time decay", f"{decay.rate_per_day:g} a day, on {decay.apply_to}"),
        ("training seed", str(metrics.seed)),
        ("comparison seeds", ", ".join(map(str, config.compare.seeds))),
        ("search seed", str(config.tune.seed)),
        ("hash of data and configuration", metrics.config_hash[:16]),
    )
    return DataTable("Settings and seeds", ("setting", "value"), rows, words=(0, 1))


def _hardware(model: FinalModel) -> DataTable:
    cluster = {
        f"{kind}s of the cluster": f"{amount:g}" for kind, amount in model.metrics.resources.items()
    }
    rows = tuple((model.metrics.hardware | cluster).items())
    return DataTable("Hardware, of the final training", ("what", "which"), rows, words=(0, 1))


def _times(workspace: Workspace, model: FinalModel) -> DataTable:
    took = {name: workspace.seconds(name) for name in _stages(workspace.config)}
    rows = (
        *((name, "not recorded" if s is None else f"{s:,.1f}") for name, s in took.items()),
        ("of train: training of the final model", f"{model.metrics.wall_seconds:,.1f}"),
    )
    caption = "Wall time of each stage when it was last done in this run"
    return DataTable(caption, ("stage", "seconds"), rows)


def _stages(config: JobConfig) -> Iterator[str]:
    """Names of the stages that leave a record of their time, in their order."""
    yield from ("ingest", "preprocess")
    if config.split.validation and (
        config.final.refit_on_validation or config.compare.refit_on_validation
    ):
        yield "preprocess-refit"
    if config.tune.num_trials:
        yield "tune"
    if config.compare.trials_per_loss:
        yield from (f"tune-{loss}" for loss in config.compare.losses)
    yield from ("compare", "train", "recommend")


def licences_section(raw: RawData) -> ReportSection:
    """The terms of the data, and the texts that must be shown with them."""
    return ReportSection(
        "Licences and attribution",
        (
            Text(raw.licence),
            *map(Text, raw.attribution),
            Text("The program that made this report is licensed under Apache 2.0."),
        ),
    )
