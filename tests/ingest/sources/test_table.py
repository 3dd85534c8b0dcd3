"""Tables of the user's own: what stopped a data scientist, and what is still refused."""

from __future__ import annotations

import bz2
import gzip
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation.errors import ConfigError
from foundation.storage import Storage
from ingest.config import DataConfig, TmdbConfig
from ingest.dataset import ingest
from ingest.errors import DatasetError
from ingest.sources.selection import selected_class
from ingest.sources.table.source import TableSource
from ingest.sources.tables import Tables, check

PLAIN = """\
customer_id,sku,score,date
ann,X1,4,2020-01-01
bob,X2,3.5,2020-01-02
ann,X2,1,2020-01-03
"""
SECONDS = [1_577_836_800, 1_577_923_200, 1_578_009_600]
"""Of 2020-01-01, -02 and -03, midnight UTC."""


def read(path: Path, **settings: Any) -> Tables:
    config = DataConfig(path=str(path), **settings)
    assert selected_class(config) is TableSource
    tables = TableSource.open(config, path.parent).read()
    check(tables, path.name)
    return tables


def written(folder: Path, text: str | bytes, name: str = "shop.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def rows(tables: Tables) -> list[tuple[Any, ...]]:
    """User, movie, stars and seconds of each rating, with the ids of the data."""
    users, movies = tables.user_names, tables.movie_names
    return [
        (
            row["user_id"] if users is None else users[row["user_id"] - 1],
            row["movie_id"] if movies is None else movies[row["movie_id"] - 1],
            row["rating"],
            row["timestamp"],
        )
        for row in tables.ratings.to_pylist()
    ]


EXPECTED = [
    ("ann", "X1", 4.0, SECONDS[0]),
    ("bob", "X2", 3.5, SECONDS[1]),
    ("ann", "X2", 1.0, SECONDS[2]),
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("shop.csv", PLAIN.encode()),
        ("shop.csv", PLAIN.replace(",", ";").encode()),
        ("shop.tsv", PLAIN.replace(",", "\t").encode()),
        ("shop.txt", PLAIN.replace(",", "|").encode()),
        ("shop.csv", PLAIN.replace(",", ";").replace("3.5", "3,5").encode()),
        ("shop.csv", PLAIN.encode("utf-16")),
        ("shop.csv", PLAIN.replace("\n", "\r\n").encode("utf-8-sig")),
        ("shop.csv.gz", gzip.compress(PLAIN.encode())),
        ("shop.csv.bz2", bz2.compress(PLAIN.encode())),
        ("shop.tsv.zst", pa.compress(PLAIN.replace(",", "\t").encode(), "zstd", asbytes=True)),
        ("shop.csv", PLAIN.replace("2020-01-01", "2020-01-01T00:00:00Z").encode()),
        ("shop.csv", PLAIN.replace("2020-01-01", "2020-01-01 01:00:00+01:00").encode()),
        ("shop.csv", PLAIN.replace("ann,X1", '"ann", X1 ').encode()),
    ],
)
def test_tables_of_many_shapes_are_read(name: str, content: bytes, tmp_path: Path) -> None:
    assert rows(read(written(tmp_path, content, name))) == EXPECTED


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    frame = pd.read_csv(written(tmp_path, PLAIN), parse_dates=["date"])
    frame["sku"] = frame["sku"].astype("category")
    frame.to_parquet(tmp_path / "shop.parquet")
    assert rows(read(tmp_path / "shop.parquet")) == EXPECTED


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([12345678901.0, 2.0]), [12345678901, 2]),
        (pa.array([2**63 + 5, 1], pa.uint64()), ["9223372036854775813", "1"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
    ],
)
def test_ids_of_parquet_may_have_any_flat_type(
    column: pa.Array, expected: list[object], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"user": column, "item": [1, 2]}), tmp_path / "x.parquet")
    assert [row[0] for row in rows(read(tmp_path / "x.parquet"))] == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item": [[1], [2]]}, r"the column item has the type list<.*expected numbers, texts"),
        ({"item": pa.array(["a", None]).dictionary_encode()}, "row 2: item is empty"),
        ({"time": pa.array([1, 2], pa.time32("s"))}, "the column time has the type time32"),
        ({"time": pa.array([1, None], pa.timestamp("s"))}, "row 2: time is empty, expected a date"),
    ],
)
def test_columns_of_parquet_that_cannot_be_meant_are_refused(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    table = pa.table({"user": [1, 2], "item": [1, 2]} | columns)
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "x.parquet")


