"""The main job, end to end: data, search, comparison, model, recommendations, report.

::

    ingest      MovieLens files + TMDb (async, concurrent, resumable)   -> raw/<data set>/
    preprocess  Ray Data: join, impute, de-skew, encode, split, weight  -> prepared/<hash>/
    tune        Ray Tune + Optuna over losses, layer sizes, ...         -> trials, best_config
    compare     losses or configurations, several seeds; baselines      -> comparison.json
    train       best configuration on train + validation, TorchTrainer  -> checkpoint/, metrics.json
    recommend   top-N for every user, Ray Data batch inference          -> recommendations.parquet
    report      tables and plots                                        -> report.html, report.md

A stage is skipped when its inputs and its part of the configuration are unchanged.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from foundation.console import heading
from ray_jobs.cli import main
from ray_jobs.configurations import require_test_errors

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Every stage, each on what the earlier ones made."""
    from ray_jobs.cluster import preflight
    from ray_jobs.report.pipeline import write_report
    from ray_jobs.results.run import Workspace
    from ray_jobs.stages.comparison import compare
    from ray_jobs.stages.preparation import ingest, preprocess
    from ray_jobs.stages.recommendation import recommend
    from ray_jobs.stages.training import train
    from ray_jobs.stages.tuning import check_search, search

    require_test_errors(config, "the report is on the final model's errors there")
    check_search(config)
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        raw = ingest(workspace)
        prepared = preprocess(workspace, raw)
        best_trial = search(workspace, prepared)
        comparison = compare(workspace, raw, prepared, best_trial)
        final_model = train(workspace, raw, prepared, best_trial)
        recommend(workspace, final_model)
        with heading("report"):
            write_report(workspace, raw, prepared, best_trial, comparison, final_model)


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
