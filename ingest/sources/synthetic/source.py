"""The source of a synthetic data set, which writes MovieLens- and TMDb-shaped tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.parquet as pq

from foundation.schemas import RATINGS
from foundation.storage import Storage
from ingest.config import DataConfig, SyntheticConfig
from ingest.registry import SYNTHETIC
from ingest.sources.base import Source, TmdbRecords, Written
from ingest.sources.synthetic.data import SyntheticData
from ingest.sources.synthetic.records import SyntheticTmdb
from ingest.sources.tables import Tables

SYNTHETIC_NOTICE: Final = (
    "THIS IS SYNTHETIC DATA, not MovieLens: every user, movie and rating is made up, and figures "
    "measured on it say nothing about real recommendations."
)

GENERATOR_VERSION: Final = 2
"""Incremented whenever the same configuration gives different data."""


@dataclass(frozen=True)
class SyntheticSource(Source):
    """Generated data."""

    config: SyntheticConfig

    licence: ClassVar[str] = "The data are synthetic and bound to no licence."
    is_synthetic: ClassVar[bool] = True
    has_tmdb_records: ClassVar[bool] = True

    @classmethod
    def open(cls, config: DataConfig, downloads: Path) -> SyntheticSource:
        """The data that ``data.synthetic`` describes."""
        return cls(SYNTHETIC, config.synthetic)

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """Always ``synthetic``."""
        return SYNTHETIC

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """The configured number."""
        return config.synthetic.num_ratings

    @property
    def version(self) -> dict[str, Any]:
        """The generator's version and configuration."""
        return {"synthetic": self.config.model_dump(), "generator_version": GENERATOR_VERSION}

    def read(self) -> Tables:
        """Generate all tables in memory.

        Raises:
            ConfigError: if the configuration cannot be met.
        """
        data = SyntheticData.generate(self.config)
        tmdb = SyntheticTmdb.of(data)
        ratings = pa.Table.from_batches(data.rating_batches(), schema=RATINGS)
        return Tables(
            ratings=ratings,
            movies=data.movies(),
            links=data.links(tmdb.tmdb_ids, tmdb.imdb_ids),
            tags=data.tags(),
            notices=(SYNTHETIC_NOTICE,),
            noise_floor_rmse=data.noise_floor.rmse,
        )

    def write(self, target: Storage) -> Written:
        """Generate and write the ratings batch by batch, to bound memory.

        Raises:
            ConfigError: if the configuration cannot be met.
        """
        data = SyntheticData.generate(self.config)
        tmdb = SyntheticTmdb.of(data)
        with (
            (target / "ratings.parquet").writing() as stream,
            pq.ParquetWriter(stream, RATINGS, compression="zstd") as writer,
        ):
            for batch in data.rating_batches():
                writer.write_batch(batch)
        (target / "movies.parquet").write_table(data.movies())
        (target / "links.parquet").write_table(data.links(tmdb.tmdb_ids, tmdb.imdb_ids))
        (target / "tags.parquet").write_table(data.tags())
        return Written(data.noise_floor.rmse, (SYNTHETIC_NOTICE,))

    def tmdb_records(self) -> TmdbRecords:
        """Generated records, which are served over HTTP like TMDb's."""
        tmdb = SyntheticTmdb.of(SyntheticData.generate(self.config))
        return TmdbRecords(tmdb.movies, tmdb.by_imdb_id)