def test_files_are_recognised_by_their_content(tmp_path: Path) -> None:
    assert rows(read(written(tmp_path, gzip.compress(PLAIN.encode()), "shop.csv"))) == EXPECTED
    assert rows(read(written(tmp_path, PLAIN, "shop.parquet"))) == EXPECTED
    with pytest.raises(DatasetError, match="is a zip archive or an Excel workbook"):
        read(written(tmp_path, b"PK\x03\x04...", "shop.xlsx"))


def test_columns_may_have_any_name_and_order(tmp_path: Path) -> None:
    file = written(tmp_path, "when,value,a,b\n2020-01-01,4,X1,ann\n2020-01-02,2,X2,bob\n")
    columns = {"user": "b", "item": "a", "rating": "value", "time": "when"}
    found = read(file, columns=columns)
    assert rows(found) == [("ann", "X1", 4.0, SECONDS[0]), ("bob", "X2", 2.0, SECONDS[1])]
    assert "columns: user = b, item = a, rating = value, time = when" in found.notices[0]


def test_without_a_header_columns_are_in_the_usual_order(tmp_path: Path) -> None:
    found = read(written(tmp_path, "196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "u.data"))
    assert rows(found) == [(196, 242, 3.0, 881250949), (186, 302, 3.0, 891717742)]
    assert "separated by tabs, without a header line" in found.notices[0]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["9223372036854775807", "-5"], [9223372036854775807, -5]),
        (["7.0", "8.0"], [7, 8]),
        (["007", "7"], ["007", "7"]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["ä@x.org", "b,c"], ["ä@x.org", "b,c"]),
    ],
)
def test_ids_are_whole_numbers_or_texts(
    ids: list[str], expected: list[object], tmp_path: Path
) -> None:
    lines = "".join(f'"{each}",1,3\n' for each in ids)
    assert [row[0] for row in rows(read(written(tmp_path, f"user,item,rating\n{lines}")))] == (
        expected
    )


def test_texts_are_numbered_in_their_order(tmp_path: Path) -> None:
    found = read(written(tmp_path, PLAIN))
    assert (found.user_names, found.movie_names) == (("ann", "bob"), ("X1", "X2"))
    assert found.ratings["user_id"].to_pylist() == [1, 2, 1]
    assert found.movies["title"].to_pylist() == ["X1", "X2"]


@pytest.mark.parametrize(
    ("scale", "given", "stars"),
    [
        ((1, 10), "10", 5.0),
        ((1, 10), "1", 0.5),
        ((0, 100), "50", 2.75),
        ((-1, 1), "0", 2.75),
        ((0, 1), "1", 5.0),
        ((1, 5), "1", 1.0),
    ],
)
def test_a_named_scale_becomes_stars(
    scale: tuple[float, float], given: str, stars: float, tmp_path: Path
) -> None:
    file = written(tmp_path, f"user,item,rating\n1,1,{given}\n")
    assert rows(read(file, rating_scale=scale))[0][2] == stars


def test_another_scale_is_refused_until_it_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, "user,item,rating\n1,1,7\n1,2,10\n1,3,1\n")
    with pytest.raises(DatasetError) as refused:
        read(file)
    assert "line 2: rating is '7', expected 0.5 to 5" in str(refused.value)
    assert "--set data.rating_scale=[1,10]" in str(refused.value)
    with pytest.raises(DatasetError, match=r"line 3: rating is '10', expected 1 to 9"):
        read(file, rating_scale=(1, 9))


