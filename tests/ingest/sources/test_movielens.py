"""Readers: each release in its own format and encoding, and every kind of malformed file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS
from ingest.config import DataConfig
from ingest.errors import DatasetError
from ingest.sources import locate, reader
from ingest.sources.files import RatingFiles
from ingest.sources.tables import Tables
from ingest.sources.years import title_year

CSV_RATINGS = (
    "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n7,1,5,1445714994\n"
)
CSV_MOVIES = (
    "movieId,title,genres\n"
    '1,"American President, The (1995)",Comedy|Drama|Romance\n'
    "3,Amélie (Le fabuleux destin d'Amélie Poulain) (2001) ,(no genres listed)\n"
)
CSV_LINKS = "movieId,imdbId,tmdbId\n1,0112346,9087\n3,0211915,\n"
CSV_TAGS = 'userId,movieId,tag,timestamp\n7,1,"funny, ""very""",1445714994\n'


def write(folder: Path, **files: str | bytes) -> Path:
    """Write ``ratings_csv="..."`` as ratings.csv, and so on."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(path: Path, release: str | None = None) -> Tables:
    return reader.read(*locate.locate(path, release))


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Path]:
    """A correct folder of the user's own data, with some files replaced."""

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
    assert tables.movies["year"].null_count == 12
    assert sum(not genres for genres in tables.movies["genres"].to_pylist()) == 34
    assert len({g for genres in tables.movies["genres"].to_pylist() for g in genres}) == 19
    assert tables.links["tmdb_id"].null_count == 8
    assert not any(t != t.strip() for t in tables.movies["title"].to_pylist())


