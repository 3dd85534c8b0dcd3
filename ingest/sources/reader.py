"""Read the files of every MovieLens layout into the same four tables, and validate them.

Sources: the README of each release at https://files.grouplens.org/datasets/movielens/.
"""

from __future__ import annotations

from pathlib import Path

from ingest.releases import Layout
from ingest.sources.movie_file import read_movies
from ingest.sources.optional_files import read_links, read_tags
from ingest.sources.rating_file import read_ratings
from ingest.sources.reading import Reading
from ingest.sources.tables import Tables


def read(
    folder: Path, layout: Layout, timestamp_unit: str = "auto", duplicates: str = "refuse"
) -> Tables:
    """Read and validate the data set in ``folder``.

    Ratings of movies that the file of movies does not name are kept: such movies are added with a
    placeholder title and without genres. Notices say what differs from the releases' notation, and
    what was left out.

    Args:
        folder: where the files are.
        layout: their layout.
        timestamp_unit: as ``data.timestamp_unit``.
        duplicates: as ``data.duplicates``.

    Raises:
        DatasetError: naming the file, the lines, what was found and what was expected.
    """
    reading = Reading(folder, layout)
    ratings = read_ratings(reading, timestamp_unit, duplicates)
    movies = read_movies(reading, ratings)
    return Tables(
        ratings=ratings,
        movies=movies,
        links=read_links(movies["movie_id"].to_pylist(), reading),
        tags=read_tags(reading),
        notices=tuple(reading.notices),
    )
