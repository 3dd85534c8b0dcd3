"""The whole pipeline, run as a user runs it, and what it leaves."""

from __future__ import annotations

import html
import json
import tomllib
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score, r2_score
from sklearn.model_selection import train_test_split

import ncf
from ncf.data.interactions import Interactions
from ncf.inference import checkpoint
from tests.support import left_after, run_module

pytestmark = pytest.mark.ray(seconds=120)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ray_jobs.conftest import Finished


def metrics(finished: Finished) -> dict[str, Any]:
    return json.loads((finished.run / "metrics.json").read_text())


LOSSES = ("NCF, mse", "NCF, l1", "NCF, smooth_l1")


def comparison(finished: Finished) -> dict[str, Any]:
    return json.loads((finished.run / "comparison.json").read_text())


def rows_of(ratings: pd.DataFrame, split: str = "test") -> list[int]:
    """Rows of a split, as scikit-learn draws them."""
    rest, test = train_test_split(range(len(ratings)), test_size=0.2, random_state=42)
    return list(test) if split == "test" else list(rest[: round(0.1 * len(ratings))])


def raw(finished: Finished, table: str) -> pd.DataFrame:
    return pq.read_table(finished.storage / "raw" / "synthetic" / f"{table}.parquet").to_pandas()


def test_every_stage_says_what_it_does_and_synthetic_data_are_announced(finished: Finished) -> None:
    for stage in ("ingest", "preprocess", "tune", "compare", "train", "recommend"):
        assert f"── {stage}" in finished.done.out
    assert "SYNTHETIC" in finished.done.out
    assert "SYNTHETIC" in (finished.run / "report.html").read_text()
    assert "SYNTHETIC" in (finished.run / "report.md").read_text()


def test_what_goes_to_a_pipe_has_no_colours(finished: Finished) -> None:
    assert "\x1b" not in finished.done.out + finished.done.err


def test_no_process_is_left(finished: Finished) -> None:
    assert left_after(finished.done.mark, 10) == {}


def test_of_rays_own_files_only_the_searchs_are_kept(finished: Finished) -> None:
    left = {path.name for path in (finished.run / "ray").iterdir() if any(path.iterdir())}
    assert left == {"tune", "tune-ease", "tune-network"}


def test_no_partial_file_is_left(finished: Finished) -> None:
    assert list(finished.storage.rglob("*.part")) == []


def test_metrics_hold_what_the_contract_says(finished: Finished) -> None:
    found = metrics(finished)

    for split, count in (("validation", 200), ("test", 400)):
        assert found[split]["num_ratings"] == count
        assert found[split]["decayed"]["num_ratings"] == count
        for metric in ("rmse", "mae", "r2"):
            assert isinstance(found[split][metric], float)
            assert isinstance(found[split]["decayed"][metric], float)
    assert found["dataset"] == "synthetic"
    assert found["split"] == {"kind": "random", "test": 0.2, "validation": 0.1, "seed": 42}
    assert found["seed"] == 0
    assert len(found["config_hash"]) == 64
    assert {"python", "ray", "torch", "optuna"} <= set(found["versions"])
    assert found["wall_seconds"] > 0


def test_test_metrics_are_those_of_the_kept_model(finished: Finished) -> None:
    """Recomputed from the raw ratings, the checkpoint and scikit-learn alone."""
    model = checkpoint.load(finished.run / "checkpoint")
    ratings = raw(finished, "ratings")
    test = ratings.iloc[sorted(rows_of(ratings))]
    users = model.preprocessor.user_index(test["user_id"].to_numpy())
    movies = model.preprocessor.movies.index_of(test["movie_id"].to_numpy())
    with torch.no_grad():
        rows = torch.from_numpy(users), torch.from_numpy(movies)
        predicted = model.model.expected_ratings(*rows).clamp(0.5, 5.0)

    found = metrics(finished)["test"]
    assert found["rmse"] == pytest.approx(
        mean_squared_error(test["rating"], predicted) ** 0.5, abs=1e-6
    )
    assert found["mae"] == pytest.approx(mean_absolute_error(test["rating"], predicted), abs=1e-6)
    assert found["r2"] == pytest.approx(r2_score(test["rating"], predicted), abs=1e-6)


