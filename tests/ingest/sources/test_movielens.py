"""Readers: each release in its own format and encoding, and every way a file can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS
from ingest.errors import DatasetError
from ingest.sources import locate, reader
from ingest.sources.reader import title_year
from ingest.sources.tables import Tables

CSV_RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n7,1,5,0\n"
CSV_MOVIES = (
    "movieId,title,genres\n"
    '1,"American President, The (1995)",Comedy|Drama|Romance\n'
    "3,Amélie (Le fabuleux destin d'Amélie Poulain) (2001) ,(no genres listed)\n"
)
CSV_LINKS = "movieId,imdbId,tmdbId\n1,0112346,9087\n3,0211915,\n"
CSV_TAGS = 'userId,movieId,tag,timestamp\n7,1,"funny, ""very""",1445714994\n'


def write(folder: Path, **files: str | bytes) -> Path:
    """Write ``ratings_csv="..."`` as ratings.csv, and so on."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(path: Path, release: str | None = None) -> Tables:
    return reader.read(*locate.locate(path, release))


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Path]:
    """A correct folder of one's own, with files replaced."""

    def make(**files: str | bytes) -> Path:
        return write(
            tmp_path / "own", **{"ratings_csv": CSV_RATINGS, "movies_csv": CSV_MOVIES, **files}
        )

    return make


def check_shapes(tables: Tables) -> None:
    for table, schema in (
        (tables.ratings, RATINGS),
        (tables.movies, MOVIES),
        (tables.links, LINKS),
        (tables.tags, TAGS),
    ):
        assert table.schema.equals(schema, check_metadata=True)
        table.validate(full=True)
    assert tables.ratings["row"].to_pylist() == list(range(tables.ratings.num_rows))
    assert tables.links["movie_id"] == tables.movies["movie_id"]