def test_own_data(own: Callable[..., Path]) -> None:
    """Other column orders, further columns, a BOM, huge and negative ids, and pandas' 862.0."""
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
        ("Death Note (2006–2007)", 2006),
        ("Fawlty Towers (1975-1979)", 1975),
        ("Big Bang Theory, The (2007-) ", 2007),
        ("Land Before Time III, The (1995) (V)", 1995),
        ("Hamlet (1996/II)", 1996),
        ("Solaris (Solyaris) (1972) [restored]", 1972),
        ("Summer of '42 (1971) (a.k.a. 1942)", 1971),
        ("Blade Runner (2049) (2017)", 2017),
        ("Movie (0000)", None),
        ("Movie (9999)", None),
        ("Movie (1995) Revisited", None),
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
        (HEADER + "1,1,4,-1\n", r"line 2: timestamp is -1\. Expected timestamps in seconds since"),
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
        ("movies_csv", "movieId;title;genres\n1;A;B\n", "separated by semicolons .';'.; expected"),
        ("movies_csv", "movieId,title,genres,title\n1,A,B,C\n", "column title is there 2 times"),
        ("movies_csv", f"movieId,title,genres\n{'9' * 5000},A,B\n", "line 2: movieId is '999"),
        ("movies_csv", b"movieId,title,genres\n1,\xff\x81,B\n", "line 2: byte 0xff is neither"),
        ("movies_csv", b"movieId,title,genres\n1,A\0\xff,B\n", "line 2: byte 0xff is neither"),
        (
            "movies_csv",
            "movieId,title,genres\n1,A,\n3,B,\n1,C,\n",
            r"line 4: movie 1 appears a second time \(first on line 2\)",
        ),
    ],
)
def test_other_wrong_files(
    own: Callable[..., Path], file: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(own(**{file: content}))


def test_one_message_lists_ten_wrong_lines_and_counts_the_others(own: Callable[..., Path]) -> None:
    stars = "".join(f"{user},1,9,964982703\n" for user in range(1, 13))
    with pytest.raises(DatasetError) as refused:
        read(own(ratings_csv=HEADER + "1,3,4,964982703\n" + stars + "1,3,4,1\n"))
    first, *listed = str(refused.value).splitlines()
    assert "ratings.csv: 14 lines are wrong. Correct the line, or convert" in first
    assert "data.duplicates=last" in first
    assert listed == [
        *(f"  line {line}: rating is 9, expected 0.5 to 5" for line in range(3, 13)),
        "  and 4 more",
    ]

    texts = "".join(f"u{user},1,9,964982703\n" for user in range(12))
    with pytest.raises(DatasetError) as refused:
        read(own(ratings_csv=HEADER + texts + "1,3\n"))
    first, *listed = str(refused.value).splitlines()
    assert "ratings.csv: 13 lines are wrong." in first
    assert listed[0] == "  line 2: userId is 'u0', expected a whole number (64 bits)"
    assert listed[10:] == ["  and 3 more"]


WITH_NOTE = "userId,movieId,rating,timestamp,note\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['1,1,4,964982703,"nice', "1,3,3,964982704,", "7,1,2,964982705,"], "line 2: .*quote"),
        (
            ['1,1,4,964982703,"nice', "1,3,3,964982704,", "7,1,2,964982705,", 'x"'],
            "line 2: a quoted text that begins there holds 3 line breaks, and lines with fields",
        ),
        (['1,1,4,964982703,"nice', '1,3,3,964982704,nice"'], "line 2: a quoted text that begins"),
        (['1,1,4,964982703,"a"b'], "line 2: .* for text after one that is"),
        (["0x10,1,4,964982703,"], "line 2: userId is '0x10'"),
        (["1,1,4,0x39845E50,"], "line 2: timestamp is '0x39845E50'"),
        (["+1,1,4,964982703,"], r"line 2: userId is '\+1'"),
        (["1,1,4_0,964982703,"], "line 2: rating is '4_0'"),
        (["1,1,٤,964982703,"], "line 2: rating is '٤'"),
        (["1\x1f,1,4,964982703,"], "line 2: userId is "),
    ],
)
def test_what_readers_of_csv_take_differently_is_refused(
    own: Callable[..., Path], lines: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(own(ratings_csv=WITH_NOTE + "\n".join(lines) + "\n"))


def test_quoted_texts_with_line_breaks_are_read(own: Callable[..., Path]) -> None:
    """Also across the blocks of a megabyte that Arrow reads."""
    rows = "".join(f'{user},1,4,{964982703 + user},"a\n""b"", c\nd"\n' for user in range(50_000))
    tables = read(own(ratings_csv="\n\n" + WITH_NOTE + rows))
    assert tables.ratings["user_id"].to_pylist() == list(range(50_000))
    assert tables.notices == ()


def test_an_open_quote_among_the_movies_is_refused(own: Callable[..., Path]) -> None:
    for rows in (
        '1,"Toy Story (1995),Adventure\n3,Jumanji (1995),Adventure\n',
        '1,"Toy Story (1995),Comedy\n2,Heat (1995)",Action\n',
    ):
        with pytest.raises(DatasetError, match=r"movies\.csv, line 2: .*quote"):
            read(own(movies_csv="movieId,title,genres\n" + rows))


def test_text_between_the_colons_is_refused(tmp_path: Path) -> None:
    movies = "3::A (1990)::Drama\n"
    for line in ("1::3:x:5::978300760", "1:2:3:4:5:6:978300760"):
        folder = write(tmp_path / "ml-10M100K", ratings_dat=f"{line}\n", movies_dat=movies)
        with pytest.raises(DatasetError, match=r"line 1: text between colons is '.*nothing"):
            read(folder)


@pytest.mark.parametrize("layout", ["csv", "double-colon", "tabs"])
def test_every_kind_of_line_break_is_one(layout: str, tmp_path: Path) -> None:
    flags = "|".join("0" * 19)
    files = {
        "csv": {"ratings_csv": CSV_RATINGS, "movies_csv": CSV_MOVIES},
        "double-colon": {
            "ratings_dat": "1::1::5::978300760\n2::3::4::978300761\n",
            "movies_dat": "1::A (1990)::Drama\n3::B (1991)::War\n",
        },
        "tabs": {
            "u_data": "1\t1\t5\t881250949\n2\t3\t4\t881250950\n",
            "u_item": f"1|A\u2028 (1990)|||x|{flags}\n3|B (1991)|||x|{flags}\n",
        },
    }[layout]
    found = []
    for name, newline in {"lf": "\n", "crlf": "\r\n", "cr": "\r"}.items():
        changed = {file: text.replace("\n", newline).encode() for file, text in files.items()}
        found.append(read(write(tmp_path / name, **changed)))
    for other in found[1:]:
        assert found[0].ratings.equals(other.ratings)
        assert found[0].movies.equals(other.movies)


def test_one_wrong_byte_in_utf_8_is_named(own: Callable[..., Path]) -> None:
    titles = "".join(f"{movie},Amélie {movie} (2001),Drama\n" for movie in range(1, 9))
    content = b"movieId,title,genres\n" + titles.encode() + b"9,Caf\xe9,Drama\n"
    with pytest.raises(DatasetError, match="line 10: byte 0xe9 is neither UTF-8, as the rest"):
        read(own(movies_csv=content))
    cut = CSV_MOVIES.encode("utf-16")[:-1]
    with pytest.raises(DatasetError, match="is not UTF-16, which the file's first bytes announce"):
        read(own(movies_csv=cut))


def test_a_title_of_many_years_takes_no_time() -> None:
    assert title_year("(1995)" * 20_000 + "x") is None
    assert title_year("(0000)" * 20_000) is None
    assert title_year("x" * 10**6 + " (1995)") == 1995


def test_blanks_around_names_and_numbers_do_not_matter(own: Callable[..., Path]) -> None:
    tables = read(own(ratings_csv='"userId", movieId , rating,timestamp\n1, 3 , 4.5, 964982703\n'))
    assert tables.ratings.to_pylist() == [
        {"row": 0, "user_id": 1, "movie_id": 3, "rating": 4.5, "timestamp": 964982703}
    ]


@pytest.mark.parametrize(
    ("file", "content", "notice"),
    [
        ("links_csv", "1,abc,9\n3,5,x\n", "links.csv: 2 .* left out, the first: line 2: imdbId"),
        ("links_csv", f"1,1,9\n3,5,{2**63}\n", "links.csv: 1 .*: line 3: tmdbId is '92233"),
        ("links_csv", "1,1,9\n3,5,-4\n", "links.csv: 1 .*line 3: tmdbId is '-4'"),
        ("links_csv", "1,1,9\n3,5\n", "links.csv: 1 .*line 3: 2 fields, expected 3"),
        ("links_csv", "1,1,9\n1,6,6\n", "links.csv: 1 .*line 3: movie 1 appears a second time"),
        ("links_csv", '1,1,9\n3,"5,6\n', "links.csv is left out, or the rest.*line 3: .*quote"),
        ("tags_csv", "1,1,x,y\n", "tags.csv: 1 .*line 2: timestamp is 'y'"),
        ("tags_csv", "1,1,x\n", "tags.csv: 1 .*line 2: 3 fields, expected 4"),
        ("tags_csv", "1,1,a\0b\xff,1\n", None),
    ],
)
def test_what_is_wrong_in_optional_files_is_left_out(
    own: Callable[..., Path], file: str, content: str, notice: str | None
) -> None:
    headers = {"links_csv": "movieId,imdbId,tmdbId\n", "tags_csv": "userId,movieId,tag,timestamp\n"}
    right = {"links_csv": CSV_LINKS, "tags_csv": CSV_TAGS} | {file: headers[file] + content}
    tables = read(own(**right))
    check_shapes(tables)
    assert tables.ratings.num_rows == 3
    if notice is not None:
        assert re.search(notice, "\n".join(tables.notices)), tables.notices
    if file == "links_csv" and content.startswith("1,1,9"):
        assert tables.links["tmdb_id"].to_pylist() == [9, None]


@pytest.mark.parametrize(("file", "name"), [("links_csv", "links.csv"), ("tags_csv", "tags.csv")])
def test_an_optional_file_without_its_columns_is_left_out(
    own: Callable[..., Path], file: str, name: str
) -> None:
    tables = read(own(**{file: "movieId,else\n1,2\n"}))
    check_shapes(tables)
    (notice,) = tables.notices
    assert re.search(f"{name} is left out, or the rest of it: .*line 1: the columns", notice)


# -- times -----------------------------------------------------------------------------------------

SECONDS = [964982703, 1112486027, 1537799250]


def timed(times: list[int]) -> str:
    return HEADER + "".join(f"{user},1,4,{time}\n" for user, time in enumerate(times))


@pytest.mark.parametrize(
    ("times", "expected", "notice"),
    [
        (SECONDS, SECONDS, None),
        ([time * 1000 + 7 for time in SECONDS], SECONDS, "milliseconds since 1970"),
        ([time * 10**6 for time in SECONDS], SECONDS, "microseconds since 1970"),
        ([time * 10**9 for time in SECONDS], SECONDS, "nanoseconds since 1970"),
        ([11168, 12875], [11168 * 86400, 12875 * 86400], "days since 1970"),
        # 1112400000 is 2005-04-02, by date(1).
        ([20050402], [1112400000], "dates such as 20050402"),
        ([0, 0, 0], [0, 0, 0], "no dates, and are taken as the order"),
        ([3, 1, 2], [3, 1, 2], "no dates, and are taken as the order"),
    ],
)
def test_units_of_times_are_recognised(
    own: Callable[..., Path], times: list[int], expected: list[int], notice: str | None
) -> None:
    tables = read(own(ratings_csv=timed(times)))
    assert tables.ratings["timestamp"].to_pylist() == expected
    assert len(tables.notices) == (notice is not None)
    assert notice is None or notice in tables.notices[0]


IN_2065 = 3_000_000_000  # names of tests must not depend on the clock


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([*SECONDS, 964982703000], r"line 5: timestamp is 964982703000, as if in milliseconds"),
        ([*SECONDS, 20050402], r"line 5: timestamp is 20050402, as if in dates such as 20050402"),
        ([*SECONDS, 12875], r"line 5: timestamp is 12875, as if in days since 1970"),
        ([*SECONDS, 0], r"line 5: timestamp is 0, 1970-01-01\. Expected"),
        ([*SECONDS, IN_2065], rf"line 5: timestamp is {IN_2065}, .*, which is in the future"),
        ([20050402123000], r"line 2: timestamp is 20050402123000"),
        ([38000, 39000], r"2 lines are wrong\. Expected timestamps in seconds since 1970 between"),
        ([20051332, 20050402], r"line 2: timestamp is 20051332\. Expected timestamps in dates"),
        ([2**63 - 1], "line 2: timestamp is 9223372036854775807, beyond the year 9999"),
    ],
)
def test_times_that_cannot_be_are_refused(
    own: Callable[..., Path], times: list[int], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(own(ratings_csv=timed(times)))


def test_the_unit_of_times_can_be_named(own: Callable[..., Path]) -> None:
    folder = own(ratings_csv=timed([0, 86_400_000, 964982703000]))
    tables = reader.read(*locate.locate(folder, None), "ms")
    assert tables.ratings["timestamp"].to_pylist() == [0, 86400, 964982703]
    assert tables.notices == ()
    with pytest.raises(DatasetError, match=r"line 4: timestamp is 964982703000, beyond the year"):
        reader.read(*locate.locate(folder, None), "s")


def test_milliseconds_give_the_tables_of_seconds(ml_latest_small: Path, tmp_path: Path) -> None:
    header, *lines = (ml_latest_small / "ratings.csv").read_text().splitlines()
    content = "\n".join([header, *(f"{line}000" for line in lines)]) + "\n"
    folder = write(tmp_path / "own", ratings_csv=content)
    shutil.copy(ml_latest_small / "movies.csv", folder)
    assert read(folder).ratings.equals(read(ml_latest_small).ratings)


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "notice"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("latin-1", "movies.csv: read as Windows-1252"),
        ("utf-16", "movies.csv: read as UTF-16"),
        ("utf-32", "movies.csv: read as UTF-32"),
    ],
)
def test_the_bytes_of_a_file_decide_its_encoding(
    own: Callable[..., Path], encoding: str, notice: str | None
) -> None:
    tables = read(own(movies_csv=CSV_MOVIES.encode(encoding)))
    check_shapes(tables)
    assert tables.movies["title"][1].as_py() == (
        "Amélie (Le fabuleux destin d'Amélie Poulain) (2001)"
    )
    assert len(tables.notices) == (notice is not None)
    assert notice is None or notice in tables.notices[0]


