"""Bring the data in and prepare them: features, splits, weights."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from foundation.console import heading
from foundation.errors import ConfigError
from ingest import dataset as ingest_stage
from ingest.raw_data import RawData
from ncf.data import prepare
from ncf.data.dataset import PreparedDataset
from ncf.data.prepare import PreparationConfig
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import canonical, key_of
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparationInputs:
    """Everything that prepared data depend on."""

    raw: str
    """Fingerprint of the raw data set."""
    preparation: PreparationConfig


@canonical.register
def _(value: PreparationConfig) -> Any:
    return value.as_dict()


def ingest(workspace: Workspace) -> RawData:
    """Data source and TMDb -> raw tables; only what is missing or outdated is fetched.

    Raises:
        MovieRatingsError: if the data cannot be read, or the run has results of other data.
    """
    config, started = workspace.config, time.monotonic()
    with heading("ingest"):
        raw = ingest_stage.ingest(
            config.data,
            config.tmdb,
            workspace.storage,
            force=workspace.force,
        )
        for notice in raw.notices:
            logger.info(f"   NOTE: {notice}")
    workspace.use_data(raw.name)
    workspace.took("ingest", raw.fingerprint, time.monotonic() - started)
    return raw


def preprocess(
    workspace: Workspace,
    raw: RawData,
    workers: Workers | None = None,
    *,
    train_on_validation: bool = False,
    owner: str = "",
) -> PreparedDataset:
    """Join, impute, de-skew, encode, split and weight, unless it was done before.

    Args:
        workspace: the run.
        raw: the data set.
        workers: what else holds CPUs; ended if there is something to do.
        train_on_validation: make the data of the final model, whose vocabularies and scalers are
            fitted on training and validation rows together.
        owner: the configuration of a comparison that these data are for; empty for the run's own.
    """
    config = workspace.config
    preparation = PreparationConfig(
        config.split,
        config.features,
        config.time_decay,
        train_on_validation,
        use_tmdb=bool(raw.tmdb_coverage),
        split_folder=config.data.path,
    )
    key = key_of(PreparationInputs(raw.fingerprint, preparation))
    folder = workspace.prepared(key)
    manifest = folder / "manifest.json"
    name = "preprocess (training + validation)" if train_on_validation else "preprocess"
    name += f" for {owner}" if owner else ""
    if manifest.exists() and not workspace.force:
        logger.info(f"── {name}: unchanged since it was last done, skipped")
        return _usable(PreparedDataset.open(folder.filesystem, folder.path), config)
    started = time.monotonic()
    with heading(name):
        ensure_ray(config)
        if workers:
            workers.close()
        # Without a manifest the folder is what an interrupted run left.
        folder.delete()
        folder.make_folder()
        prepared = prepare.prepare(
            (raw.folder.filesystem, raw.folder.path),
            (folder.filesystem, folder.path),
            preparation,
            key,
        )
        counts = ", ".join(f"{n:,} {split}" for split, n in prepared.manifest.counts.items())
        logger.info(
            f"   {counts} ratings; features: {', '.join(prepared.preprocessor.numeric_names)}"
        )
    if not owner:
        record = "preprocess-refit" if train_on_validation else "preprocess"
        workspace.took(record, key, time.monotonic() - started)
    return _usable(prepared, config)


def _usable(prepared: PreparedDataset, config: JobConfig) -> PreparedDataset:
    """Refuse to learn ratings that are all the same.

    Raises:
        ConfigError: if a rating model is wanted of such data.
    """
    fitted = prepared.preprocessor
    if config.wants_ratings and fitted.rating_min == fitted.rating_max:
        raise ConfigError(
            f"all training ratings are {fitted.rating_min:g}, so there is nothing to learn about "
            "ratings. If rows are choices, such as clicks, train the choice model alone: "
            "--set task=choice"
        )
    return prepared