def test_rankings_are_those_of_the_kept_model_beside_popularity(finished: Finished) -> None:
    """NDCG recomputed from the raw ratings, the checkpoint and scikit-learn alone."""
    model = checkpoint.load(finished.run / "checkpoint")
    ratings = raw(finished, "ratings")
    test = ratings.iloc[rows_of(ratings)]
    train = ratings.drop(index=rows_of(ratings))
    movies = model.preprocessor.movies.ids
    popular = train["movie_id"].value_counts().reindex(movies, fill_value=0).to_numpy()
    expected: dict[str, list[float]] = {"model": [], "popularity": []}
    for user, rows in test[test["rating"] >= 4].groupby("user_id"):
        unseen = ~pd.Series(movies).isin(train.loc[train["user_id"] == user, "movie_id"]).to_numpy()
        relevant = pd.Series(movies[unseen]).isin(rows["movie_id"]).to_numpy()
        index = torch.from_numpy(model.preprocessor.user_index(pd.Series([user]).to_numpy()))
        candidates = torch.from_numpy(unseen.nonzero()[0])
        with torch.no_grad():
            rated = index.expand(len(candidates)), candidates
            scores = model.model.expected_ratings(*rated).numpy()
        counts = popular[unseen] - torch.arange(len(candidates)).numpy() / 1000
        expected["model"].append(ndcg_score(relevant[None], scores[None], k=10))
        expected["popularity"].append(ndcg_score(relevant[None], counts[None], k=10))

    found = metrics(finished)["ranking"]
    assert found["num_users"] == len(expected["model"])
    text = (finished.run / "report.md").read_text()
    for name, values in expected.items():
        assert found[name]["ndcg"] == pytest.approx(sum(values) / len(values))
        assert f"{found[name]['ndcg']:.4f} | {found[name]['recall']:.4f}" in text


def test_the_kept_model_learned_something(finished: Finished) -> None:
    assert metrics(finished)["test"]["r2"] > 0.05


def test_a_model_card_lies_beside_the_model(finished: Finished) -> None:
    card = (finished.run / "checkpoint" / "MODEL_CARD.md").read_text()
    test = metrics(finished)["test"]
    assert f"| {test['rmse']:.4f} | {test['mae']:.4f} | {test['r2']:.4f} |" in card
    assert "Trained on synthetic data" in card
    choice = json.loads((finished.run / "choice_metrics.json").read_text())
    liked = choice["test"][choice["member"]]["liked"]["metrics"]["ndcg@10"]
    assert f"relevant are movies of 4 stars or more: NDCG@10 {liked:.4f}" in card


def test_the_search_chose_the_best_trial_by_validation(finished: Finished) -> None:
    trials = pq.read_table(finished.run / "trials.parquet").to_pandas()
    assert (trials["seconds"] > 0).all()
    assert (trials["waited"] >= 0).all()
    best = tomllib.loads((finished.run / "best_config.toml").read_text())

    assert len(trials) == 3
    # Whether ASHA stops one depends on which of them came first.
    assert set(trials["state"]) <= {"finished", "stopped"}
    winner = trials.loc[trials["best_validation_rmse"].idxmin()]
    assert best["train"]["loss"] == winner["config.train.loss"]
    assert best["model"]["hidden_dims"] == json.loads(winner["config.model.hidden_dims"])
    chosen = json.loads((finished.run / "best_config.json").read_text())
    assert chosen["validation_rmse"] == winner["best_validation_rmse"]
    assert metrics(finished)["validation"]["rmse"] == pytest.approx(
        winner["best_validation_rmse"], abs=1e-6
    )


