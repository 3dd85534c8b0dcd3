"""The Netflix Prize's files: tables worked out by hand, and every way that a file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS, check_schema
from foundation.storage import Storage
from ingest.config import DataConfig
from ingest.errors import DatasetError
from ingest.sources import netflix
from ingest.sources.netflix import NETFLIX_CITATION, NetflixPrizeSource, RatingReader

TITLES = (
    b"1,2003,Dinosaur Planet\n"
    b"2,2004,Isle of Man TT 2004, Review\r\n"
    b"4,NULL,Caf\xe9, Bar, Grill\n"
    b"17,0,A Year That Cannot Be\n"
)
FIRST = "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n1488844,4,1999-11-11\n"
SECOND = "4:\n822109,1,2005-12-31\n30878,2,2000-02-29\n"

SEPTEMBER_6_2005 = 1_125_964_800  # `date -u -d 2005-09-06 +%s`
MAY_13_2005 = 1_115_942_400
NOVEMBER_11_1999 = 942_278_400
DECEMBER_31_2005 = 1_135_987_200
FEBRUARY_29_2000 = 951_782_400


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., NetflixPrizeSource]:
    """Writes the files, with some of them replaced or left out, and opens the source."""

    def write(files: dict[str, str | bytes | None] | None = None) -> NetflixPrizeSource:
        contents: dict[str, str | bytes | None] = {
            "movie_titles.csv": TITLES,
            "combined_data_1.txt": FIRST,
            "combined_data_2.txt": SECOND,
            **(files or {}),
        }
        for name, content in contents.items():
            if content is not None:
                path = tmp_path / "netflix" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        config = DataConfig(source="netflix-prize", path=str(tmp_path / "netflix"))
        return NetflixPrizeSource.open(config, tmp_path)

    return write


EXPECTED = [
    # row, user, movie, stars, time
    (0, 1488844, 1, 3.0, SEPTEMBER_6_2005),
    (1, 822109, 1, 5.0, MAY_13_2005),
    (2, 1488844, 2, 4.0, NOVEMBER_11_1999),
    (3, 822109, 4, 1.0, DECEMBER_31_2005),
    (4, 30878, 4, 2.0, FEBRUARY_29_2000),
]


def rows(table: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("block_bytes", [16 << 20, 40])
def test_the_tables(make: Any, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """In one block, and in blocks of about two lines."""
    monkeypatch.setattr(netflix, "_BLOCK_BYTES", block_bytes)
    source = make()
    tables = source.read()
    for table, schema in (
        (tables.ratings, RATINGS),
        (tables.movies, MOVIES),
        (tables.links, LINKS),
        (tables.tags, TAGS),
    ):
        check_schema(table.schema, schema, "a table")
        table.validate(full=True)
    assert rows(tables.ratings) == EXPECTED
    assert rows(tables.movies) == [
        (1, "Dinosaur Planet", 2003, []),
        (2, "Isle of Man TT 2004, Review", 2004, []),
        (4, "Café, Bar, Grill", None, []),
        (17, "A Year That Cannot Be", None, []),
    ]
    assert rows(tables.links) == [(movie, None, None) for movie in (1, 2, 4, 17)]
    assert tables.tags.num_rows == 0
    assert tables.notices == ()
    assert source.name == "netflix-prize"
    assert source.attribution == (NETFLIX_CITATION,)
    assert "Netflix" in source.licence


def test_the_original_layout_gives_the_same_tables(make: Any, tmp_path: Path) -> None:
    part_1, part_2 = FIRST.split("2:\n")
    source = make(
        {
            "movie_titles.csv": None,
            "combined_data_1.txt": None,
            "combined_data_2.txt": None,
            "movie_titles.txt": TITLES,
            "training_set/mv_0000001.txt": part_1,
            "training_set/mv_0000002.txt": "2:\n" + part_2,
            "training_set/mv_0000004.txt": SECOND,
        }
    )
    assert rows(source.read().ratings) == EXPECTED
    assert source.version["num_files"] == 4


def test_line_ends_of_windows_and_a_last_line_without_one(make: Any) -> None:
    crlf = FIRST.replace("\n", "\r\n")
    source = make({"combined_data_1.txt": crlf, "combined_data_2.txt": SECOND.rstrip("\n")})
    assert rows(source.read().ratings) == EXPECTED


def test_ten_files_are_read_by_number(make: Any) -> None:
    names = {f"combined_data_{n}.txt": f"{100 + n}:\n5,3,2005-01-01\n" for n in range(1, 11)}
    movies = make(names).read().ratings["movie_id"].to_pylist()
    assert movies == list(range(101, 111))


def test_movies_without_a_title_are_kept_if_they_are_rated(make: Any) -> None:
    tables = make({"combined_data_1.txt": "8:\n9:\n7,4,2005-01-01\n"}).read()
    assert rows(tables.movies)[-1] == (9, "(movie 9)", None, [])
    assert 8 not in tables.movies["movie_id"].to_pylist()
    assert tables.notices == ("1 rated movies have no title (the first: 9); they are kept.",)


def test_the_files_on_disk_hold_the_same(make: Any, tmp_path: Path) -> None:
    source, target = make(), Storage.at(tmp_path / "out")
    target.make_folder()
    source.write(target)
    tables = source.read()
    for name in ("ratings", "movies", "links", "tags"):
        assert (target / f"{name}.parquet").read_table().equals(getattr(tables, name)), name


def test_ratings_are_written_in_parts(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 movies with three ratings each, in blocks of 1 kB and row groups of 500."""
    monkeypatch.setattr(netflix, "_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(netflix, "_ROWS_AT_A_TIME", 500)
    lines = (f"{m}:\n" + "".join(f"{u},3,2005-01-01\n" for u in (1, 2, 3)) for m in range(1, 2001))
    source = make({"combined_data_1.txt": "".join(lines), "combined_data_2.txt": None})
    target = Storage.at(tmp_path / "out")
    target.make_folder()

    source.write(target)

    file = pq.ParquetFile((target / "ratings.parquet").path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sum(sizes) == 6_000
    assert max(sizes) < 600
    table = file.read()
    np.testing.assert_array_equal(table["row"], np.arange(6_000))
    np.testing.assert_array_equal(table["movie_id"], np.repeat(np.arange(1, 2001), 3))


def test_the_version_follows_the_files(make: Any, tmp_path: Path) -> None:
    version = make().version
    assert make().version["num_files"] == version["num_files"] == 3
    (tmp_path / "netflix" / "combined_data_2.txt").write_text(SECOND + "5:\n1,1,2005-01-01\n")
    assert NetflixPrizeSource("netflix-prize", tmp_path / "netflix").version != version


def test_the_number_of_ratings_is_estimated_from_the_size(make: Any, tmp_path: Path) -> None:
    ratings = "".join(f"{1_000_000 + user},4,2005-01-01\n" for user in range(3_000))
    make({"combined_data_1.txt": f"1:\n{ratings}"})
    config = DataConfig(source="netflix-prize", path=str(tmp_path / "netflix"))
    assert NetflixPrizeSource.expected_ratings(config) == pytest.approx(3_000, rel=0.02)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1488844,6,2005-09-06", "found '1488844,6,2005-09-06', expected customer,rating,"),
        ("1488844,3.5,2005-09-06", "found '1488844,3.5,2005-09-06', expected customer,rating,"),
        ("1488844,3", "found '1488844,3', expected customer,rating,YYYY-MM-DD with 1 to 5 stars"),
        ("x,3,2005-09-06", "found 'x,3,2005-09-06'"),
        ("1488844,3,06.09.2005", "found '1488844,3,06.09.2005'"),
        ("1488844,3,2005-02-30", "the date in '1488844,3,2005-02-30' is not in the calendar"),
        ("1488844,3,1969-12-31", "the date in '1488844,3,1969-12-31' .* is before 1970"),
        ("two:", "found 'two:', expected a movie's line such as 123:"),
        ("caf\xe9,1,1", "found 'cafÃ©,1,1'"),
        ("822109,1,2005-05-14", r"customer 822109 rates the movie a second time .*on line 3\)"),
        ("1:", r"movie 1 starts a second time \(first in .*combined_data_1.txt, line 1\)"),
    ],
)
@pytest.mark.parametrize("block_bytes", [16 << 20, 40])
def test_wrong_lines_are_named(
    make: Any, monkeypatch: pytest.MonkeyPatch, line: str, message: str, block_bytes: int
) -> None:
    monkeypatch.setattr(netflix, "_BLOCK_BYTES", block_bytes)
    text = f"1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n\n{line}\n5,5,2005-05-13\n"
    with pytest.raises(DatasetError, match=f"combined_data_1.txt, line 5: {message}"):
        make({"combined_data_1.txt": text}).read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"combined_data_1.txt holds no rating; expected a line such as 123: and lines"),
        ("\n\n", r"combined_data_1.txt holds no rating"),
        ("5,5,2005-05-13\n", "line 1: '5,5,2005-05-13' is found before the first movie"),
        ("1:\n", "line 1: the file ends without a rating of movie 1; expected lines customer,"),
        (FIRST + "3:\n", "line 6: the file ends without a rating of movie 3"),
        # The last lines of a truncated file.
        (FIRST.removesuffix("11\n"), "line 5: found '1488844,4,1999-11-', expected customer"),
        (FIRST.removesuffix(",4,1999-11-11\n"), "line 5: found '1488844', expected customer"),
        (FIRST.removesuffix("\n1488844,4,1999-11-11\n"), "line 4: the file ends without a rating"),
        (FIRST + "20", "line 6: found '20', expected customer,rating,YYYY-MM-DD"),
    ],
)
def test_files_without_ratings_and_truncated_files(make: Any, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make({"combined_data_1.txt": text}).read()


@pytest.mark.parametrize(
    ("titles", "message"),
    [
        (b"", "movie_titles.csv holds no movie; expected a line id,year,title"),
        (b"1,2003\n", r"movie_titles.csv, line 1: 2 fields, expected 3 \(id,year,title\)"),
        (b"\n1,203x,A\n", "line 2: the year is '203x', expected four digits or NULL"),
        (b"1,,A\n", "line 1: the year is '', expected four digits or NULL"),
        (b"one,2003,A\n", "line 1: the movie's id is 'one', expected a whole number"),
        (b"1,2003,A\n2,2003,B\n1,2003,C\n", "line 3: movie 1 appears a second time"),
    ],
)
def test_wrong_titles_are_named(make: Any, titles: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make({"movie_titles.csv": titles}).read()


@pytest.mark.parametrize(
    ("year", "expected"),
    [("1896", 1896), ("2005", 2005), ("NULL", None), ("0", None), ("0001", None), ("9999", None)],
)
def test_years_that_cannot_be_one_are_unknown(make: Any, year: str, expected: int | None) -> None:
    tables = make({"movie_titles.csv": f"1,{year},A\n"}).read()
    assert tables.movies["year"].to_pylist()[0] == expected


def test_missing_files(make: Any, tmp_path: Path) -> None:
    missing = {"combined_data_1.txt": None, "combined_data_2.txt": None}
    with pytest.raises(DatasetError, match=r"found: movie_titles.csv.*Expected movie_titles.csv"):
        make(missing)
    with pytest.raises(
        DatasetError, match=r"combined_data_1.txt is missing, but there is combined"
    ):
        make({"combined_data_1.txt": None})
    with pytest.raises(DatasetError, match=r"nowhere holds no ratings of the Netflix Prize"):
        netflix.rating_files(tmp_path / "nowhere")
    source = make({"movie_titles.csv": None})
    (tmp_path / "netflix" / "movie_titles.csv").unlink()
    with pytest.raises(DatasetError, match=r"movie_titles.csv is missing; expected a line id,year"):
        source.read()


def test_a_folder_in_place_of_a_file(make: Any, tmp_path: Path) -> None:
    source = make({"combined_data_2.txt": None})
    (tmp_path / "netflix" / "combined_data_2.txt").mkdir()
    with pytest.raises(DatasetError, match=r"cannot read .*combined_data_2.txt"):
        source.read()


def test_a_path_is_required() -> None:
    with pytest.raises(ValueError, match=r'"netflix-prize" needs data.path, the folder with movie'):
        DataConfig(source="netflix-prize")


def test_blocks_do_not_hold_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of 10 kB of a file of 1 MB gives about a hundredth of its rows."""
    monkeypatch.setattr(netflix, "_BLOCK_BYTES", 10_000)
    file = tmp_path / "combined_data_1.txt"
    file.write_text("1:\n" + "".join(f"{u},4,2005-01-01\n" for u in range(50_000)))
    reader = RatingReader([file])
    sizes = [batch.num_rows for batch in reader.batches()]
    assert sum(sizes) == 50_000
    assert max(sizes) < 1_000
    assert reader.rated == {1}


def test_two_files_of_one_number(make: Any) -> None:
    with pytest.raises(
        DatasetError, match=r"both combined_data_01.txt and combined_data_1.txt, which have the sam"
    ):
        make({"combined_data_01.txt": FIRST})
