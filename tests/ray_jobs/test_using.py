"""The commands that use a trained model, in this process, without Ray and without training."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from foundation.cli import main
from ncf.config import ModelConfig
from ncf.errors import UnknownIdError
from ncf.inference.ordering import Ordering
from ray_jobs import export, predict, recommend
from ray_jobs.cli import job
from ray_jobs.config import JobConfig, RecommendConfig
from ray_jobs.queries import prediction
from ray_jobs.queries.recommendation import Query, show_one
from ray_jobs.redo import Redo
from ray_jobs.results.run import Workspace
from tests.ray_jobs.made import CLOSED, FITTED, PLAIN, TITLES, complete, kept, recommender


def predicting(folder: Path, pairs: str, out: str = "predictions.csv", name: str = "made") -> int:
    (folder / "pairs.csv").write_text(pairs)
    files = [str(folder / "pairs.csv"), "--out", str(folder / out)]
    settings = ["--set", f"storage={folder}", "--set", f"name={name}"]
    return main(predict.command, [*settings, *files])


@pytest.mark.parametrize("config", [CLOSED, PLAIN], ids=["Gaussian process", "plain"])
def test_pairs_are_predicted_in_their_order_and_ray_is_not_started(
    config: ModelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, config)
    assert predicting(tmp_path, "movieId,userId,note\n20,10,a\n1,999,b\n6,20,c\n") == 0
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["userId"], row["movieId"]) for row in rows] == [
        ("10", "20"),
        ("999", "1"),
        ("20", "6"),
    ]
    expected = recommender(workspace).predict([10, 999, 20], [20, 1, 6])
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], expected, rtol=1e-6)
    assert "note: 1 rows have a user without a training rating" in capsys.readouterr().err
    assert not ray.is_initialized()


@pytest.mark.parametrize("blended", [True, False])
def test_intervals_are_written_beside_the_predictions(blended: bool, tmp_path: Path) -> None:
    workspace = complete(kept(tmp_path, CLOSED), blended=blended)
    assert predicting(tmp_path, "userId,movieId\n10,20\n999,1\n20,6\n") == 0
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = recommender(workspace).predict_intervals([10, 999, 20], [20, 1, 6], level=0.9)
    assert list(rows[0]) == ["userId", "movieId", "prediction", "sd", "low", "high"]
    for column, values in zip(rows[0], (None, None, *vars(expected).values()), strict=True):
        if values is not None:
            np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-6)


WITH_TEXTS = replace(
    FITTED,
    external_user_ids=("ann", "bob"),
    movies=replace(FITTED.movies, external_ids=("m1", "m2", "m3", "m4", "m5")),
)


def test_ids_may_be_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = kept(tmp_path, CLOSED, WITH_TEXTS)
    model = recommender(workspace)
    users, movies = FITTED.user_ids.tolist(), FITTED.movies.ids.tolist()
    numbered = replace(model, by_number=True)
    plain = numbered.predict(users[1], movies[:2])
    np.testing.assert_array_equal(model.predict("bob", ["m1", "m2"]), plain)
    np.testing.assert_array_equal(
        model.predict(["ann", "bob"], "m3"), numbered.predict(users, movies[2])
    )
    best = model.recommend("ann", 2, seen=["m5"], ordering=Ordering(min_ratings=0))
    by_number = numbered.recommend(users[0], 2, [movies[4]], Ordering(min_ratings=0))
    assert best.movies.tolist() == by_number.movies.tolist()
    assert [f"m{movies.index(movie) + 1}" for movie in best.movies] == list(best.ids)
    assert best.to_pandas()["movie"].tolist() == [each.movie for each in best] == list(best.ids)
    with pytest.raises(UnknownIdError, match="the id 'm9' is not among the 5 ids, such as 'm1'"):
        model.predict("bob", ["m1", "m9"])
    assert model.find(FITTED.movies.titles[1]) == "m2"
    assert model.title("m2") == numbered.title(movies[1])
    (why,) = model.explain("ann", ["m2"])
    assert why.movie == "m2"
    known = dict(zip(movies, WITH_TEXTS.movies.external_ids or (), strict=True))
    (plain_why,) = numbered.explain(users[0], [movies[1]])
    assert why.rated.tolist() == [known[movie] for movie in plain_why.rated.tolist()]
    folded_in = model.fold_in(["m1", "m3"], [5.0, 1.0])
    assert "m1" not in folded_in.recommend(0, 4, ordering=Ordering(min_ratings=0)).ids


@pytest.mark.parametrize("user", [1, np.int64(1), [1], None, 1.0])
def test_numbers_are_no_ids_where_the_ids_are_texts(user: Any, tmp_path: Path) -> None:
    model = recommender(kept(tmp_path, CLOSED, WITH_TEXTS))
    with pytest.raises(UnknownIdError, match="the ids of the data are texts, such as 'ann'; found"):
        model.recommend(user)
    with pytest.raises(UnknownIdError, match="are texts, such as 'm1'; found"):
        model.predict("ann", user)


def test_text_ids_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = kept(tmp_path, CLOSED, WITH_TEXTS)
    assert predicting(tmp_path, "userId,movieId\nbob,m1\nzoe,m2\nbob,m2\n") == 0
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["userId"], row["movieId"]) for row in rows] == [
        ("bob", "m1"),
        ("zoe", "m2"),
        ("bob", "m2"),
    ]
    found = [float(row["prediction"]) for row in rows]
    expected = recommender(workspace).predict("bob", ["m1", "m2"])
    np.testing.assert_allclose([found[0], found[2]], expected, rtol=1e-6)
    assert predicting(tmp_path, "userId,movieId\nbob,1\n") == 1
    assert "line 2: movie 1 is not in the model's catalogue" in capsys.readouterr().err

    assert recommending(tmp_path, "--user", "bob", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["user"] == "bob"
    assert {row["movieId"] for row in answer["recommendations"]} <= {"m1", "m2", "m3", "m4", "m5"}
    assert recommending(tmp_path, "--user", "10") == 1
    assert "The model knows 2 users, such as 'ann'" in capsys.readouterr().err
    (tmp_path / "mine.csv").write_text("movieId,rating\nm1,5\n")
    assert recommending(tmp_path, "--new-user", str(tmp_path / "mine.csv"), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert "m1" not in {row["movieId"] for row in answer["recommendations"]}


def test_a_query_imports_neither_ray_nor_a_compiler(tmp_path: Path) -> None:
    kept(tmp_path, PLAIN)
    arguments = ["recommend", "--set", f"storage={tmp_path}", "--set", "name=made", "--user", "10"]
    program = (
        "import sys; from ray_jobs.__main__ import main; "
        f"code = main({arguments!r}); "
        "print(code, [name for name in ('ray', 'torch._dynamo', 'sympy', 'aiohttp', 'lightgbm')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "For user 10" in done.stdout


def test_progress_goes_to_stderr_and_is_left_out_if_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, PLAIN)
    assert predicting(tmp_path, "userId,movieId\n10,20\n999,1\n") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2 predictions" in printed.err
    settings = ["--set", f"storage={tmp_path}", "--set", "name=made"]
    pairs = [str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "again.csv")]
    assert main(predict.command, [*settings, *pairs, "--quiet", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out) == {
        "file": str(tmp_path / "again.csv"),
        "rows": 2,
        "unknown_users": 1,
    }
    assert recommending(tmp_path, "--user", "10", "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "For user 10" in printed.out
    assert recommending(tmp_path, "--user", "11", "-q") == 1
    assert "error: user 11 has no training rating" in capsys.readouterr().err
    assert recommending(tmp_path, "--user", "me") == 1
    assert "--user: the id is 'me', expected a whole number" in capsys.readouterr().err


def test_pairs_with_times_are_predicted_for_those(tmp_path: Path) -> None:
    workspace = kept(tmp_path, CLOSED)
    assert predicting(tmp_path, "userId,movieId,timestamp\n10,20,6\n10,20,9999999\n") == 0
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        found = [float(row["prediction"]) for row in csv.DictReader(stream)]
    expected = recommender(workspace).predict(10, 20, [6, 9_999_999])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize(
    "header", ["userId,movieId,timestamp\r", '\r\r"userId","movieId","timestamp"\r']
)
def test_times_are_found_in_every_kind_of_file(header: str, tmp_path: Path) -> None:
    workspace = kept(tmp_path, CLOSED)
    assert predicting(tmp_path, f"{header}10,20,6\r10,20,9999999\r") == 0
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        found = [float(row["prediction"]) for row in csv.DictReader(stream)]
    np.testing.assert_allclose(found, recommender(workspace).predict(10, 20, [6, 9_999_999]))


def test_how_far_the_predictions_are_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    monkeypatch.setattr(prediction, "_BLOCK", 2)
    monkeypatch.setattr(prediction, "_SECONDS_BETWEEN_LINES", 0.0)
    rows = [(10, 20, 6), (20, 6, 7), (10, 30, 8), (999, 1, 9), (20, 40, 10)]
    lines = "".join(f"{user},{movie},{time}\n" for user, movie, time in rows)
    assert predicting(tmp_path, f"userId,movieId,timestamp\n{lines}") == 0
    told = [line.partition("s  ")[2].strip() for line in capsys.readouterr().err.splitlines()]
    assert told[:3] == ["5 rows to predict", "2 of 5 rows predicted", "4 of 5 rows predicted"]
    assert told[3].startswith("5 predictions: ")
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        found = [float(row["prediction"]) for row in csv.DictReader(stream)]
    np.testing.assert_allclose(
        found, recommender(workspace).predict(*zip(*rows, strict=True)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("absent/below/out.csv", "No such file or directory"),
        ("pairs.csv/out.csv", "Not a directory"),
        ("runs", "it is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    out: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, CLOSED)
    before = sorted(tmp_path.iterdir())
    assert predicting(tmp_path, "userId,movieId\n10,1\n", out) == 1
    said = capsys.readouterr()
    assert f"{out}: {told}. Name a file" in said.err
    assert "storage=" not in said.err
    assert "rows to predict" not in said.out
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "pairs.csv"])


def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    kept(tmp_path, CLOSED)
    assert predicting(tmp_path, "userId,movieId\n10,1\n", "new/out.csv") == 0
    assert (tmp_path / "new" / "out.csv").is_file()


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ("userId,movie\n1,1\n", "line 1: the columns movieId are missing"),
        ("userId,movieId\n10,1\n10,777\n", "line 3: movie 777 is not in the model's catalogue"),
        ("userId,movieId\n10,one\n", "line 2: movieId is 'one'"),
        (
            "userId,movieId,timestamp\n10,1,6\n10,1,964982703000\n",
            "line 3: the time 964982703000 is beyond the year 9999 in seconds since 1970",
        ),
        ("", "is empty"),
    ],
)
def test_wrong_pairs_end_with_1_name_the_line_and_leave_no_file(
    pairs: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, CLOSED)
    before = sorted(tmp_path.iterdir())
    assert predicting(tmp_path, pairs) == 1
    assert told in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "pairs.csv"])


def test_without_a_model_the_command_that_makes_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predicting(tmp_path, "userId,movieId\n10,1\n") == 1
    assert "Train it with movie-ratings train and the same options." in capsys.readouterr().err
    kept(tmp_path, CLOSED)
    assert predicting(tmp_path, "userId,movieId\n10,1\n", name="absent") == 1
    assert "or use the model of another run with --set name=...: made." in capsys.readouterr().err


def recommending(folder: Path, *arguments: str) -> int:
    settings = ("storage=" + str(folder), "name=made", "recommend.min_ratings=0")
    options = [part for setting in settings for part in ("--set", setting)]
    return main(recommend.command, [*options, *arguments])


@pytest.mark.parametrize("query", [("--user", "10"), ("--movie", "Heat"), ("--new-user", "FILE")])
def test_a_query_uses_the_model_as_it_is(
    query: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings would download MovieLens and train; nothing of that is done or written."""
    mine = tmp_path / "mine.csv"
    mine.write_text("movieId,rating\n1,5\n")
    kept(tmp_path, CLOSED)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    arguments = [str(mine) if part == "FILE" else part for part in query]
    assert recommending(tmp_path, "--set", "data.source=ml-25m", *arguments) == 0
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert not ray.is_initialized()
    printed = capsys.readouterr()
    assert any(title in printed.out for title in TITLES)
    assert "s  " not in printed.out.splitlines()[0]  # no line of progress
    shutil.rmtree(tmp_path / "runs")
    assert recommending(tmp_path, *arguments) == 1
    assert "there is no trained model in" in capsys.readouterr().err