REPEATED = "user,item,rating,time\n1,1,2,200\n1,2,3,300\n1,1,5,100\n1,1,4,200\n"


def test_repeated_ratings_are_merged_by_a_rule(tmp_path: Path) -> None:
    file = written(tmp_path, REPEATED)
    with pytest.raises(DatasetError) as refused:
        read(file)
    assert "2 lines are wrong" in str(refused.value)
    assert "line 4: user 1 rates movie 1 a second time (first on line 2)" in str(refused.value)
    last = read(file, duplicates="last")
    assert rows(last) == [(1, 2, 3.0, 300), (1, 1, 4.0, 200)]
    assert "2 repeated ratings" in last.notices[-1]
    mean = rows(read(file, duplicates="mean"))
    assert mean[0] == (1, 2, 3.0, 300)
    assert mean[1][:2] == (1, 1)
    assert mean[1][2:] == (pytest.approx(11 / 3), 200)


def test_clicks_are_choices(tmp_path: Path) -> None:
    found = read(written(tmp_path, "customer_id,sku\nann,X1\nbob,X1\n"))
    assert rows(found) == [("ann", "X1", 5.0, 0), ("bob", "X1", 5.0, 0)]
    assert any("only a choice model" in notice for notice in found.notices)
    assert any("no column has times" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["1577836800", "1577923200"], SECONDS[:2]),
        (["1577836800000", "1577923200000"], SECONDS[:2]),
        (["1577836800.0", "1577923200.0"], SECONDS[:2]),
        (["1.5778368e9", "1.5779232E+09"], SECONDS[:2]),
        (["20200101", "20200102"], SECONDS[:2]),
        (["2020-01-01", "2020-01-02T00:00"], SECONDS[:2]),
    ],
)
def test_times_are_whole_numbers_or_iso_dates(
    times: list[str], expected: list[int], tmp_path: Path
) -> None:
    lines = "".join(f"{user},1,3,{time}\n" for user, time in enumerate(times, 1))
    found = rows(read(written(tmp_path, f"user,item,rating,timestamp\n{lines}")))
    assert [row[3] for row in found] == expected


def test_all_errors_of_a_file_are_listed_at_once(tmp_path: Path) -> None:
    lines = [
        "ann,X1,4,2020-01-01",
        ",X1,4,2020-01-01",
        "bob,,4,2020-01-01",
        "cid,X1,good,2020-01-01",
        "dan,X1,4,13/02/2020",
        "eve,X1,4,2999-01-01",
        "ann,X1,4,2020-01-01",
        *(f"u{i},X1,none,2020-01-01" for i in range(20)),
    ]
    with pytest.raises(DatasetError) as refused:
        read(written(tmp_path, "user,item,rating,time\n" + "\n".join(lines) + "\n"))
    text = str(refused.value)
    assert "26 lines are wrong" in text
    for expected in (
        "line 3: user is empty",
        "line 4: item is empty",
        "line 5: rating is 'good', expected a number",
        "line 6: time is '13/02/2020', expected a date from 1970 to today",
        "line 7: time is '2999-01-01'",
        "line 8: user 'ann' rates movie 'X1' a second time",
        "and 16 more",
    ):
        assert expected in text


