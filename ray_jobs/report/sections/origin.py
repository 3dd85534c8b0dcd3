"""What was run, on what, for how long, and whose data it used."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.raw_data import RawData
from ncf.config import TimeDecayConfig
from ray_jobs.config import JobConfig
from ray_jobs.report.document import DataTable, Listing, ReportSection, Text
from ray_jobs.results.choices import ChoiceMetrics
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.run import Workspace
from ray_jobs.stages.choice_search import members_to_search

Metrics = RunMetrics | ChoiceMetrics


def run_section(workspace: Workspace, metrics: Metrics, decay: TimeDecayConfig) -> ReportSection:
    """Seeds, versions, hardware, wall times and the whole configuration."""
    return ReportSection(
        "What was run",
        (
            _settings(workspace, metrics, decay),
            _hardware(metrics),
            DataTable(
                "Versions",
                ("package", "version"),
                tuple(metrics.versions.items()),
                words=(0, 1),
            ),
            _times(workspace, metrics),
            Listing(
                "The whole configuration, as config.toml",
                workspace.paths.config.read_bytes().decode(),
            ),
        ),
    )


def _settings(workspace: Workspace, metrics: Metrics, decay: TimeDecayConfig) -> DataTable:
    config = workspace.config
    rows = (
        ("split", f"{metrics.split.kind}, seed {metrics.split.seed}"),
        ("time decay", f"{decay.rate_per_day:g} a day, on {decay.apply_to}"),
        ("training seed", str(metrics.seed)),
        ("comparison seeds", ", ".join(map(str, config.compare.seeds))),
        ("search seed", str(config.tune.seed)),
        ("hash of data and configuration", metrics.config_hash[:16]),
    )
    return DataTable("Settings and seeds", ("setting", "value"), rows, words=(0, 1))


def _hardware(metrics: Metrics) -> DataTable:
    cluster = {
        f"{kind}s of the cluster": f"{amount:g}" for kind, amount in metrics.resources.items()
    }
    rows = tuple((metrics.hardware | cluster).items())
    return DataTable("Hardware, of the final training", ("what", "which"), rows, words=(0, 1))


def _times(workspace: Workspace, metrics: Metrics) -> DataTable:
    took = {name: workspace.seconds(name) for name in _stages(workspace.config)}
    rows = (
        *((name, "not recorded" if s is None else f"{s:,.1f}") for name, s in took.items()),
        ("of train: training of the final model", f"{metrics.wall_seconds:,.1f}"),
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
    if config.wants_ratings:
        yield from _stages_of_ratings(config)
    if config.wants_choices:
        yield from (f"tune-{member}" for member in members_to_search(config))
        yield from ("compare-choices", "train-choices")
    yield "recommend"


def _stages_of_ratings(config: JobConfig) -> Iterator[str]:
    if config.tune.num_trials:
        yield "tune"
    if config.compare.trials_per_loss:
        yield from (f"tune-{loss}" for loss in config.compare.losses)
    yield from ("compare", "train")


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