@pytest.mark.parametrize("release", ["ml-1m", "ml-10m", "ml-100k"])
def test_releases_saved_as_utf_8_and_as_latin_1_are_the_same(tmp_path: Path, release: str) -> None:
    flags = "|".join("0" * 19)
    contents = {
        "ml-1m": ("ratings_dat", "1::73::5::978300760\n", "movies_dat", "73::Misérables::Drama\n"),
        "ml-10m": ("ratings_dat", "1::73::5::978300760\n", "movies_dat", "73::Misérables::Drama\n"),
        "ml-100k": ("u_data", "1\t73\t5\t978300760\n", "u_item", f"73|Misérables|||x|{flags}\n"),
    }
    ratings, rows, movies, text = contents[release]
    found = {}
    for encoding in ("utf-8", "latin-1"):
        files: dict[str, str | bytes] = {ratings: rows, movies: text.encode(encoding)}
        if release == "ml-1m":
            files["users_dat"] = ""
        tables = read(write(tmp_path / encoding / release, **files), release)
        found[encoding] = tables.movies.to_pylist()
        told = "Windows-1252" if encoding == "latin-1" else "UTF-8"
        is_usual = (encoding, release) == ("utf-8", "ml-10m")
        assert any(f"read as {told}" in notice for notice in tables.notices) is not is_usual
    assert found["utf-8"] == found["latin-1"]
    assert found["utf-8"][0]["title"] == "Misérables"


