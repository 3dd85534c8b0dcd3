"""What Python users see of models and results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ncf
from ncf.errors import CheckpointError
from ncf.evaluation.ranking import SeenMovies
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import Recommender
from ncf.inference.results import PredictedIntervals, Recommendation, Recommendations
from tests.ncf.inference.test_recommender import GAUSSIAN_PROCESS, drawn
from tests.ncf.worlds import World
from tests.ray_jobs.made import CLOSED, PLAIN, complete, kept

BEST = Recommendations(np.array([7, 3]), ("Seven <b>", "Three"), np.array([0.5, 0.25], np.float32))


def test_recommendations_are_a_sequence_and_a_table() -> None:
    assert len(BEST) == 2
    assert list(BEST) == [
        Recommendation(7, "Seven <b>", 0.5, None),
        Recommendation(3, "Three", 0.25, None),
    ]
    with_stars = Recommendations(BEST.movies, BEST.titles, BEST.scores, BEST.scores * 8)
    assert [each.stars for each in with_stars] == [4.0, 2.0]
    expected = pd.DataFrame(
        {
            "movie": [7, 3],
            "title": ["Seven <b>", "Three"],
            "score": np.array([0.5, 0.25], np.float32),
            "stars": np.array([4.0, 2.0], np.float32),
        },
        index=pd.RangeIndex(1, 3, name="rank"),
    )
    pd.testing.assert_frame_equal(with_stars.to_pandas(), expected)
    assert "stars" not in BEST.to_pandas()
    assert repr(BEST).splitlines()[0] == "<2 movies>"
    assert "Three" in repr(BEST)
    assert "Seven &lt;b&gt;" in BEST._repr_html_()


def test_intervals_are_a_table() -> None:
    columns = [np.array([x, x + 1], np.float32) for x in (3.0, 0.5, 2.0, 4.0)]
    found = PredictedIntervals(*columns)
    assert len(found) == 2
    table = found.to_pandas()
    assert list(table) == ["stars", "sd", "low", "high"]
    assert table["high"].tolist() == [4.0, 5.0]


def test_a_model_is_shown_in_a_few_lines(world: World, tmp_path: Path) -> None:
    model = Recommender(drawn(world, GAUSSIAN_PROCESS))
    shown = repr(model)
    assert len(shown) < 300
    assert f"{world.preprocessor.num_users:,} users, ratings from 0.04" in shown
    assert "rating model: network of genres, decade, numeric, time; with gaussian-process" in shown
    assert len(repr(model.checkpoint)) < 200
    assert model._repr_html_().startswith("<pre>&lt;Recommender")
    workspace = complete(kept(tmp_path, CLOSED))
    blended = ncf.load(str(workspace.run))
    assert "blended with bayesian-factorization; with intervals" in repr(blended)
    assert "for a new user" in repr(blended.fold_in([1], [5.0]))


def test_the_folder_of_a_run_is_that_of_its_final_model(tmp_path: Path) -> None:
    run = Path(str(kept(tmp_path, CLOSED).run))
    found, same = ncf.load(run), ncf.load(run / "checkpoint")
    assert found.predict(10, 1) == same.predict(10, 1)
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        ncf.load(tmp_path)


def test_a_model_knows_what_its_users_have_rated(tmp_path: Path) -> None:
    """The network has no history; user 10 has rated the movies 1 and 6."""
    workspace = complete(kept(tmp_path, PLAIN), blended=False)
    model = ncf.load(str(workspace.run))
    every = model.recommend(10, n=10, ordering=Ordering(min_ratings=0))
    assert sorted(every.movies) == [20, 30, 40]


def test_an_unknown_user_has_rated_nothing(world: World) -> None:
    """Rows of users without training ratings have the index 0, and are of several users."""
    model = drawn(world, GAUSSIAN_PROCESS)
    movies = np.arange(len(world.preprocessor.movies), dtype=np.int32)[:40]
    rated = SeenMovies.of(np.zeros(40, np.int32), movies, world.preprocessor.num_users)
    every = Ordering(min_ratings=0)
    without = Recommender(model).recommend(10**7, n=5, ordering=every)
    found = Recommender(replace(model, rated=rated)).recommend(10**7, n=5, ordering=every)
    np.testing.assert_array_equal(found.movies, without.movies)