def test_a_number_that_is_no_time_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "user,item,time\n1,1,1577836800\n2,1,9999999999999999999\n")
    with pytest.raises(DatasetError, match="line 3: time is '9999999999999999999', which no unit"):
        read(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a header line"),
        ("user\n1\n", "nothing separates columns"),
        ("user,item,rating\n", "holds no rating"),
        ("a,b,c\nx,y,z\n", r"no column is recognised as user or item; found a, b, c .*--columns u"),
        ("user,item,item\n1,2,3\n", "the column item is there 2 times"),
        ("user,item,rating\n1,2\n1,2,3,4\n", "2 lines are wrong"),
        ("1,2,3,4,5\n", "5 columns without names"),
    ],
)
def test_files_that_cannot_be_used_are_refused(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        read(written(tmp_path, content))


def test_a_named_column_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data.columns.user is 'who'; found the columns cust"):
        read(written(tmp_path, PLAIN), columns={"user": "who"})


@pytest.mark.parametrize("cut", [30, -4])
def test_a_compressed_file_that_was_cut_is_refused(cut: int, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot unpack"):
        read(written(tmp_path, gzip.compress(PLAIN.encode())[:cut], "shop.csv.gz"))


def test_a_folder_may_have_a_table_of_movies(tmp_path: Path) -> None:
    written(tmp_path, PLAIN, "ratings.csv")
    written(
        tmp_path,
        "sku;name;category;year;imdb_id;tmdbId\nX2;Thing, The;Drama/Comedy;1999;tt0012345;77\n"
        "X9;Not rated;;;;\n",
        "items.csv",
    )
    found = read(tmp_path)
    assert found.movies.to_pylist() == [
        {"movie_id": 1, "title": "X1", "year": None, "genres": []},
        {"movie_id": 2, "title": "Thing, The", "year": 1999, "genres": ["Drama", "Comedy"]},
    ]
    assert found.links.to_pylist() == [
        {"movie_id": 1, "imdb_id": None, "tmdb_id": None},
        {"movie_id": 2, "imdb_id": "tt0012345", "tmdb_id": 77},
    ]
    assert "1 of 2 rated movies are not in items.csv" in found.notices[-1]


def test_the_links_of_movielens_layout_are_read_too(tmp_path: Path) -> None:
    written(tmp_path, "userId,movieId,rating,timestamp\n1,7,8,2\n1,9,8,2\n", "ratings.csv")
    written(
        tmp_path,
        "movieId,title,genres\n7,Seven (1995),Crime|Drama\n9,9 (2009),Animation\n",
        "movies.csv",
    )
    written(tmp_path, "movieId,imdbId,tmdbId\n7,0114369,807\n", "links.csv")
    found = read(tmp_path, rating_scale=(1, 10))
    assert found.movies["title"].to_pylist() == ["Seven (1995)", "9 (2009)"]
    assert found.links.to_pylist()[0] == {"movie_id": 7, "imdb_id": "tt0114369", "tmdb_id": 807}
    assert found.notices[-1].endswith(
        "1 of 2 rated movies are not in links.csv; they are kept without ids of IMDb and TMDb."
    )


def test_repeated_ratings_of_movielens_layouts_are_merged_with_all_their_files(
    tmp_path: Path,
) -> None:
    written(tmp_path, "userId,movieId,rating,timestamp\n1,7,3,1\n1,7,4,2\n", "ratings.csv")
    written(tmp_path, "movieId,title,genres\n7,Seven (1995),Crime|Drama\n", "movies.csv")
    written(tmp_path, "userId,movieId,tag,timestamp\n1,7,dark,2\n", "tags.csv")
    config = DataConfig(path=str(tmp_path), duplicates="last")
    found = selected_class(config).open(config, tmp_path).read()
    assert rows(found) == [(1, 7, 4.0, 2)]
    assert found.tags["tag"].to_pylist() == ["dark"]
    assert "1 repeated ratings" in " ".join(found.notices)


def test_movies_of_numbers_are_found_in_their_table(tmp_path: Path) -> None:
    written(tmp_path, "user,movie,rating\nann,7,4\nbob,9,2\n", "ratings.csv")
    written(tmp_path, "movie,title\n9.0,Nine\n7,Seven\n", "movies.csv")
    assert read(tmp_path).movies["title"].to_pylist() == ["Seven", "Nine"]


def test_a_movie_that_is_described_twice_is_refused(tmp_path: Path) -> None:
    written(tmp_path, PLAIN, "ratings.csv")
    written(tmp_path, "sku,name\nX1,One\nX2,Two\nX1,Three\n", "items.csv")
    with pytest.raises(DatasetError, match=r"line 4: the movie is there a second time"):
        read(tmp_path)


def test_several_tables_in_a_folder_are_refused(tmp_path: Path) -> None:
    written(tmp_path, PLAIN, "a.csv")
    written(tmp_path, PLAIN, "b.csv")
    config = DataConfig(source="table", path=str(tmp_path))
    with pytest.raises(DatasetError, match=r"several tables of ratings \(found: a.csv, b.csv\)"):
        TableSource.open(config, tmp_path)


def test_layouts_of_movielens_are_read_as_such(tmp_path: Path) -> None:
    written(tmp_path, "userId,movieId,rating,timestamp\n1,1,3,1\n", "ratings.csv")
    written(tmp_path, "movieId,title,genres\n1,One,Drama\n", "movies.csv")
    assert selected_class(DataConfig(path=str(tmp_path))).__name__ == "FolderSource"
    # Of the same files with settings that only tables have.
    config = DataConfig(path=str(tmp_path), rating_scale=(1, 10))
    assert selected_class(config) is TableSource


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "ml-1m", "rating_scale": (1, 10)}, "settings of tables"),
        ({"rating_scale": (1, 10)}, "set data.path"),
        ({"source": "synthetic", "duplicates": "last"}, "no setting of source"),
        ({"path": "x.csv", "columns": {"user": "a", "item": "a"}}, "'a' is named twice"),
        ({"path": "x.csv", "rating_scale": (5, 1)}, "expected .lowest, highest."),
        ({"path": "x.csv", "columns": {"movie": "sku"}}, "movie"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        DataConfig(**settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("userId,1,2,3\n7,4,3,5\n", "no column is recognised as item; found userId, 1, 2, 3"),
        ("user,item,a_rating,b_rating\n1,1,2,3\n", "a_rating, b_rating could all be the ratings"),
        ('user,item,rating\n1,1,"1,000"\n', "rating is '1,000', expected a number"),
        ("user,item,time\n1,1,2020-01-01\n1,2,now\n", "line 3: time is 'now', expected a date"),
        ("user,item,time\n1,1,today\n", "line 2: time is 'today', expected a date"),
        ("user,item,time\n1,1,2020-01-01\n1,2,\n", "line 3: time is empty, expected a date"),
        ("user,item,rating\nNA,1,3\n", "user is 'NA', which stands for no value"),
        ("user,item,time\n1,1,1e9\n2,1,1e30\n", "line 3: time is '1e30', which no unit"),
        (f"{'x' * 140_000},item\n1,1\n", "line 1 has more than 100,000 characters"),
    ],
)
def test_what_would_be_misread_is_refused(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        read(written(tmp_path, content))


def test_a_row_with_two_errors_counts_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as refused:
        read(written(tmp_path, "user,item,rating\n,1,bad\n1,1,3\n,2,3\n"))
    assert "2 lines are wrong" in str(refused.value)
    assert "line 2: user is empty; rating is 'bad', expected a number" in str(refused.value)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("User-ID,ISBN,Book-Rating", "Book-Rating"),
        ("user_id,item_id,user_rating,rating_count", "user_rating"),
        ("userId,movieId,Stars", "Stars"),
    ],
)
def test_ratings_are_recognised_by_the_end_of_their_name(
    header: str, column: str, tmp_path: Path
) -> None:
    count = header.count(",") - 1
    file = written(tmp_path, f"{header}\n1,2{',3.5' * count}\n")
    found = read(file)
    assert rows(found)[0][:3] == (1, 2, 3.5)
    assert f"rating = {column}" in found.notices[0]


