"""Movies' features as columns: genres, decades, numbers and names."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from ncf.data.interactions import Floats
from ncf.data.preprocessor import MovieTable, Preprocessor

NAME_DIM: Final = 64
"""Maximum number of columns that names are reduced to."""


def content_columns(preprocessor: Preprocessor) -> Floats:
    """``[M, F]`` genres and decades as 0 and 1, standardised numbers and their missing indicators;
    each column minus its mean."""
    movies = preprocessor.movies
    decades = np.eye(len(preprocessor.decades) + 1)[movies.decade][:, 1:]
    columns = np.concatenate([movies.genres, decades, movies.numeric], axis=1)
    return (columns - columns.mean(axis=0)).astype(np.float32)


def name_columns(movies: MovieTable) -> Floats:
    """``[M, D]`` directors, cast and keywords, reduced to ``NAME_DIM`` columns or fewer.

    By a truncated singular value decomposition of 0 and 1, columns scaled by one over the square
    root of the name's number of movies, so that a name of few movies says more. Signs of columns
    have no meaning.
    """
    lists = [_multi_hot(entries) for entries in movies.names.values()]
    if not lists:
        return np.zeros((len(movies), 0), np.float32)
    names = sparse.hstack(lists, format="csr")
    names = names[:, np.flatnonzero(names.sum(axis=0))]
    dim = min(NAME_DIM, min(names.shape) - 1)
    if dim < 1:
        return np.zeros((len(movies), 0), np.float32)
    scaled = names @ sparse.diags_array(1 / np.sqrt(names.sum(axis=0)))
    # The start makes the result the same each time.
    left, singular, _ = linalg.svds(scaled, k=dim, v0=np.ones(min(scaled.shape)))
    return (left * singular).astype(np.float32)


def _multi_hot(entries: np.ndarray) -> sparse.csr_array:
    """``[M, V]`` of lists ``[M, L]`` that are padded with 0."""
    movie, place = np.nonzero(entries)
    names = entries[movie, place] - 1
    shape = (len(entries), int(entries.max(initial=0)))
    return sparse.csr_array((np.ones(len(movie)), (movie, names)), shape=shape)