def test_answers_are_json_if_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = complete(kept(tmp_path, CLOSED), blended=False)
    assert recommending(tmp_path, "--user", "10", "--json", "--reasons") == 0
    found = json.loads(capsys.readouterr().out)
    expected = recommender(workspace).recommend(10, ordering=Ordering(min_ratings=0))
    assert (found["user"], found["order"]) == (10, "stars")
    rows = found["recommendations"]
    assert [row["movieId"] for row in rows] == expected.movies.tolist()
    assert [row["title"] for row in rows] == list(expected.titles)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert expected.stars is not None
    assert [row["stars"] for row in rows] == pytest.approx(expected.stars.tolist())
    for row, why in zip(rows, recommender(workspace).explain(10, expected.movies), strict=True):
        reasons = row["reasons"]
        assert reasons["prediction"] == pytest.approx(why.prediction)
        assert reasons["base"] == pytest.approx(why.base)
        total = sum(part["adds"] for part in reasons["ratings"])
        assert total == pytest.approx(float(why.added.sum()), abs=1e-6)
        assert {part["movieId"] for part in reasons["ratings"]} == {1, 6}
    assert recommending(tmp_path, "--movie", "Heat", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    similar = recommender(workspace).similar(6)
    assert (found["movieId"], found["title"]) == (6, "Heat (1995)")
    assert [row["movieId"] for row in found["similar"]] == similar.movies.tolist()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--user", "10", "--force"), "--force, --retry-failed and --replace are about stages"),
        (("--movie", "Heat", "--retry-failed"), "not run: add --train"),
        (("--train",), "--train is for --user, --new-user or --movie"),
        (("--all", "--json"), "--json is for --user, --new-user or --movie"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(
    arguments: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, CLOSED)
    assert recommending(tmp_path, *arguments) == 2
    assert told in capsys.readouterr().err


def test_reasons_of_a_blend_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = complete(kept(tmp_path, CLOSED))
    assert recommending(tmp_path, "--user", "10", "--reasons", "1") == 0
    out = capsys.readouterr().out
    best = recommender(workspace).recommend(10, ordering=Ordering(min_ratings=0))
    for why in recommender(workspace).explain(10, best.movies):
        assert f"{recommender(workspace).title(why.movie)}: {why.prediction:.2f}" in out
        assert f"{why.base['Bayesian matrix factorisation']:+.3f}" in out
    assert "center of the blend" in out


def test_like_movies_are_shown_but_not_the_movie_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    show_one(workspace, Query(movie="toy story"))
    head, _, rows = capsys.readouterr().out.partition("┡")
    assert "Like Toy Story (1995)" in head
    assert TITLES[0] not in rows
    order = [rows.index(title) for title in recommender(workspace).similar(1).titles]
    assert order == sorted(order)
    assert len(order) == 4


@pytest.mark.parametrize(
    "ratings",
    [
        "movieId,rating\n1,5\n20,0.5\n",
        'title,rating,timestamp\nToy Story (1995),5,1000000\n"Seven, Eight",0.5,1000000\n',
    ],
    ids=["ids", "titles"],
)
def test_somebody_new_gets_what_the_ratings_say_with_reasons(
    ratings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    (tmp_path / "mine.csv").write_text(ratings)
    show_one(workspace, Query(new_user=tmp_path / "mine.csv", num_reasons=1))
    out = capsys.readouterr().out
    theirs = recommender(workspace).fold_in([1, 20], [5.0, 0.5])
    best = theirs.recommend(0, ordering=Ordering(min_ratings=0))
    assert set(best.movies) == {6, 30, 40}
    for why in theirs.explain(0, best.movies):
        assert f"{theirs.title(why.movie)}: {why.prediction:.2f}" in out
        for part in (*why.base.values(), *why.added):
            assert f"{part:+.3f}" in out


def test_only_the_strongest_ratings_are_named_and_the_rest_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    ratings = "movieId,rating\n1,5\n6,4.5\n20,5\n30,5\n"
    (tmp_path / "mine.csv").write_text(ratings)
    show_one(workspace, Query(new_user=tmp_path / "mine.csv", num_reasons=1))
    out = capsys.readouterr().out
    theirs = recommender(workspace).fold_in([1, 6, 20, 30], [5.0, 4.5, 5.0, 5.0])
    (why,) = theirs.explain(0, [40])
    shown = (why.added.argmax(), why.added.argmin())
    named = [i for i in shown if (why.added[i] > 0) == (i == shown[0])]
    rest = why.added.sum() - why.added[named].sum()
    assert f"{rest:+.3f}" in out
    assert f"{4 - len(named)} other ratings" in out
    for i in named:
        assert f"{why.added[i]:+.3f}" in out


@pytest.mark.parametrize(
    ("ratings", "told"),
    [
        ("movieId,stars\n1,5\n", "line 1: the columns rating are missing"),
        ("film,rating\n1,5\n", "line 1: neither movieId nor title"),
        ("movieId,rating\n1,5\n777,5\n", "line 3: movie 777 is not in the model's catalogue"),
        ("movieId,rating\n1,5\nsix,5\n", r"line 3: movieId is 'six', expected a whole number"),
        ("title,rating\nToy Stroy,5\n", r"line 2: no movie has the title 'Toy Stroy'. Did you"),
        ("movieId,rating\n1,7\n", "line 2: rating is 7, expected a number from 0.5 to 5"),
        ("movieId,rating\n1,nan\n", "line 2: rating is nan, expected a number from 0.5 to 5"),
        ("movieId,rating\n1,5\n1,4\n", r"line 3: 'Toy Story (1995)' appears a second time"),
        ("movieId,rating\n", "holds no rating"),
    ],
)
def test_wrong_ratings_are_refused_with_their_line(
    ratings: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    (tmp_path / "mine.csv").write_text(ratings)

    @job("recommend", "Recommend.")
    def command(config: JobConfig, redo: Redo) -> None:
        show_one(workspace, Query(new_user=tmp_path / "mine.csv"))

    assert main(command, []) == 1
    assert told in capsys.readouterr().err


def test_a_training_users_recommendations_leave_out_what_was_rated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_one(complete(kept(tmp_path, PLAIN), blended=False), Query(user="10", num_reasons=3))
    out = capsys.readouterr().out
    assert "only for a model with the Gaussian process" in out
    assert "because of" not in out
    assert TITLES[0] not in out
    assert TITLES[1] not in out
    assert all(title in out for title in TITLES[2:])


def test_a_sum_off_the_scale_says_what_is_shown_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = replace(FITTED, rating_min=0.5, rating_max=1.0)
    workspace = kept(tmp_path, CLOSED, low)
    show_one(workspace, Query(user="10", num_reasons=3))
    out = " ".join(capsys.readouterr().out.split())
    for why in recommender(workspace).explain(10, [20, 30, 40]):
        assert why.prediction > 1.005
        assert f"{why.prediction:.2f}, shown as 1.00, the end of the scale" in out


def test_movies_with_few_ratings_are_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = kept(tmp_path, CLOSED)
    workspace = Workspace(workspace.config.model_copy(update={"recommend": RecommendConfig()}))
    show_one(workspace, Query(user="10"))
    assert (
        "note: of the movies not rated yet only 0 have at least 3 training ratings; --set "
        "recommend.min_ratings=0 offers all" in capsys.readouterr().out
    )


def test_no_movie_is_meant_by_an_empty_title(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = ("Toy Story", "Heat", *TITLES[2:])  # two that no year follows
    preprocessor = replace(FITTED, movies=replace(FITTED.movies, titles=titles))
    with pytest.raises(UnknownIdError, match="no movie has the title ''"):
        recommender(kept(tmp_path, CLOSED, preprocessor)).find("")
    assert main(recommend.command, ["--movie", " "]) == 2
    assert "Invalid value for '--movie': the title is empty" in capsys.readouterr().err


def test_reasons_need_somebody(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--movie", "Heat", "--reasons"]
    assert main(recommend.command, arguments) == 2
    assert "--reasons needs --user or --new-user" in capsys.readouterr().err


def exporting(folder: Path, *options: str) -> int:
    settings = ["--set", f"storage={folder}", "--set", "name=made"]
    return main(export.command, [*settings, "--out", str(folder / "out"), *options])


def test_the_network_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exporting(tmp_path) == 1
    assert "there is no trained model in" in capsys.readouterr().err
    complete(kept(tmp_path, PLAIN))
    assert exporting(tmp_path, "--json", "--format", "torch") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["file"] == "network.pt2"
    assert "the final model is a blend; its network alone is exported" in printed.err
    assert exporting(tmp_path) == 1
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_gaussian_process_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, CLOSED)
    assert exporting(tmp_path) == 1
    assert "networks without encoders can be exported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