def test_columns_without_names_are_no_matter(tmp_path: Path) -> None:
    found = read(written(tmp_path, ",user,item,rating,\n0,1,2,4,\n"))
    assert rows(found)[0][:3] == (1, 2, 4.0)
    assert "not used" not in found.notices[0]


def test_a_table_of_movies_needs_names_of_columns(tmp_path: Path) -> None:
    written(tmp_path, "user,item\n1,2\n", "ratings.csv")
    written(tmp_path, "2,Two (1999)\n", "movies.csv")
    with pytest.raises(DatasetError, match="Expected a header line, and a row for each movie"):
        read(tmp_path)


def test_ids_are_preferred_to_names_of_users(tmp_path: Path) -> None:
    found = read(written(tmp_path, "user,user_id,movie,movie_id,rating\nann,5,Alien,6,3\n"))
    assert rows(found)[0][:2] == (5, 6)
    assert "not used: user, movie" in found.notices[0]


def test_a_scale_without_ratings_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "user,item,grade\n1,1,7\n")
    with pytest.raises(DatasetError, match=r"no column is recognised as ratings \(unused: grade"):
        read(file, rating_scale=(1, 10))
    named = read(file, rating_scale=(1, 10), columns={"rating": "grade"})
    assert rows(named)[0][2] == pytest.approx(0.5 + 6 * 4.5 / 9)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([*["4"] * 50, "44"], "Correct or remove each."),  # a slip of the keyboard
        ([*["4"] * 50, "-1"], "Correct or remove each."),  # no rating
        (["0", "7", "10"], "data.rating_scale=[0,10]"),
        (["1", "7", "10"], "data.rating_scale=[1,10]"),
        (["5", "80", "35"], "data.rating_scale=[1,100]"),
        (["0", "1", "0", "1"], "data.rating_scale=[0,1]"),
        (["0", "5", "3"], "data.rating_scale=[0,5]"),
        (["-3", "600"], "data.rating_scale=[-3,600]"),
    ],
)
def test_a_scale_is_advised_if_ratings_are_on_one(
    values: list[str], advice: str, tmp_path: Path
) -> None:
    lines = "".join(f"{user},1,{value}\n" for user, value in enumerate(values))
    with pytest.raises(DatasetError) as refused:
        read(written(tmp_path, f"user,item,rating\n{lines}"))
    assert advice in str(refused.value)


