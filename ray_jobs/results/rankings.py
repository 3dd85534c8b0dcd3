"""Files of rankings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foundation.storage import Storage
from ncf.evaluation.holdout import Holdout


def write_rankings(ranked: npt.NDArray[np.int64], holdout: Holdout, file: Storage) -> None:
    """Write ``ranked: [B, K]``, positions of movies or -1 for nothing, with the users' ids."""
    flat = pa.array(ranked.ravel().astype(np.int32))
    lists = pa.FixedSizeListArray.from_arrays(flat, ranked.shape[1])
    file.write_table(pa.table({"user_id": holdout.known.users, "movie_index": lists}))


def read_rankings(file: Storage) -> npt.NDArray[np.int64]:
    """``[B, K]`` that ``write_rankings`` wrote."""
    lists = file.read_table()["movie_index"].combine_chunks()
    return lists.flatten().to_numpy().reshape(len(lists), -1).astype(np.int64)