def test_the_comparison_has_every_loss_and_seed_beside_the_baselines(finished: Finished) -> None:
    entries = json.loads((finished.run / "comparison.json").read_text())["entries"]

    names = [entry["name"] for entry in entries]
    assert names[:2] == ["global mean", "damped bias"]
    assert names[-3:] == list(LOSSES)
    # Of the baselines only these draw anything at random.
    seeded = {
        "matrix factorisation",
        "Bayesian matrix factorisation",
        "LightGBM",
        "LightGBM, with rating times",
        *LOSSES,
    }
    assert {n for n, entry in zip(names, entries, strict=True) if len(entry["test"]) == 2} == seeded
    assert {len(entry["test"]) for entry in entries} == {1, 2}
    assert {test["num_ratings"] for entry in entries for test in entry["test"]} == {400}
    first, second = entries[-1]["test"]
    assert first["rmse"] != second["rmse"]


def test_every_models_predictions_are_kept_and_give_its_figures(finished: Finished) -> None:
    """Recomputed from the raw ratings and the files alone."""
    ratings = raw(finished, "ratings").set_index("row")
    for entry in comparison(finished)["entries"]:
        assert len(entry["predictions"]) == len(entry["test"])
        for name, figures in zip(entry["predictions"], entry["test"], strict=True):
            table = pq.read_table(finished.run / "predictions" / name).to_pandas()
            assert list(table["row"]) == sorted(rows_of(ratings))
            actual = ratings.loc[table["row"], "rating"]
            assert mean_squared_error(actual, table["stars"]) ** 0.5 == pytest.approx(
                figures["rmse"], rel=1e-5
            )
            assert mean_absolute_error(actual, table["stars"]) == pytest.approx(
                figures["mae"], rel=1e-5
            )


def test_models_are_compared_with_the_best_baseline_and_with_each_other(
    finished: Finished,
) -> None:
    found = comparison(finished)
    entries = {entry["name"]: entry for entry in found["entries"]}
    best = min(
        (entry for entry in found["entries"] if entry["name"] not in LOSSES),
        key=lambda entry: entry["validation"][0]["rmse"],
    )["name"]

    assert found["baseline"] == best
    assert found["model"] in LOSSES
    mse, l1, smooth = LOSSES
    assert [(d["first"], d["second"], d["metric"]) for d in found["assessment"]["differences"]] == [
        (first, second, metric)
        for first, second in (
            *((loss, best) for loss in LOSSES),
            *((mse, l1), (mse, smooth), (l1, smooth)),
        )
        for metric in ("rmse", "mae")
    ]
    for difference in found["assessment"]["differences"]:
        first, second = (
            pd.Series([t[difference["metric"]] for t in entries[difference[which]]["test"]]).mean()
            for which in ("first", "second")
        )
        assert difference["value"] == pytest.approx(first - second, rel=1e-4, abs=1e-6)
        assert difference["corrected_low"] <= difference["low"] < difference["high"]
        assert difference["high"] <= difference["corrected_high"]
        assert difference["p"] <= difference["holm_p"] <= 1


def test_errors_are_divided_by_kinds_of_rows(finished: Finished) -> None:
    """Ratings of users with few training ratings, found again in the raw tables with pandas."""
    found = comparison(finished)
    slices = found["assessment"]["slices"]
    for name in {part["name"] for part in slices}:
        assert sum(part["num_rows"] for part in slices if part["name"] == name) == 400
    part = next(
        part
        for part in slices
        if (part["name"], part["label"]) == ("training ratings of the user", "10 to 19")
    )
    ratings = raw(finished, "ratings").set_index("row")
    test = rows_of(ratings)
    validation = set(rows_of(ratings, "validation"))
    train = ratings.drop(index=[*test, *validation])
    counts = train["user_id"].value_counts().reindex(ratings["user_id"].unique(), fill_value=0)
    entry = next(e for e in found["entries"] if e["name"] == found["baseline"])
    of_seeds = []
    for name in entry["predictions"]:
        rows = pq.read_table(finished.run / "predictions" / name).to_pandas()
        rows = rows.join(ratings, on="row")
        rows = rows[rows["user_id"].map(counts).between(10, 19)]
        assert part["num_rows"] == len(rows)
        of_seeds.append(mean_absolute_error(rows["rating"], rows["stars"]))
    (errors,) = (e for e in part["errors"] if e["model"] == found["baseline"])
    assert errors["mae"] == pytest.approx(np.mean(of_seeds))
    assert len(part["errors"]) == 2


