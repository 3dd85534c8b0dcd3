"""Searches of titles, and the movie that a title means."""

from __future__ import annotations

import numpy as np
import pytest

from ncf.data.preprocessor import MovieTable
from ncf.data.titles import display_title
from ncf.errors import UnknownIdError
from ncf.inference.titles import TitleSearch

CATALOGUE = (
    "Matrix, The (1999)",
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "Heat (1995)",
    "Heathers (1989)",
    "In the Heat of the Night (1967)",
    "Wheat (2000)",
    "Amélie (Le fabuleux destin d'Amélie Poulain) (2001)",
    "WALL·E (2008)",
    "...And Justice for All (1979)",
    "!!! (2010)",
    "Heat (1986)",
    "Matrix Reloaded, The (2003)",
    "Lord of the Rings: The Fellowship of the Ring, The (2001)",
    "Lord of the Rings: The Two Towers, The (2002)",
    "Godfather: Part II, The (1974)",
    "Tokyo Godfathers (2003)",
    "Léon: The Professional (a.k.a. The Professional) (Léon) (1994)",
    "Seven (a.k.a. Se7en) (1995)",
    "Shawshank Redemption, The (1994)",
)
COUNTS = (9, 8, 7, 2, 5, 6, 9, 3, 1, 1, 1, 4, 5, 9, 8, 4, 3, 2, 6, 9)


@pytest.fixture(scope="module")
def search() -> TitleSearch:
    count = len(CATALOGUE)
    nothing = np.zeros((count, 0))
    return TitleSearch(
        MovieTable(
            ids=100 + np.arange(count),
            titles=CATALOGUE,
            embedding_index=np.arange(count) + 1,
            genres=nothing.astype(bool),
            decade=np.zeros(count, np.int64),
            numeric=nothing.astype(np.float32),
            train_counts=np.array(COUNTS),
        )
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("the matrix", [0, 12]),
        ("MATRIX", [0, 12]),
        ("matrix reloaded", [12]),
        ("story toy", [1, 2]),
        ("toy story 2", [2]),
        ("toy story II", [2]),
        ("Toy Story (1995)", [1]),
        # The title itself, then words that begin so, then anywhere; each by number of ratings.
        ("heat", [11, 3, 5, 4, 6]),
        ("amelie poul", [7]),
        ("wall-e", [8]),
        ("and justice", [9]),
        ("1999", [0, 2]),
        ("lotr", [13, 14]),
        ("lotr 2001", [13]),
        ("godfather 2", [15]),
        ("godf", [15, 16]),
        ("toy story ii", [2]),
        ("godfather ii", [15]),
        ("se7en", [18]),
        ("the professional", [17]),
        ("!!!", []),
        ("   ", []),
    ],
)
def test_titles_are_found_by_their_words(
    query: str, expected: list[int], search: TitleSearch
) -> None:
    assert search.find(query, 20) == [(i, False) for i in expected]
    assert [i for i, _ in search.find(query, 1)] == expected[:1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("toy stroy", [1, 2]), ("matrxi", [0, 12]), ("shwashank", [19]), ("zzzzz", [])],
)
def test_without_such_words_titles_spelt_like_it_are_found(
    query: str, expected: list[int], search: TitleSearch
) -> None:
    assert search.find(query, 20) == [(i, True) for i in expected]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Matrix, The (1999)", 0),
        ("The Matrix (1999)", 0),
        ("The Matrix", 0),
        ("matrix", 0),
        (" toy story ", 1),
        ("Heat (1986)", 11),
        ("heat 1995", 3),
        ("shawshank", 19),
        ("lotr 2001", 13),
        ("Léon", 17),
        ("godfather part 2", 15),
        ("!!! (2010)", 10),
    ],
)
def test_a_title_means_one_movie(title: str, expected: int, search: TitleSearch) -> None:
    assert search.one(title) == expected


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("Heat", r"2 movies have the title 'Heat': 'Heat \(1986\)' \(111\); 'Heat \(1995\)' \(103"),
        ("lotr", r"2 movies have the words of the title 'lotr': 'The Lord of the Rings: The Fell"),
        ("Toy Stroy (1995)", r"Did you mean 'Toy Story \(1995\)' \(101\)"),
        # Only the beginning of a word: the movie that is meant may be missing here.
        ("heather", r"Did you mean 'Heathers \(1989\)' \(104\)"),
        ("the professionals", r"Did you mean 'Léon: The Professional"),
        # Only a part of a word: too little to be meant.
        ("atrix", r"Did you mean 'The Matrix \(1999\)' \(100\); 'The Matrix Reloaded"),
        ("zzzzz", "No title comes close"),
        ("!!", "No title comes close"),
        ("", "no movie has the title ''"),
        ("x" * 100_000, "No title comes close"),
    ],
)
def test_a_title_of_no_movie_or_of_several_is_refused(
    title: str, message: str, search: TitleSearch
) -> None:
    with pytest.raises(UnknownIdError, match=message) as refused:
        search.one(title)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Dangerous Method, A (2011)", "A Dangerous Method (2011)"),
        ("Postman, The (Postino, Il) (1994)", "The Postman (Il Postino) (1994)"),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure) (1960)"),
        ("Fearless (a.k.a. Legend, The) (1993)", "Fearless (a.k.a. The Legend) (1993)"),
        ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly (1966)"),
        ("Monsters, Inc. (2001)", "Monsters, Inc. (2001)"),
        ("Oh, God! (1977)", "Oh, God! (1977)"),
        ("Crumb, The", "The Crumb"),
        ("Vitelloni, I (1953)", "I Vitelloni (1953)"),
        ("Me, Myself, I (2000)", "Me, Myself, I (2000)"),
        (", The", ", The"),
        ("", ""),
    ],
)
def test_articles_are_shown_in_front(title: str, expected: str) -> None:
    assert display_title(title) == expected