def test_columns_without_names_are_named_by_position(tmp_path: Path) -> None:
    file = written(tmp_path, "2020-01-01,X1,ann,4,no\n2020-01-02,X2,bob,3.5,no\n")
    found = read(file, columns={"user": "3", "item": "column 2", "rating": "4", "time": "1"})
    assert rows(found) == EXPECTED[:2]
    with pytest.raises(DatasetError, match=r"user is 'who'; found 5 columns without names"):
        read(file, columns={"user": "who", "item": "2"})


def test_text_ids_among_numbers_are_reported(tmp_path: Path) -> None:
    found = read(written(tmp_path, "user,item\n1,1\n2,1\n3.0,1\nx9,1\n"))
    assert found.user_names == ("1", "2", "3.0", "x9")
    assert "user: 1 of 4 ids are not whole numbers (such as 'x9')" in " ".join(found.notices)


def test_numbers_with_and_without_point_are_one_id(tmp_path: Path) -> None:
    assert [row[0] for row in rows(read(written(tmp_path, "user,item\n1.0,1\n1,2\n")))] == [1, 1]


def test_ids_in_the_table_of_movies_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, "user,movie,rating\n1,0,4\n1,7,2\n", "ratings.csv")
    written(tmp_path, "movie,title\nx,Wrong\n,Empty\n99,Other\n7,Seven\n", "movies.csv")
    assert read(tmp_path).movies["title"].to_pylist() == ["(movie 0)", "Seven"]


@pytest.mark.parametrize("header", ["sku,name", "id,name", "movieId,name", "code,name"])
def test_movies_may_have_another_column_of_ids_than_ratings(header: str, tmp_path: Path) -> None:
    written(tmp_path, "user,code,rating\nann,X1,4\n", "ratings.csv")
    written(tmp_path, f"{header}\nX1,One\n", "items.csv")
    assert read(tmp_path, columns={"item": "code"}).movies["title"].to_pylist() == ["One"]


def test_a_column_of_movies_may_be_in_one_of_their_tables(tmp_path: Path) -> None:
    written(tmp_path, "user,movieId,rating\nann,7,4\n", "ratings.csv")
    written(tmp_path, "movieId,naam\n7,Zeven\n", "movies.csv")
    written(tmp_path, "movieId,imdbId,tmdbId\n7,0114369,807\n", "links.csv")
    assert read(tmp_path, columns={"title": "naam"}).movies["title"].to_pylist() == ["Zeven"]
    with pytest.raises(DatasetError, match=r"title is 'nom', a column that is in none of movies"):
        read(tmp_path, columns={"title": "nom"})