def test_the_report_tells_differences_slices_and_calibration(finished: Finished) -> None:
    text = (finished.run / "report.md").read_text()
    found = comparison(finished)

    for difference in found["assessment"]["differences"]:
        assert f"{difference['corrected_low']:+.4f} to {difference['corrected_high']:+.4f}" in text
    for part in found["assessment"]["slices"]:
        assert f"| {part['label']} | {part['num_rows']} |" in text
    assert {c["model"] for c in found["assessment"]["calibrations"]} == {
        entry["name"] for entry in found["entries"]
    }
    for name in ("differences", "calibration"):
        assert (finished.run / "plots" / f"{name}.png").is_file()


def test_recommendations_are_the_best_unseen_movies(finished: Finished) -> None:
    """Checked against every movie's score, with the predicted stars beside."""
    recommended = pq.read_table(
        finished.storage / "recommendations" / "tiny" / "recommendations.parquet"
    ).to_pandas()
    model = ncf.load(finished.run / "checkpoint")
    assert model.choices
    ratings, movies = raw(finished, "ratings"), raw(finished, "movies")
    titles = dict(zip(movies["movie_id"], movies["title"], strict=True))
    ids = model.preprocessor.movies.ids
    of_training = ratings.drop(rows_of(ratings))
    counts = of_training["movie_id"].value_counts()

    assert set(recommended["user_id"]) == set(ratings["user_id"])
    for user_id in model.preprocessor.user_ids[:5]:
        seen = set(ratings.loc[ratings["user_id"] == user_id, "movie_id"])
        known = of_training[of_training["user_id"] == user_id].sort_values("timestamp")
        interactions = Interactions.of(
            known["user_id"],
            np.searchsorted(ids, known["movie_id"]),
            known["rating"],
            known["timestamp"],
            len(ids),
        )
        scores = dict(zip(ids, model.choices.checkpoint.model.scores(interactions)[0], strict=True))
        offered = [m for m in sorted(titles) if m not in seen and counts.get(m, 0) >= 3]
        rows = recommended[recommended["user_id"] == user_id].sort_values("rank")
        best = sorted(offered, key=lambda movie: -float(scores[movie]))[:5]
        assert list(rows["rank"]) == list(range(1, len(best) + 1))
        assert list(rows["movie_id"]) == best
        assert list(rows["title"]) == [titles[movie] for movie in best]
        stars = model.predict(user_id, best)
        np.testing.assert_allclose(rows["predicted_rating"], stars, rtol=1e-5)


def test_rankings_of_choices_are_those_of_the_kept_model(finished: Finished) -> None:
    """Recomputed user by user with scikit-learn from the checkpoint."""
    found = json.loads((finished.run / "choice_metrics.json").read_text())["test"]["experts"]
    model = ncf.load(finished.run / "checkpoint")
    ratings = raw(finished, "ratings")
    test = ratings.loc[rows_of(ratings)]
    counts = model.preprocessor.movies.train_counts
    assert model.choices
    for relevance, lowest in (("liked", 4.0), ("all", 0.0)):
        values = []
        for _, rows in test[test["rating"].astype(float) >= lowest].groupby("user_id"):
            known = model.choices.known_of(rows["user_id"].unique())
            if not known.num_ratings:
                continue
            scores = model.choices.checkpoint.model.scores(known)[0].numpy().astype(float)
            candidates = np.setdiff1d(np.flatnonzero(counts >= 3), known.movies)
            relevant = model.preprocessor.movies.index_of(rows["movie_id"].to_numpy())
            gains = np.isin(candidates, relevant).astype(float)
            # Relevant movies that are not ranked count, as if they were ranked last.
            gains = np.append(gains, np.ones(len(np.setdiff1d(relevant, candidates))))
            ranked = np.append(scores[candidates], np.full(len(gains) - len(candidates), -1e9))
            values.append(ndcg_score([gains], [ranked], k=10))
        assert found[relevance]["num_users"] == len(values)
        assert found[relevance]["metrics"]["ndcg@10"] == pytest.approx(np.mean(values), rel=1e-5)


