"""Names of the files and folders that a run leaves, spelled here alone."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.storage import Storage

RECOMMENDATIONS = "recommendations.parquet"


@dataclass(frozen=True)
class SearchPaths:
    """Results of one search."""

    folder: Storage

    @property
    def trials(self) -> Storage:
        """A row for each trial."""
        return self.folder / "trials.parquet"

    @property
    def best_config(self) -> Storage:
        """The best trial, with its settings and its validation error."""
        return self.folder / "best_config.json"

    @property
    def best_experiment(self) -> Storage:
        """The sections of the configuration that the best trial trained with, as a file for
        ``--config``.
        """
        return self.folder / "best_config.toml"

    @property
    def study(self) -> Storage:
        """The newest search as an Optuna journal."""
        return self.folder / "study.journal"

    def records(self, identity: str) -> Storage:
        """Folder of the records of the trials of the search with this fingerprint."""
        return self.folder / "trials" / identity[:16]


@dataclass(frozen=True)
class RunPaths:
    """Everything in ``runs/<name>/``."""

    folder: Storage

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.name

    @property
    def data(self) -> Storage:
        """The name of the data set that the results are of."""
        return self.folder / "dataset.json"

    @property
    def config(self) -> Storage:
        """The whole configuration."""
        return self.folder / "config.toml"

    @property
    def metrics(self) -> Storage:
        """``ray_jobs.results.metrics.RunMetrics``."""
        return self.folder / "metrics.json"

    @property
    def comparison(self) -> Storage:
        """``ray_jobs.results.comparison.Comparison``."""
        return self.folder / "comparison.json"

    @property
    def predictions(self) -> Storage:
        """Folder with the compared models' predictions for the test rows."""
        return self.folder / "predictions"

    @property
    def tables(self) -> Storage:
        """Folder with the tables of reports as CSV and LaTeX."""
        return self.folder / "tables"

    @property
    def choice_comparison(self) -> Storage:
        """``ray_jobs.results.choices.ChoiceComparison``."""
        return self.folder / "choice_comparison.json"

    @property
    def rankings(self) -> Storage:
        """Folder with the compared choice models' rankings for the test users."""
        return self.folder / "rankings"

    @property
    def choice_metrics(self) -> Storage:
        """``ray_jobs.results.choices.ChoiceMetrics``."""
        return self.folder / "choice_metrics.json"

    @property
    def choice_checkpoint(self) -> Storage:
        """Folder of the final choice model, in that of the rating model."""
        return self.checkpoint / "choice"

    @property
    def compared(self) -> Storage:
        """Folder with the result of each compared model, for comparisons that are continued."""
        return self.folder / "compared"

    @property
    def compared_choices(self) -> Storage:
        """The same of choice models."""
        return self.folder / "compared-choices"

    @property
    def checkpoint(self) -> Storage:
        """Folder of the final model."""
        return self.folder / "checkpoint"

    @property
    def best_checkpoint(self) -> Storage:
        """Folder of the model after its best epoch, trained on the training rows alone."""
        return self.folder / "checkpoints" / "best"

    @property
    def last_checkpoint(self) -> Storage:
        """Folder of the same model after its last epoch."""
        return self.folder / "checkpoints" / "last"

    @property
    def report_html(self) -> Storage:
        """The report as one page."""
        return self.folder / "report.html"

    @property
    def report_markdown(self) -> Storage:
        """The report as Markdown, with pictures from ``plots``."""
        return self.folder / "report.md"

    @property
    def comparison_html(self) -> Storage:
        """The report on the comparison alone as one page."""
        return self.folder / "comparison.html"

    @property
    def comparison_markdown(self) -> Storage:
        """The report on the comparison alone as Markdown."""
        return self.folder / "comparison.md"

    @property
    def plots(self) -> Storage:
        """Folder of the report's pictures."""
        return self.folder / "plots"

    @property
    def folds(self) -> Storage:
        """The summary of a cross-validation."""
        return self.folder / "folds.json"

    def search(self, loss: str | None = None) -> SearchPaths:
        """Results of the search, or of the search for ``loss`` alone."""
        return SearchPaths(self.folder / "searches" / loss if loss else self.folder)

    def stage(self, name: str) -> Storage:
        """The record that a stage is done."""
        return self.folder / ".stages" / f"{name}.json"

    def ray(self, name: str) -> Storage:
        """Folder for what Ray writes during a stage."""
        return self.folder / "ray" / name