def test_a_table_of_the_same_name_elsewhere_is_another_data_set(tmp_path: Path) -> None:
    files = []
    for name, user in (("a", "ann"), ("b", "bob")):
        (tmp_path / name).mkdir()
        files.append(written(tmp_path / name, f"user,item\n{user},X1\n"))
        os.utime(files[-1], (10**9, 10**9))
    versions = [TableSource.open(DataConfig(path=str(f)), tmp_path).version for f in files]
    assert versions[0] != versions[1]


def test_text_ids_and_dates_in_files_named_like_movielens_are_read(tmp_path: Path) -> None:
    written(tmp_path, "userId,movieId,rating,timestamp\nann,X1,4,2020-01-01\n", "ratings.csv")
    written(tmp_path, "movieId,title,genres\nX1,One (1995),Drama\n", "movies.csv")
    found = read(tmp_path)
    assert rows(found) == EXPECTED[:1]
    assert found.movies["title"].to_pylist() == ["One (1995)"]


def test_a_wrong_line_among_numbers_is_left_to_the_layouts_reader(tmp_path: Path) -> None:
    lines = "".join(f"{user},1,4,1577836800\n" for user in range(1, 9))
    written(tmp_path, f"userId,movieId,rating,timestamp\n{lines}x,1,4,1\n", "ratings.csv")
    written(tmp_path, "movieId,title,genres\n1,One (1995),Drama\n", "movies.csv")
    assert selected_class(DataConfig(path=str(tmp_path))).__name__ == "FolderSource"


def test_bytes_and_unknown_time_zones_of_parquet_are_read(tmp_path: Path) -> None:
    zone = pa.timestamp("ms", "Mars/Olympus")
    columns = {
        "user": pa.array([b"ann"], pa.binary()),
        "item": pa.array(["X1"], pa.string_view()),
        "rating": pa.array([4], pa.int8()),
        "time": pa.array([SECONDS[0] * 1000], pa.int64()).cast(zone),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert rows(read(tmp_path / "x.parquet")) == EXPECTED[:1]
    columns["user"] = pa.array([b"\xff\xfe"], pa.binary())
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="the column user has bytes that are not UTF-8"):
        read(tmp_path / "x.parquet")


def test_changed_bytes_of_an_archive_are_an_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(PLAIN.encode() * 50))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(DatasetError, match="cannot unpack"):
        read(written(tmp_path, bytes(packed), "shop.csv.gz"))


def test_another_encoding_than_utf_8_is_reported(tmp_path: Path) -> None:
    text = "user,item\nJosé,X1\n"
    assert "read as Windows-1252" in " ".join(
        read(written(tmp_path, text.encode("latin-1"))).notices
    )
    assert "Windows" not in " ".join(read(written(tmp_path, text)).notices)


def test_names_of_ids_are_kept_and_replaced(tmp_path: Path) -> None:
    storage = Storage.at(str(tmp_path / "out"))
    file = written(tmp_path, PLAIN)
    first = ingest(DataConfig(path=str(file)), TmdbConfig(enabled=False), storage, environ={})
    names = (first.folder / "user_names.parquet").read_table()
    assert names.to_pylist() == [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]
    written(tmp_path, PLAIN.replace("ann", "zoe"))
    second = ingest(DataConfig(path=str(file)), TmdbConfig(enabled=False), storage, environ={})
    assert second.fingerprint != first.fingerprint
    written(tmp_path, PLAIN.replace("ann", "1").replace("bob", "2"))
    third = ingest(DataConfig(path=str(file)), TmdbConfig(enabled=False), storage, environ={})
    assert not (third.folder / "user_names.parquet").exists()
    assert (third.folder / "movie_names.parquet").exists()