def test_choice_models_are_compared_with_baselines(finished: Finished) -> None:
    found = json.loads((finished.run / "choice_comparison.json").read_text())
    assert [(e["name"], e["kind"], len(e["test"])) for e in found["entries"]] == [
        ("most popular", "baseline", 1),
        ("EASE", "baseline", 1),
        ("EASE with content and context", "model", 1),
        ("choice network", "model", 2),
        ("product of both", "model", 2),
        ("oracle", "oracle", 1),
    ]
    ndcg = {e["name"]: e["test"][0]["all"]["metrics"]["ndcg@10"] for e in found["entries"]}
    assert max(ndcg, key=lambda name: ndcg[name]) == "oracle"
    pairs = {(d["first"], d["second"], d["metric"]) for d in found["differences"]}
    assert pairs == {
        ("product of both", baseline, relevant)
        for baseline in ("most popular", "EASE")
        for relevant in ("4 stars or more", "all")
    }
    for each in found["entries"]:
        (first, *_) = each["test"]
        assert f"{each['name']} | " in (finished.run / "report.md").read_text()
        assert first["diversity"]["rare"] == 0
        assert 0 < first["liked"]["metrics"]["ndcg@10"] < 1


def test_most_popular_is_ranked_by_the_training_counts(finished: Finished) -> None:
    ratings = raw(finished, "ratings")
    counts = ratings.drop([*rows_of(ratings), *rows_of(ratings, "validation")])["movie_id"]
    movies = raw(finished, "movies")["movie_id"].sort_values().to_numpy()
    rankings = pq.read_table(finished.run / "rankings" / "popular-0.parquet").to_pandas()
    by_count = counts.value_counts().reindex(movies, fill_value=0)
    rated = ratings.drop(rows_of(ratings)).groupby("user_id")["movie_id"].agg(set)
    row = rankings.iloc[7]
    seen = rated[row["user_id"]]
    unseen = [m for m in movies if m not in seen and by_count[m] >= 3]
    expected = sorted(unseen, key=lambda movie: -by_count[movie])[:20]
    assert movies[row["movie_index"]].tolist() == expected


