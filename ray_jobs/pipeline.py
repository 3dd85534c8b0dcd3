"""Run the whole pipeline: data, search, comparison, final model, recommendations, report.

::

    ingest      MovieLens files + TMDb (async, concurrent, resumable)   -> raw/<data set>/
    preprocess  Ray Data: join, impute, de-skew, encode, split, weight  -> prepared/<hash>/
    tune        Ray Tune + Optuna over losses, layer sizes, ...         -> trials, best_config
                for stars (RMSE) and for choices (NDCG@10)
    compare     losses or configurations, several seeds; baselines      -> comparison.json
    train       best configurations on train + validation, TorchTrainer -> checkpoint/, metrics.json
    recommend   top-N for every user by choice, Ray Data                -> recommendations.parquet
    report      tables and plots                                        -> report.html, report.md

A stage is skipped when its inputs and its part of the configuration are unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.cli import main
from foundation.console import heading, say_result
from ray_jobs.cli import job
from ray_jobs.configurations import require_test_errors
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


@job("run", __doc__)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Run every stage that is not up to date, in this order."""
    from ray_jobs.report.pipeline import write_report
    from ray_jobs.stages.graph import stages_of
    from ray_jobs.stages.tuning import check_search

    require_test_errors(config, "the report is on the final model's errors there")
    check_search(config)
    with stages_of(config, redo=redo) as stages:
        # The workers of a search leave no CPUs for preparing data.
        _ = stages.raw, stages.prepared, stages.final_data, stages.scored_data
        _ = stages.best_parameters
        _ = stages.comparisons
        _ = stages.final_models
        say_result(f"recommendations of all users: {stages.recommendations}")
        with heading("report"):
            write_report(stages)


if __name__ == "__main__":
    raise SystemExit(main(command))
