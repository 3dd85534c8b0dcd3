"""Predictions of the user's own models, read from files and scored as those of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from foundation.checksums import sha256_of
from foundation.errors import ConfigError, shortened
from foundation.storage import Storage
from ingest.errors import DatasetError
from ingest.sources.parsing import quoted
from ingest.sources.table.files import TableFile, opened
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.evaluation.predictions import Predictions
from ray_jobs.results.comparison import ModelResult
from ray_jobs.results.original_ids import OriginalIds, Texts
from ray_jobs.stages.compared_baselines import write_predictions
from ray_jobs.stages.compared_models import ComparedData

FOLD: Final = "{fold}"
"""In the name of a file, what stands for the name of each fold."""
COLUMNS: Final = ("userId", "movieId", "prediction")
_MAX_NAMED: Final = 3


@dataclass(frozen=True)
class GivenModel:
    """A model of which only predictions are known."""

    name: str
    file: str
    sha256: str
    """Of the file, so that another content makes another comparison."""

    @property
    def label(self) -> str:
        """Names the file of predictions in the run's folder."""
        return f"given {self.name}"


def given_models(files: Mapping[str, str]) -> tuple[GivenModel, ...]:
    """The models whose predictions are in files.

    Raises:
        ConfigError: if there is no such file.
    """
    return tuple(GivenModel(name, file, _sha256(name, file)) for name, file in files.items())


def _sha256(name: str, file: str) -> str:
    where = f"compare.predictions.{name} = {file!r}"
    if FOLD in file:
        raise ConfigError(
            f"{where}: {FOLD} stands for the splits of --splits or cross-validate; expected the "
            "name of one file"
        )
    try:
        return sha256_of(Path(file).expanduser())
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}. Correct the path") from error


@dataclass(frozen=True)
class ComparedPredictions:
    """Scores models by their predictions for the test rows."""

    data: ComparedData
    ids: OriginalIds
    folder: Storage
    """Where predictions of the comparison are."""

    def results(self, models: Sequence[GivenModel]) -> Iterator[ModelResult]:
        """A row for each model; its predictions are written.

        Raises:
            DatasetError: naming lines that cannot be used, and test rows without a prediction.
        """
        for model in models:
            stars = self._stars(Path(model.file).expanduser())
            found = _clipped(stars, self.data.test, self.data.final.preprocessor)
            yield ModelResult(
                name=model.name,
                detail=f"predictions in {Path(model.file).name}",
                kind="given",
                test=(found.score(self.data.test).as_dict(),),
                validation=(),
                predictions=(write_predictions(model.label, found, self.data, self.folder),),
            )

    def _stars(self, path: Path) -> npt.NDArray[np.float32]:
        """``[N]`` the predictions of a file for the test rows, in their order."""
        rows = self.data.final.table("test", ["user_id", "movie_index"])
        movies = self.data.final.preprocessor.movies.ids[rows["movie_index"].to_numpy()]
        wanted = pd.MultiIndex.from_arrays(
            [self.ids.of_users(rows["user_id"].to_numpy()), self.ids.of_movies(movies)]
        )
        with opened(path, lambda names: bool(set(COLUMNS) & set(names))) as file:
            users, movies, stars = _read(file, self.ids)
            position = wanted.get_indexer(pd.MultiIndex.from_arrays([users, movies]))
            _refuse_wrong(file, position, stars)
        found = np.full(len(wanted), np.nan)
        found[position[position >= 0]] = pd.to_numeric(stars[position >= 0])
        absent = np.flatnonzero(np.isnan(found))
        if len(absent):
            named = "; ".join(f"user {u}, movie {m}" for u, m in wanted[absent[:_MAX_NAMED]])
            raise DatasetError(
                f"{path}: {len(absent):,} of {len(wanted):,} test rows have no prediction, such as "
                f"{named}. Expected one for each test row; movie-ratings preprocess "
                "--export-splits FOLDER writes them."
            )
        return found.astype(np.float32)


def _read(file: TableFile, ids: OriginalIds) -> tuple[Texts, Texts, Texts]:
    """Ids of users, of movies and predictions as texts.

    Raises:
        DatasetError: if one is missing.
    """
    missing = [name for name in COLUMNS if file.header.count(name) != 1]
    if missing:
        raise DatasetError(
            f"{file.path}, line 1: expected the columns {', '.join(COLUMNS)}, each once; found "
            f"{shortened(', '.join(file.header))} ({file.layout})"
        )
    users, movies, stars = file.read(COLUMNS)
    return _texts(users, ids.users), _texts(movies, ids.movies), _texts(stars, ids.users)


def _texts(column: pa.ChunkedArray, names: Mapping[int, str] | None) -> Texts:
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    if names is None:  # numbers, which a program may have written as 7.0
        texts = pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0+$", r"\1")
    found: Texts = pc.fill_null(texts, "").to_pandas().to_numpy(object)
    return found


def _refuse_wrong(file: TableFile, position: npt.NDArray[np.int64], stars: Texts) -> None:
    """Refuse predictions for test rows that are no numbers, or are there a second time."""
    values = pd.to_numeric(pd.Series(stars), errors="coerce").to_numpy(np.float64)
    is_wrong = (position >= 0) & ~np.isfinite(values)
    is_repeated = (position >= 0) & pd.Series(position).duplicated().to_numpy()
    wrong = [
        (row, f"prediction is {quoted(str(stars[row]))}, expected a number")
        for row in np.flatnonzero(is_wrong).tolist()
    ]
    wrong += [
        (row, "the user and movie are there a second time")
        for row in np.flatnonzero(is_repeated & ~is_wrong).tolist()
    ]
    advice = "Expected one prediction in stars for each test row."
    file.refuse(sorted(wrong)[:10], len(wrong), advice)


def _clipped(
    stars: npt.NDArray[np.float32], rows: Batch, preprocessor: Preprocessor
) -> Predictions:
    """Predictions as the scores take them: clipped as the models' are."""
    clipped = np.clip(stars, preprocessor.rating_min, preprocessor.rating_max)
    return Predictions(clipped, (torch.from_numpy(clipped) * rows.weights).numpy())