class _Page(HTMLParser):
    """Collects what a page shows and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.pictures_without_text = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.sources += [values[name] or "" for name in ("src", "href") if name in values]
        self.pictures_without_text += tag == "img" and not values.get("alt")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_self_contained_and_shows_the_figures(finished: Finished) -> None:
    page = _Page()
    page.feed((finished.run / "report.html").read_text())
    test = metrics(finished)["test"]

    assert page.sources
    inside = ("data:image/png;base64,", "#section-")
    assert all(source.startswith(inside) for source in page.sources)
    assert page.pictures_without_text == 0
    for figure in (test["rmse"], test["mae"], test["r2"]):
        assert f"{figure:.4f}" in page.text
        assert f"{figure:.4f}" in (finished.run / "report.md").read_text()
    for name in ("comparison", "learning_curves", "search_history", "parallel_coordinates"):
        assert (finished.run / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def cells(finished: Finished) -> dict[str, list[str]]:
    """The report's table rows by their first cell; a later row of the same name wins."""
    lines = (finished.run / "report.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_the_data_card_is_that_of_the_raw_tables(finished: Finished) -> None:
    """Recomputed with pandas from the raw Parquet files."""
    found = cells(finished)
    ratings, movies, tmdb = (raw(finished, t) for t in ("ratings", "movies", "tmdb"))
    dates = pd.to_datetime(ratings["timestamp"], unit="s", utc=True)
    pairs = ratings["user_id"].nunique() * len(movies)
    assert found["sparsity: share of all (user, movie) pairs not rated"] == [
        f"{1 - len(ratings) / pairs:.2%}"
    ]
    assert found["oldest rating"] == [f"{dates.min():%Y-%m-%d}"]
    assert found["newest rating"] == [f"{dates.max():%Y-%m-%d}"]
    assert found["mean rating"] == [f"{ratings['rating'].astype(float).mean():.3f} stars"]
    for name in ("user", "movie"):
        counts = ratings[f"{name}_id"].value_counts()
        shown = found[f"ratings of a {name}"]
        assert shown[0] == str(counts.min())
        assert shown[3] == str(counts.quantile(0.5, interpolation="lower"))
        assert shown[6:] == [str(counts.max()), f"{counts.mean():.1f}"]

    joined = movies.merge(tmdb, on="movie_id", suffixes=("", "_tmdb"))
    rated = ratings["movie_id"].value_counts().reindex(joined["movie_id"], fill_value=0).to_numpy()
    known = {
        "year": joined["year"].notna(),
        "genres": joined["genres"].str.len() > 0,
        "tags": joined["movie_id"].isin(raw(finished, "tags")["movie_id"]),
        "budget": joined["budget"].notna(),
        "vote average": joined["vote_average"].notna(),
        "keywords": joined["keywords"].str.len() > 0,
    }
    for name, is_known in known.items():
        assert found[name] == [
            str(is_known.sum()),
            f"{is_known.mean():.1%}",
            f"{rated[is_known].sum() / len(ratings):.1%}",
            "no" if name in ("tags", "keywords") else "yes",
        ]

    test = ratings.iloc[rows_of(ratings)]
    train = ratings.drop(index=[*rows_of(ratings), *rows_of(ratings, "validation")])
    for name in ("user", "movie"):
        new = test.loc[~test[f"{name}_id"].isin(train[f"{name}_id"]), f"{name}_id"]
        assert found[f"{name}s"] == [str(new.nunique()), str(len(new)), f"{len(new) / 400:.1%}"]


def test_residuals_are_those_of_the_kept_predictions(finished: Finished) -> None:
    """Recomputed with pandas from the predictions and the raw ratings."""
    ratings = raw(finished, "ratings").set_index("row")
    (entry,) = (
        e for e in comparison(finished)["entries"] if e["name"] == comparison(finished)["model"]
    )
    seeds = []
    for name in entry["predictions"]:
        rows = (
            pq.read_table(finished.run / "predictions" / name).to_pandas().join(ratings, on="row")
        )
        rows["residual"] = rows["stars"].astype(float) - rows["rating"].astype(float)
        seeds.append(rows)
    text = (finished.run / "report.md").read_text()
    years = pd.to_datetime(seeds[0]["timestamp"], unit="s").dt.year
    assert years.nunique() >= 3
    for groups, label in ((seeds[0]["rating"], "{:g}"), (years, "{}")):
        for value in groups.unique():
            parts = [seed.loc[groups == value, "residual"] for seed in seeds]
            bias = sum(part.mean() for part in parts) / len(parts)
            rmse = sum((part**2).mean() ** 0.5 for part in parts) / len(parts)
            row = f"| {label.format(value)} | {len(parts[0])} | {bias:+.4f} | {rmse:.4f} |"
            assert row in text
    assert "regression to the mean" in text


def test_examples_show_what_the_user_rated_highest(finished: Finished) -> None:
    text = (finished.run / "report.md").read_text()
    recommended = pq.read_table(
        finished.storage / "recommendations" / "tiny" / "recommendations.parquet"
    ).to_pandas()
    rated = raw(finished, "ratings").merge(raw(finished, "movies"), on="movie_id")
    for user in recommended["user_id"].unique()[:3]:
        best = rated[rated["user_id"] == user].sort_values(
            ["rating", "timestamp", "movie_id"], ascending=[False, False, True]
        )
        first = recommended[recommended["user_id"] == user].iloc[0]
        liked = best.iloc[0]
        assert f"**User {user}**" in text
        assert (
            f"| {liked['title']} | {liked['rating']:g} | {first['title']} | "
            f"{first['predicted_rating']:.2f} |"
        ) in text


def test_what_was_run_is_told_in_full(finished: Finished) -> None:
    text = (finished.run / "report.md").read_text()
    config = (finished.run / "config.toml").read_text()
    found = cells(finished)

    assert f"```\n{config.rstrip()}\n```" in text
    assert html.escape(config, quote=False).strip().splitlines()[-1] in (
        (finished.run / "report.html").read_text()
    )
    for name, value in metrics(finished)["versions"].items():
        assert found[name] == [value]
    assert found["processor"] == [metrics(finished)["hardware"]["processor"]]
    assert found["nodes"] == ["1"]
    for stage in ("ingest", "preprocess", "preprocess-refit", "tune", "compare", "train"):
        (seconds,) = found[stage]
        assert 0 <= float(seconds) < 280


def test_the_effective_configuration_is_kept(finished: Finished) -> None:
    config = tomllib.loads((finished.run / "config.toml").read_text())

    assert config["train"]["epochs"] == 3
    assert config["time_decay"]["apply_to"] == "loss"


def test_the_report_can_be_written_again(finished: Finished) -> None:
    before = (finished.run / "report.md").read_text()
    (finished.run / "report.md").unlink()

    done = run_module("ray_jobs.report", finished.settings)

    assert done.code == 0, done.out + done.err
    for stage in ("preprocess", "tune", "compare", "train"):
        assert f"── {stage}: unchanged since it was last done, skipped" in done.out
    assert (finished.run / "report.md").read_text() == before


def test_a_rerun_does_nothing_again_and_starts_no_ray(finished: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.storage.rglob("*.parquet")}

    again = run_module("ray_jobs.pipeline", finished.settings)

    assert again.code == 0
    for stage in ("preprocess", "tune", "compare", "train", "recommend"):
        assert f"── {stage}: unchanged" in again.out
    assert "Ray dashboard" not in again.out
    assert {path: path.stat().st_mtime_ns for path in finished.storage.rglob("*.parquet")} == before


def test_one_users_recommendations_are_printed(finished: Finished) -> None:
    done = run_module("ray_jobs.recommend", finished.settings, "--user", "1")

    assert done.code == 0, done.err
    expected = pq.read_table(
        finished.storage / "recommendations" / "tiny" / "recommendations.parquet"
    ).to_pandas()
    for title in expected.loc[expected["user_id"] == 1, "title"]:
        assert title in done.out


def test_an_unknown_user_is_told_which_there_are(finished: Finished) -> None:
    done = run_module("ray_jobs.recommend", finished.settings, "--user", "987654321")

    assert done.code == 1
    assert "user 987654321 has no training rating" in done.err
    assert "The model knows 60 users" in done.err
    assert "Traceback" not in done.err


def test_pairs_are_predicted_by_the_kept_model_without_ray(
    finished: Finished, tmp_path: Path
) -> None:
    pairs = raw(finished, "ratings").head(20)[["user_id", "movie_id"]]
    pairs.columns = pd.Index(["userId", "movieId"])
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    files = (str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "predictions.csv"))

    done = run_module("ray_jobs.predict", finished.settings, *files)

    assert done.code == 0, done.err
    assert "Ray dashboard" not in done.out
    expected = ncf.load(finished.run / "checkpoint").predict(pairs["userId"], pairs["movieId"])
    found = pd.read_csv(tmp_path / "predictions.csv")
    assert found[["userId", "movieId"]].equals(pairs)
    assert list(found["prediction"]) == pytest.approx(list(expected), rel=1e-5)


def test_like_movies_and_reasons_are_printed(finished: Finished) -> None:
    recommender = ncf.load(finished.run / "checkpoint")
    movie = int(recommender.checkpoint.preprocessor.movies.ids[3])

    like = run_module("ray_jobs.recommend", finished.settings, "--movie", recommender.title(movie))
    why = run_module("ray_jobs.recommend", finished.settings, "--user", "1", "--reasons")

    assert (like.code, why.code) == (0, 0), like.err + why.err
    for title in recommender.similar(movie, 5).titles:
        assert title in like.out
    assert "the time of the newest rating" in why.out

    by_stars = ("--set", "recommend.order=stars")
    why = run_module("ray_jobs.recommend", finished.settings, "--user", "1", "--reasons", *by_stars)
    assert why.code == 0, why.err
    assert "known only for a model with the Gaussian process" in why.err
    assert "because of" not in why.out