@pytest.mark.parametrize("release", ["ml-latest-small", "ml-latest", "ml-32m", "ml-25m", "ml-20m"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_releases(tmp_path: Path, release: str, newline: str) -> None:
    texts = {"ratings_csv": CSV_RATINGS, "movies_csv": CSV_MOVIES, "links_csv": CSV_LINKS,
             "tags_csv": CSV_TAGS}  # fmt: skip
    files = {name: text.replace("\n", newline) for name, text in texts.items()}
    tables = read(write(tmp_path / release, **files), release)
    check_shapes(tables)
    assert tables.ratings["movie_id"].to_pylist() == [1, 3, 1]
    assert tables.ratings["rating"].to_pylist() == [4.0, 0.5, 5.0]
    assert tables.movies.to_pylist() == [
        {"movie_id": 1, "title": "American President, The (1995)", "year": 1995,
         "genres": ["Comedy", "Drama", "Romance"]},
        {"movie_id": 3, "title": "Amélie (Le fabuleux destin d'Amélie Poulain) (2001)",
         "year": 2001, "genres": []},
    ]  # fmt: skip
    assert tables.links.to_pylist() == [
        {"movie_id": 1, "imdb_id": "tt0112346", "tmdb_id": 9087},
        {"movie_id": 3, "imdb_id": "tt0211915", "tmdb_id": None},
    ]
    assert tables.tags.to_pylist() == [
        {"user_id": 7, "movie_id": 1, "tag": 'funny, "very"', "timestamp": 1445714994}
    ]


def test_ml_10m(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "ml-10M100K",
        ratings_dat="1::122::5::838985046\n1::185::3.5::838983525\n",
        movies_dat=(
            "122::Boomerang (1992)::Comedy|Romance\n"
            "185::Star Wars: Episode I :: Très (1999)::Sci-Fi\n"
        ),
        tags_dat="15::122::excellent!: 10::10::1215184630\n",
    )
    tables = read(tmp_path, "ml-10m")
    check_shapes(tables)
    assert tables.ratings["rating"].to_pylist() == [5.0, 3.5]
    assert tables.movies["title"].to_pylist()[1] == "Star Wars: Episode I :: Très (1999)"
    assert tables.tags["tag"].to_pylist() == ["excellent!: 10::10"]
    assert tables.links["tmdb_id"].null_count == 2
    assert locate.release_of(folder) == "ml-10m"


@pytest.mark.parametrize("release", ["ml-1m", None])
def test_ml_1m(tmp_path: Path, release: str | None) -> None:
    folder = write(
        tmp_path / "ml-1m",
        ratings_dat="1::73::5::978300760\n2::73::1::978302109\n",
        movies_dat="73::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1"),
        users_dat="1::F::1::10::48067\n2::M::56::16::70072\n",
    )
    tables = read(folder, release)
    check_shapes(tables)
    assert tables.movies["title"].to_pylist() == ["Misérables, Les (1995)"]
    assert tables.ratings["user_id"].to_pylist() == [1, 2]
    assert tables.tags.num_rows == 0


def test_ml_100k(tmp_path: Path) -> None:
    flags = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
    unknown = "1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0"
    items = (
        f"1|Cité des enfants perdus, La (1995)|01-Jan-1995||http://us.imdb.com/M/1|{flags}\n"
        f"267|unknown||||{unknown}\n"
    )
    folder = write(
        tmp_path / "ml-100k",
        u_data="196\t1\t3\t881250949\n186\t267\t1\t891717742\n",
        u_item=items.encode("latin-1"),
    )
    tables = read(folder, "ml-100k")
    check_shapes(tables)
    assert tables.ratings["user_id"].to_pylist() == [196, 186]
    assert tables.movies.to_pylist() == [
        {"movie_id": 1, "title": "Cité des enfants perdus, La (1995)", "year": 1995,
         "genres": ["Animation", "Children's", "Comedy"]},
        {"movie_id": 267, "title": "unknown", "year": None, "genres": []},
    ]  # fmt: skip


def test_ml_latest_small_itself(ml_latest_small: Path) -> None:
    tables = read(ml_latest_small)
    check_shapes(tables)
    assert tables.ratings.num_rows == 100_836
    assert tables.movies.num_rows == 9_742
    assert tables.tags.num_rows == 3_683
    assert len(np.unique(tables.ratings["user_id"])) == 610
    assert tables.movies["year"].null_count == 13
    assert sum(not genres for genres in tables.movies["genres"].to_pylist()) == 34
    assert len({g for genres in tables.movies["genres"].to_pylist() for g in genres}) == 19
    assert tables.links["tmdb_id"].null_count == 8
    assert not any(t != t.strip() for t in tables.movies["title"].to_pylist())


def test_own_data(own: Callable[..., Path]) -> None:
    """Other column orders, further columns, a BOM, huge and negative ids, what pandas writes."""
    folder = own(
        ratings_csv="﻿rating,comment,timestamp,movieId,userId\n"
        "4.5,,5,-7,9223372036854775807\n\n3.7,x,6,-7,-9223372036854775808\n",
        movies_csv="title,genres,movieId\nMy Film (2001),Drama,-7\n",
        links_csv="movieId,imdbId,tmdbId\n-7,tt99,862.0\n5,1,1\n",
    )
    tables = read(folder)
    check_shapes(tables)
    assert tables.ratings["user_id"].to_pylist() == [2**63 - 1, -(2**63)]
    assert tables.ratings["rating"].to_pylist() == pytest.approx([4.5, 3.7])
    assert tables.links.to_pylist() == [{"movie_id": -7, "imdb_id": "tt0000099", "tmdb_id": 862}]


def test_ratings_of_movies_without_an_entry_are_kept(own: Callable[..., Path]) -> None:
    tables = read(own(movies_csv="movieId,title,genres\n1,A (2000),Drama\n"))
    assert tables.movies.to_pylist()[1] == {
        "movie_id": 3, "title": "(movie 3)", "year": None, "genres": []
    }  # fmt: skip
    assert tables.notices[0].startswith("1 rated movies are not in movies.csv (the first: 3)")


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Toy Story (1995)", 1995),
        ("Toy Story (1995)  ", 1995),
        ("2001 (a) (1968)", 1968),
        ("Death Note (2006–2007)", None),
        ("Babylon 5", None),
        ("(1995) Toy Story", None),
    ],
)
def test_title_year(title: str, year: int | None) -> None:
    assert title_year(title) == year


