from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs
from scipy.stats import yeojohnson

from ncf.data.preprocessor import (
    MovieTable,
    NumericColumn,
    Preprocessor,
    load_preprocessor,
    save_preprocessor,
)
from ncf.errors import DataError

LARGEST = np.iinfo(np.int64).max
SMALLEST = np.iinfo(np.int64).min


def rewrite(folder: Path, **values: Any) -> None:
    file = folder / "fitted.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_saved_state_comes_back_equal_in_every_field(
    preprocessor: Preprocessor, tmp_path: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    save_preprocessor(preprocessor, tmp_path / "state")
    assert_same(load_preprocessor(tmp_path / "state"), preprocessor)


def test_values_that_are_not_round_come_back_to_the_last_bit(
    preprocessor: Preprocessor, tmp_path: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    rng = np.random.default_rng(0)
    column = NumericColumn(
        "year", "yeo-johnson", 31.7662752284684, 2005.1, 2.374031e103, 5.3e102, indicator=False
    )
    odd = replace(
        preprocessor,
        rating_mean=1 / 3,
        decay_rate_per_day=0.1 + 0.2,
        numeric=(preprocessor.numeric[0], column),
        movies=replace(preprocessor.movies, numeric=rng.normal(size=(4, 3)).astype(np.float32)),
    )
    save_preprocessor(odd, tmp_path)
    assert_same(load_preprocessor(tmp_path), odd)


def test_ids_may_be_any_64_bit_numbers(
    preprocessor: Preprocessor, tmp_path: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    state = replace(
        preprocessor,
        user_ids=np.array([SMALLEST, -1, LARGEST]),
        movies=replace(preprocessor.movies, ids=np.array([SMALLEST, 0, 2**53 + 1, LARGEST])),
    )
    save_preprocessor(state, tmp_path)
    loaded = load_preprocessor(tmp_path)
    assert_same(loaded, state)
    assert loaded.user_index(np.array([LARGEST, SMALLEST, 0])).tolist() == [3, 1, 0]
    assert loaded.movies.index_of(np.array([2**53, 2**53 + 1])).tolist() == [-1, 2]


def test_a_state_without_genres_decades_and_numerics_comes_back(
    preprocessor: Preprocessor, tmp_path: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    bare = replace(
        preprocessor,
        genres=(),
        decades=(),
        numeric=(),
        movies=replace(
            preprocessor.movies,
            genres=np.zeros((4, 0), np.bool_),
            decade=np.zeros(4, np.int64),
            numeric=np.zeros((4, 0), np.float32),
        ),
    )
    save_preprocessor(bare, tmp_path)
    assert_same(load_preprocessor(tmp_path), bare)


def test_titles_of_any_script_come_back(preprocessor: Preprocessor, tmp_path: Path) -> None:
    titles = ("Amélie (2001)", "七人の侍 (1954)", 'Quote " and \\ (1999)', "")
    save_preprocessor(
        replace(preprocessor, movies=replace(preprocessor.movies, titles=titles)), tmp_path
    )
    assert load_preprocessor(tmp_path).movies.titles == titles


def test_a_state_is_read_through_any_file_system(
    preprocessor: Preprocessor, tmp_path: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    (tmp_path / "root").mkdir()
    elsewhere = fs.SubTreeFileSystem(str(tmp_path / "root"), fs.LocalFileSystem())
    preprocessor.save(elsewhere, "a/b")
    assert_same(Preprocessor.load(elsewhere, "a/b"), preprocessor)
    assert (tmp_path / "root" / "a" / "b" / "fitted.json").is_file()


def test_decay_weights_by_hand(preprocessor: Preprocessor) -> None:
    day = 86_400
    ages = [0, 1, 1000, 0.5]
    newer_by_a_year = preprocessor.decay_reference + 365 * day
    timestamps = [int(preprocessor.decay_reference - age * day) for age in ages]
    weights = preprocessor.decay_weight(np.array([*timestamps, newer_by_a_year]))
    assert weights.dtype == np.float32
    # exp(0), exp(-0.001), exp(-1), exp(-0.0005), and no more than 1 for what is newer
    expected = [1.0, 0.99900050, 0.36787944, 0.99950012, 1.0]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_a_rate_of_zero_makes_every_weight_one(preprocessor: Preprocessor) -> None:
    still = replace(preprocessor, decay_rate_per_day=0.0)
    assert still.decay_weight(np.array([0, 10**9, 2 * 10**9])).tolist() == [1, 1, 1]


def test_weights_never_reach_zero(preprocessor: Preprocessor) -> None:
    fast = replace(preprocessor, decay_rate_per_day=1.0)  # exp(-11574) is 0 in any floating type
    weight = fast.decay_weight(np.array([0]))
    assert 0 < weight[0] < 1e-30
    assert np.isfinite(np.float32(1) / weight[0])


def test_unknown_users_are_0_and_unknown_movies_minus_1(preprocessor: Preprocessor) -> None:
    users = np.array([30, 10, 15, 5, 31, 20])
    assert preprocessor.user_index(users).tolist() == [3, 1, 0, 0, 0, 2]
    movies = np.array([9, 1, 0, 10, 3, 5])
    assert preprocessor.movies.index_of(movies).tolist() == [3, 0, -1, -1, -1, 2]


def test_a_state_without_users_or_movies_knows_nobody(preprocessor: Preprocessor) -> None:
    no_ids = np.array([], dtype=np.int64)
    empty = replace(preprocessor, user_ids=no_ids)
    assert empty.user_index(np.array([10, 20])).tolist() == [0, 0]
    table = MovieTable(
        no_ids,
        (),
        no_ids,
        np.zeros((0, 3), np.bool_),
        no_ids,
        np.zeros((0, 3), np.float32),
        no_ids,
    )
    assert table.index_of(np.array([1])).tolist() == [-1]
    assert replace(preprocessor, movies=table).num_movies == 0


def test_sizes_and_names_follow_from_the_fields(preprocessor: Preprocessor) -> None:
    assert (preprocessor.num_users, preprocessor.num_movies, len(preprocessor.movies)) == (3, 3, 4)
    assert preprocessor.numeric_names == ("budget", "year", "budget_missing")


@pytest.mark.parametrize(
    ("transform", "deskewed"),
    [
        ("none", [-1.0, 3.0, 8.0]),
        ("log1p", [0.0, np.log(4), np.log(9)]),  # what is below zero counts as zero
        ("yeo-johnson", yeojohnson(np.array([-1.0, 3.0, 8.0]), lmbda=0.5).tolist()),
    ],
)
def test_a_numeric_column_imputes_deskews_and_scales(transform: Any, deskewed: list[float]) -> None:
    column = NumericColumn("x", transform, 0.5, 3.0, 2.0, 4.0, indicator=False)
    applied = column.apply(np.array([-1.0, np.nan, 8.0]))
    np.testing.assert_allclose(applied, (np.array(deskewed) - 2) / 4, rtol=1e-12)


@pytest.mark.parametrize("found", [0, 1, "2", None])
def test_another_format_version_is_refused(
    preprocessor: Preprocessor, tmp_path: Path, found: object
) -> None:
    save_preprocessor(preprocessor, tmp_path)
    rewrite(tmp_path, format_version=found)
    with pytest.raises(DataError, match=f"has format version {found}, this program reads"):
        load_preprocessor(tmp_path)


def test_a_value_that_is_not_there_is_refused(preprocessor: Preprocessor, tmp_path: Path) -> None:
    save_preprocessor(preprocessor, tmp_path)
    file = tmp_path / "fitted.json"
    values = json.loads(file.read_text())
    del values["rating_max"]
    file.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"is damaged: .*rating_max"):
        load_preprocessor(tmp_path)


@pytest.mark.parametrize("name", ["fitted.json", "users.parquet", "movies.parquet"])
@pytest.mark.parametrize("keep", [None, 0, 30])
def test_a_missing_or_truncated_file_is_refused(
    preprocessor: Preprocessor, tmp_path: Path, name: str, keep: int | None
) -> None:
    save_preprocessor(preprocessor, tmp_path)
    file = tmp_path / name
    if keep is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="cannot read the preprocessor in"):
        load_preprocessor(tmp_path)


def test_names_are_written_and_read(preprocessor: Preprocessor, tmp_path: Path) -> None:
    entries = np.array([[1, 3], [2, 0], [0, 0], [3, 0]], dtype=np.int32)
    state = replace(
        preprocessor,
        movies=replace(preprocessor.movies, names={"keywords": entries}),
        vocabularies={"keywords": np.array([5, 2**40, 2**41])},
    )
    save_preprocessor(state, tmp_path)
    loaded = load_preprocessor(tmp_path)
    np.testing.assert_array_equal(loaded.movies.names["keywords"], entries)
    np.testing.assert_array_equal(loaded.vocabularies["keywords"], [5, 2**40, 2**41])
    no_keywords = replace(
        state, movies=replace(preprocessor.movies, names={"keywords": entries * 0})
    )
    save_preprocessor(no_keywords, tmp_path)
    assert not load_preprocessor(tmp_path).movies.names["keywords"].any()