def test_numbers_in_any_encoding(own: Callable[..., Path]) -> None:
    content = HEADER.replace("\n", ",note\n") + "1,1,4,964982703,café\n"
    for encoding in ("utf-8", "latin-1", "utf-16"):
        tables = read(own(ratings_csv=content.encode(encoding)))
        assert tables.ratings["timestamp"].to_pylist() == [964982703]


@pytest.mark.parametrize(
    ("genres", "expected", "is_usual"),
    [
        ("Action|Comedy", ["Action", "Comedy"], True),
        ("Drama", ["Drama"], True),
        ("Drama|Drama| War ", ["Drama", "War"], True),
        ('"Action, Comedy"', ["Action", "Comedy"], False),
        ('"Action,Comedy"', ["Action", "Comedy"], False),
        ("Action; Comedy", ["Action", "Comedy"], False),
        ("Action/Comedy", ["Action", "Comedy"], False),
        ("\"['Action', 'Comedy']\"", ["Action", "Comedy"], False),
        ('"[""Sci-Fi""]"', ["Sci-Fi"], False),
        ('"[{""id"": 18, ""name"": ""Drama"", ""adult"": false}]"', ["Drama"], False),
        ('"Drama, Comedy|War"', ["Drama", "Comedy", "War"], False),
        ("\"['A|B', 'C']\"", ["A|B", "C"], False),
        ("\"[{'id': 18, 'name': 'Drama'}]\"", ["Drama"], False),
        *(
            (text, [], True)
            for text in ("", "(no genres listed)", "N/A", "NaN", "unknown", "[]", "-")
        ),
    ],
)
def test_genres_in_other_notations(
    own: Callable[..., Path], genres: str, expected: list[str], is_usual: bool
) -> None:
    tables = read(own(movies_csv=f"movieId,title,genres\n1,A,{genres}\n3,B,War|Crime\n"))
    assert tables.movies["genres"].to_pylist() == [expected, ["War", "Crime"]]
    told = "movies.csv: the genres of 1 movies are not separated by |"
    assert any(told in notice for notice in tables.notices) is not is_usual