HEADER = "userId,movieId,rating,timestamp\n"


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("", r"ratings.csv is empty; expected a header line with userId, movieId"),
        (HEADER, r"ratings.csv holds no rating"),
        (
            "userId,movieId,stars,timestamp\n1,1,4,1\n",
            "line 1: the columns rating are missing; found userId, movieId, stars, timestamp",
        ),
        (HEADER + "1,1,4.0,1\n1,3,5.5,1\n", "line 3: rating is 5.5, expected 0.5 to 5"),
        (HEADER + "1,1,0,1\n", "line 2: rating is 0, expected 0.5 to 5"),
        (HEADER + "1,1,4,1\n\n1,3,nan,1\n", "line 4: rating is nan, expected 0.5 to 5"),
        (HEADER + "1,1,inf,1\n", "line 2: rating is inf, expected 0.5 to 5"),
        (HEADER + "1,1,good,1\n", "line 2: rating is 'good', expected a number"),
        (HEADER + "1,1,,1\n", "line 2: rating is '', expected a number"),
        (HEADER + "u1,1,4,1\n", "line 2: userId is 'u1', expected a whole number"),
        (HEADER + "1,1.5,4,1\n", "line 2: movieId is '1.5', expected a whole number"),
        (HEADER + f"1,{2**63},4,1\n", "line 2: movieId is '9223372036854775808', expected a whole"),
        (HEADER + "1,1,4,-1\n", "line 2: timestamp is -1, expected seconds"),
        (HEADER + "1,1,4,today\n", "line 2: timestamp is 'today', expected a whole number"),
        (
            HEADER + "1,1,4\n",
            r"line 2: 3 fields, expected 4 \(userId, movieId, rating, ",
        ),
        (
            HEADER + "1,1,4,1\n1,3,4,1\n2,1,4,1\n1,3,5,2\n1,1,5,2\n",
            r"line 5: user 1 rates movie 3 a second time \(first on line 3\)",
        ),
        (
            HEADER + f"{2**62},1,4,1\n{-(2**62)},3,4,1\n{2**62},1,4,1\n",
            r"line 4: user 4611686018427387904 rates movie 1 a second time \(first on line 2\)",
        ),
    ],
)
def test_wrong_ratings(own: Callable[..., Path], ratings: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(own(ratings_csv=ratings))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("movies_csv", "", "movies.csv"),
        ("movies_csv", "movieId,title,genres\n", "movies.csv holds no movie"),
        ("movies_csv", "movieId,title\n1,A\n", "line 1: the columns genres are missing"),
        ("movies_csv", "movieId,title,genres\nx,A,B\n", "line 2: movieId is 'x'"),
        ("movies_csv", "movieId,title,genres\n1,A\n", "line 2: 2 fields, expected 3"),
        (
            "movies_csv",
            "movieId,title,genres\n1,A,\n3,B,\n1,C,\n",
            r"line 4: movie 1 appears a second time \(first on line 2\)",
        ),
        (
            "movies_csv",
            "movieId,title,genres\n1,A,\n3,Misérables,\n".encode("latin-1"),
            "line 3: byte 0xe9 is not UTF-8",
        ),
        ("links_csv", "movieId,imdbId,tmdbId\n1,abc,5\n", "line 2: imdbId is 'abc'"),
        ("links_csv", "movieId,imdbId,tmdbId\n1,5,5.5\n", "line 2: tmdbId is '5.5'"),
        ("links_csv", "movieId,imdbId,tmdbId\n1,5,5\n1,6,6\n", "line 3: movie 1 appears a second"),
        ("tags_csv", "userId,movieId,tag\n1,1,x\n", "line 1: the columns timestamp are missing"),
        ("tags_csv", "userId,movieId,tag,timestamp\n1,1,x,y\n", "line 2: timestamp is 'y'"),
        (
            "tags_csv",
            b"userId,movieId,tag,timestamp\n1,1,caf\xe9,1\n",
            "tags.csv, line 2: byte 0xe9 is not UTF-8",
        ),
    ],
)
def test_other_wrong_files(
    own: Callable[..., Path], file: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(own(**{file: content}))


@pytest.mark.parametrize(
    ("release", "files", "message"),
    [
        ("ml-1m", {"ratings_dat": "1::1::0.5::1\n"}, "line 1: rating is 0.5, expected 1 to 5"),
        ("ml-1m", {"ratings_dat": "1::1::5\n"}, "line 1: 5 fields, expected 7"),
        ("ml-1m", {"movies_dat": "1::A\n"}, "line 1: 2 fields, expected 3"),
        ("ml-100k", {"u_data": "1\t1\t6\t1\n"}, "line 1: rating is 6, expected 1 to 5"),
        ("ml-100k", {"u_item": "1|A|x\n"}, "line 1: 3 fields, expected 24"),
    ],
)
def test_wrong_files_of_other_layouts(
    tmp_path: Path, release: str, files: dict[str, str], message: str
) -> None:
    flags = "|".join("0" * 19)
    right = {
        "ml-1m": {"ratings_dat": "1::1::5::1\n", "movies_dat": "1::A (1990)::Drama\n"},
        "ml-100k": {"u_data": "1\t1\t5\t1\n", "u_item": f"1|A (1990)|||x|{flags}\n"},
    }[release]
    folder = write(tmp_path / release, **{**right, **files})
    with pytest.raises(DatasetError, match=message):
        read(folder, release)


def test_a_path_without_data_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match=r"found: notes.txt.*Expected a folder .or zip."):
        read(tmp_path)
    write(tmp_path, ratings_csv=CSV_RATINGS, movies_csv=CSV_MOVIES)
    with pytest.raises(DatasetError, match=r"ml-1m with ratings.dat and movies.dat"):
        read(tmp_path, "ml-1m")


def test_of_several_folders_the_named_one_is_read(tmp_path: Path) -> None:
    for name in ("ml-20m", "ml-25m"):
        write(tmp_path / name, ratings_csv=CSV_RATINGS, movies_csv=CSV_MOVIES)
    assert locate.locate(tmp_path, "ml-25m")[0].name == "ml-25m"
