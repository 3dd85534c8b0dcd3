"""Damaged files of ratings are read correctly as far as can be seen, or refused in a sentence."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS
from ingest.config import DataConfig
from ingest.errors import DatasetError
from ingest.sources.files import RatingFiles
from ingest.sources.tables import Tables, check
from tests.fuzz.mutation import Damage, damaged, damages

FLAGS = "|".join("0" * 18 + "1")
LAYOUTS: dict[str, dict[str, bytes]] = {
    "csv": {
        "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n"
        b"7,1,5,1445714994\n",
        "movies.csv": 'movieId,title,genres\n1,"President, The (1995)",Comedy|Drama\n'
        "3,Amélie (2001),(no genres listed)\n".encode(),
        "links.csv": b"movieId,imdbId,tmdbId\n1,0112346,9087\n3,0211915,\n",
        "tags.csv": b'userId,movieId,tag,timestamp\n7,1,"funny, ""very""",1445714994\n',
    },
    "double-colon": {
        "ratings.dat": b"1::122::5::838985046\n1::185::3.5::838983525\n",
        "movies.dat": "122::Boomerang (1992)::Comedy\n185::Très :: (1999)::Sci-Fi\n".encode(
            "latin-1"
        ),
        "tags.dat": b"15::122::excellent!::1215184630\n",
    },
    "tabs": {
        "u.data": b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        "u.item": f"242|K (1996)|24-Jan-1997||x|{FLAGS}\n302|L (1997)|||x|{FLAGS}\n".encode(),
    },
}
FILES = [(layout, name) for layout, files in LAYOUTS.items() for name in files]


@pytest.mark.parametrize(("layout", "name"), FILES, ids=[name for _, name in FILES])
@given(changes=damages())
def test_a_damaged_file(layout: str, name: str, changes: list[Damage]) -> None:
    files = dict(LAYOUTS[layout])
    files[name] = damaged(files[name], changes)
    read(files)


@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.integers(), st.text(max_size=4)),
            st.integers(0, 5),
            st.one_of(st.floats(), st.sampled_from([1, 2.5, 5])),
            st.one_of(st.integers(), st.integers(0, 2 * 10**9), st.integers(10**12, 2 * 10**12)),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_rows_of_odd_values(rows: list[tuple[object, int, float, int]]) -> None:
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    content = ("userId,movieId,rating,timestamp\n" + lines).encode(errors="replace")
    read(LAYOUTS["csv"] | {"ratings.csv": content})


def read(files: dict[str, bytes]) -> None:
    """Read a folder with these files: whatever is accepted is what the rest can use."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        refusal = ""
        try:
            tables = RatingFiles.at(DataConfig(source="folder", path=folder), None).read()
            check(tables, "fuzz")
        except DatasetError as refused:
            refusal = str(refused)
    if refusal:
        assert len(refusal) < 5_000
        assert len(refusal.splitlines()) <= 12
    else:
        check_all(tables)


def check_all(tables: Tables) -> None:
    expected = ((tables.ratings, RATINGS), (tables.movies, MOVIES), (tables.links, LINKS))
    for table, schema in (*expected, (tables.tags, TAGS)):
        table.validate(full=True)
        assert table.schema.equals(schema)
    stars = tables.ratings["rating"].to_numpy()
    times = tables.ratings["timestamp"].to_numpy()
    assert np.isfinite(stars).all()
    assert (times >= 0).all()
    assert (times <= time.time() + 2 * 86_400).all()
    years = [year for year in tables.movies["year"].to_pylist() if year is not None]
    assert all(1870 <= year <= 2100 for year in years)
    ids = [each for each in tables.links["tmdb_id"].to_pylist() if each is not None]
    assert all(each > 0 for each in ids)