@pytest.mark.parametrize(
    "genres", ["\"[{'id': 18, 'name': 'Drama'}, {'id'\"", "[{[1]:2}]", "[{{}}]", "[1]", "x" * 500]
)
def test_genres_in_no_notation_count_as_unknown(own: Callable[..., Path], genres: str) -> None:
    tables = read(own(movies_csv=f"movieId,title,genres\n1,A,{genres}\n3,B,War\n"))
    assert tables.movies["genres"].to_pylist() == [[], ["War"]]
    assert "the genres of 1 movies are in no notation that can be read" in tables.notices[0]


def test_the_year_of_ml_100k_is_that_of_the_release_where_the_title_has_none(
    tmp_path: Path,
) -> None:
    flags = "|".join("0" * 19)
    items = f"1|Nightwatch (1997)|22-Apr-1998||x|{flags}\n2|Nightwatch|22-Apr-1998||x|{flags}\n"
    folder = write(tmp_path / "ml-100k", u_data="1\t1\t5\t881250949\n", u_item=items)
    assert read(folder).movies["year"].to_pylist() == [1997, 1998]


# -- cut files -------------------------------------------------------------------------------------


def release_of(folder: Path, source: str = "auto") -> Tables:
    return RatingFiles.at(DataConfig(source=source, path=str(folder)), None).read()


def test_half_of_a_release_is_refused(ml_latest_small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ml-latest-small"
    shutil.copytree(ml_latest_small, folder, copy_function=shutil.copyfile)
    lines = (folder / "ratings.csv").read_text().splitlines(keepends=True)
    (folder / "ratings.csv").write_text("".join(lines[:49_169]))

    with pytest.raises(
        DatasetError, match=r"49,168 ratings instead of 100,836, .* 9,742 movies, so"
    ):
        release_of(folder)

    (notice,) = release_of(folder, "folder").notices
    assert "so the files are not ml-latest-small as published" in notice
    # Cut within a line: the time is too short to be one.
    (folder / "ratings.csv").write_text("".join(lines[:49_169])[:-6])
    with pytest.raises(DatasetError, match="line 49169: timestamp is "):
        release_of(folder, "folder")


def test_a_stand_in_for_a_release_is_taken_with_a_notice(tmp_path: Path) -> None:
    folder = write(tmp_path / "ml-25m", ratings_csv=CSV_RATINGS, movies_csv=CSV_MOVIES)
    (notice,) = release_of(folder).notices
    assert "3 ratings instead of 25,000,095" in notice


def test_a_last_line_without_its_end_is_told(own: Callable[..., Path]) -> None:
    tables = read(own(ratings_csv=CSV_RATINGS.rstrip("\n"), movies_csv=CSV_MOVIES.rstrip("\n")))
    assert tables.ratings.num_rows == 3
    assert [notice.partition(":")[0] for notice in tables.notices] == ["ratings.csv", "movies.csv"]
    assert "the last line does not end with a line break" in tables.notices[0]


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
