"""A stored choice model in use: orders, stars beside them, new users, reasons, similar movies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ncf
from ncf.choice_config import ChoiceConfig, EaseConfig, NetworkConfig
from ncf.config import ModelConfig
from ncf.data.batches import Batch
from ncf.data.interactions import NEW_USER, Interactions
from ncf.errors import CheckpointError, UnsupportedError
from ncf.evaluation.full_ranking import top_unseen
from ncf.inference import checkpoint, choice_checkpoint
from ncf.inference.choices import Choices
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import CHOICE, Recommender
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.ease import Ease, EasePath
from ncf.models.choice.experts import ProductOfExperts
from ncf.models.choice.network import NetworkChoiceModel, build_network
from ncf.models.weights import snapshot
from tests.ncf.inference.test_recommender import GAUSSIAN_PROCESS, PLAIN, drawn

CONFIG = ChoiceConfig.model_validate(
    {
        "ease": {"ridges": (20.0,)},
        "network": {"dim": 4, "seed": 3, "stop_after": 2},
        "experts": {"powers": (0.7,)},
    }
)
EVERY_MOVIE = Ordering(min_ratings=0)
NUM_TRAINING = 1500


def interactions(rows: Batch, num_movies: int = 80) -> Interactions:
    """Users' ids are their index minus 1."""
    columns = (rows.users - 1, rows.movies, rows.ratings, rows.times)
    users, movies, ratings, times = (column.numpy() for column in columns)
    return Interactions.of(users, movies, ratings, times, num_movies)


def fitted(world: Any, config: ChoiceConfig = CONFIG) -> dict[Any, ChoiceModel]:
    """EASE, and a network with random weights."""
    known = interactions(world.train[:NUM_TRAINING])
    models: dict[Any, ChoiceModel] = {}
    if config.member != "network":
        models["ease"] = EasePath(known, world.preprocessor, config.ease).at(20.0)
    if config.member != "ease":
        network = build_network(config.network, world.preprocessor, known)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        models["network"] = NetworkChoiceModel(network)
    if config.member == "experts":
        models["experts"] = ProductOfExperts(models["ease"], models["network"], 0.7, 0.02)
    return models


def stored(world: Any, folder: Path, config: ChoiceConfig = CONFIG) -> dict[Any, ChoiceModel]:
    """The models, which ``folder`` then has."""
    models = fitted(world, config)
    known = interactions(world.train[:NUM_TRAINING])
    held_out = interactions(world.test)
    record = {"best_step": 2}
    choice_checkpoint.save(folder, models, config, world.preprocessor, known, held_out, record)
    return models


def both(world: Any, folder: Path, model: ModelConfig = GAUSSIAN_PROCESS) -> Recommender:
    """A rating model with random weights, and a choice model."""
    made = drawn(world, model)
    weights, history = snapshot(made.model.network), made.model.history
    checkpoint.save(folder, weights, made.experiment, made.preprocessor, {}, history)
    stored(world, folder / CHOICE)
    return ncf.load(folder)


def rated_by(world: Any, user: int) -> set[int]:
    """Movies that a user id has rated, in rows that were stored."""
    rows = [world.train[:NUM_TRAINING], world.test]
    return {int(m) for each in rows for m in each.movies[each.users == user + 1]}


@pytest.mark.parametrize("member", ["ease", "network", "experts"])
def test_a_loaded_model_scores_as_the_one_that_was_stored(
    member: Any, world: Any, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"member": member})
    models = stored(world, tmp_path / "c", config)
    loaded = choice_checkpoint.load(tmp_path / "c")
    known = interactions(world.train[:NUM_TRAINING])
    assert torch.equal(loaded.model.scores(known), models[member].scores(known))
    assert (loaded.config, loaded.record) == (config, {"best_step": 2})
    assert (loaded.ease is None) == (member == "network")
    assert loaded.known.num_ratings == NUM_TRAINING
    assert loaded.seen.num_ratings == NUM_TRAINING + len(world.test)


@pytest.mark.parametrize("file", ["ease.safetensors", "rated.parquet", "users.parquet"])
def test_a_damaged_model_is_refused(file: str, world: Any, tmp_path: Path) -> None:
    stored(world, tmp_path / "c")
    content = (tmp_path / "c" / file).read_bytes()
    (tmp_path / "c" / file).write_bytes(content[:-2] + b"  ")
    with pytest.raises(CheckpointError, match="not as written, by their checksums"):
        choice_checkpoint.load(tmp_path / "c")


def test_a_model_of_another_version_is_refused(world: Any, tmp_path: Path) -> None:
    stored(world, tmp_path / "c")
    file = tmp_path / "c" / "choice.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 99}))
    with pytest.raises(CheckpointError, match=r"has format version 99, this program reads"):
        choice_checkpoint.load(tmp_path / "c")


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read the choice model"):
        choice_checkpoint.load(tmp_path)


def test_recommendations_are_ordered_by_choice_with_the_stars_beside(
    world: Any, tmp_path: Path
) -> None:
    recommender = both(world, tmp_path / "c")
    assert recommender.choices
    best = recommender.recommend(user=5, n=80, ordering=EVERY_MOVIE)
    assert set(best.movies.tolist()) == set(range(80)) - rated_by(world, 5)
    known = recommender.choices.known_of([5])
    scores = recommender.choices.checkpoint.model.scores(known)[0].numpy()
    assert (np.diff(scores[best.movies]) <= 0).all()
    np.testing.assert_allclose(best.scores, scores[best.movies])
    np.testing.assert_array_equal(best.stars, recommender.predict(5, best.movies))
    assert best.titles[0] == f"Movie {best.movies[0]}"


def test_movies_with_few_training_ratings_are_recommended_only_if_asked_for(
    world: Any, tmp_path: Path
) -> None:
    counts = world.preprocessor.movies.train_counts.copy()
    counts[:40] = np.arange(40) % 4
    movies = replace(world.preprocessor.movies, train_counts=counts)
    sparse = replace(world, preprocessor=replace(world.preprocessor, movies=movies))
    recommender = both(sparse, tmp_path / "c")
    unseen = set(range(80)) - rated_by(world, 5)
    for by in ("choice", "stars", "lower_bound"):
        for at_least in (0, 3):
            ordering = Ordering(by, min_ratings=at_least)
            found = recommender.recommend(user=5, n=80, ordering=ordering)
            expected = {movie for movie in unseen if counts[movie] >= at_least}
            if by == "choice":
                assert set(found.movies.tolist()) == expected
            else:  # the rating model knows the training ratings of its own history alone
                assert {m for m in found.movies.tolist() if counts[m] < at_least} == set()
                assert expected <= set(found.movies.tolist())


def test_orders_by_stars_are_those_of_the_rating_model(world: Any, tmp_path: Path) -> None:
    recommender = both(world, tmp_path / "c")
    everything = recommender.recommend(5, 80, ordering=Ordering("stars", 0))
    assert (np.diff(everything.scores) <= 0).all()
    assert everything.stars is not None
    expected = recommender.predict(5, everything.movies)
    np.testing.assert_allclose(everything.stars, expected, 1e-5)
    counts = np.log1p(world.preprocessor.movies.train_counts)
    popular = recommender.recommend(5, 80, ordering=Ordering("stars+popularity", 0, 0.5))
    model = recommender.checkpoint.model
    with torch.no_grad():
        users = torch.full((80,), 6)
        today = torch.full((80,), recommender.preprocessor.decay_reference)
        stars = model.expected_ratings(users, torch.arange(80), today).numpy()
    assert (np.diff((stars + 0.5 * counts)[popular.movies]) <= 1e-5).all()


def test_the_lower_bound_uses_the_posterior_standard_deviation(world: Any, tmp_path: Path) -> None:
    recommender = both(world, tmp_path / "c")
    model = recommender.checkpoint.model
    today = recommender.preprocessor.decay_reference
    with torch.no_grad():
        users, movies = torch.full((80,), 6), torch.arange(80)
        stars = model.expected_ratings(users, movies, torch.full((80,), today)).numpy()
        process = model.network.gaussian_process
        assert process
        history = model.required_history().ratings()[model.required_history().rows_of(6)]
        queries = model.network.rated(movies, torch.full((80,), today))
        # Conditioning a joint covariance of queries and history, without any factorisation.
        joint = type(history)(
            torch.cat([queries.movies, history.movies])[None],
            torch.cat([queries.days, history.days])[None],
        )
        covariance = process.kernel(joint, joint)[0].double().numpy()
        noise = np.diag(process.kernel.noise(history.movies).double().numpy())
    of_history = covariance[80:, 80:] + noise
    between = covariance[:80, 80:]
    posterior = covariance[:80, :80] - between @ np.linalg.inv(of_history) @ between.T
    bound = stars - 2 * np.sqrt(np.diag(posterior))
    found = recommender.recommend(5, 80, ordering=Ordering("lower_bound", 0, deviations=2.0))
    assert (np.diff(bound[found.movies]) <= 1e-4).all()
    assert np.ptp(np.diag(posterior)) > 1e-3


def test_only_the_gaussian_process_has_a_lower_bound(world: Any, tmp_path: Path) -> None:
    recommender = both(world, tmp_path / "c", PLAIN)
    with pytest.raises(UnsupportedError, match='order = "lower_bound" needs the standard dev'):
        recommender.recommend(5, ordering=Ordering("lower_bound"))


def test_without_a_choice_model_the_order_is_by_stars(world: Any) -> None:
    recommender = Recommender(drawn(world, GAUSSIAN_PROCESS))
    by_default, by_stars = (
        recommender.recommend(5, 9, ordering=Ordering(by)) for by in ("auto", "stars")
    )
    assert by_default.movies.tolist() == by_stars.movies.tolist()
    with pytest.raises(UnsupportedError, match=r'order = "choice" needs a choice model'):
        recommender.recommend(5, ordering=Ordering("choice"))
    with pytest.raises(UnsupportedError, match="no choice model here to explain"):
        recommender.explain_choices(5, [3])


def test_a_choice_model_alone_recommends_without_stars(world: Any, tmp_path: Path) -> None:
    stored(world, tmp_path / "c" / CHOICE)
    recommender = ncf.load(tmp_path / "c")
    best = recommender.recommend(5)
    assert len(best.movies) == 10
    assert best.stars is None
    with pytest.raises(UnsupportedError, match="only a choice model here"):
        recommender.predict(5, 3)
    with pytest.raises(UnsupportedError, match="only a choice model here"):
        recommender.recommend(5, ordering=Ordering("stars"))
    assert recommender.similar(3).movies[0] != 3
    assert recommender.title(3) == "Movie 3"


@pytest.mark.parametrize("model", [GAUSSIAN_PROCESS, PLAIN], ids=["Gaussian process", "plain"])
def test_a_new_user_gets_what_a_known_one_with_the_same_ratings_gets(
    model: ModelConfig, world: Any, tmp_path: Path
) -> None:
    recommender = both(world, tmp_path / "c", model)
    assert recommender.choices
    known = recommender.choices.known_of([5])
    folded = recommender.fold_in(known.movies, known.ratings, known.times)
    found = folded.recommend(0, 80, ordering=EVERY_MOVIE)
    scores = recommender.choices.checkpoint.model.scores(known)
    expected = top_unseen(scores, known, 80)[0]
    # Of the known user more is seen: test rows.
    assert found.movies.tolist() == expected[expected >= 0].tolist()
    np.testing.assert_allclose(found.scores, scores[0].numpy()[found.movies], rtol=1e-5)
    np.testing.assert_array_equal(found.stars, folded.predict(0, found.movies))


def test_a_user_without_ratings_gets_recommendations(world: Any, tmp_path: Path) -> None:
    recommender = both(world, tmp_path / "c")
    assert len(recommender.recommend(user=10**6, n=5).movies) == 5
    nobody = recommender.fold_in([], [])
    assert nobody.recommend(0, 5).movies.tolist() == (
        recommender.recommend(user=10**6, n=5).movies.tolist()
    )


def test_reasons_add_up_to_the_score_of_ease(world: Any, tmp_path: Path) -> None:
    recommender = both(world, tmp_path / "c")
    assert recommender.choices
    ease = recommender.choices.checkpoint.ease
    assert isinstance(ease, Ease)
    known = recommender.choices.known_of([5])
    movies = [70, 3, 41]
    for movie, why in zip(movies, recommender.explain_choices(5, movies), strict=True):
        assert why.movie == movie
        assert why.rated.tolist() == known.movies.tolist()
        assert why.ratings.tolist() == known.ratings.tolist()
        np.testing.assert_allclose(why.score, ease.scores(known)[0, movie], atol=1e-5)
        np.testing.assert_allclose(why.context + why.added.sum(), why.score, atol=1e-5)
    (of_new,) = recommender.fold_in([3, 4], [5.0, 1.0]).explain_choices(0, [70])
    assert of_new.rated.tolist() == [3, 4]


def test_the_network_alone_has_no_reasons(world: Any, tmp_path: Path) -> None:
    stored(world, tmp_path / "c" / CHOICE, CONFIG.model_copy(update={"member": "network"}))
    with pytest.raises(UnsupportedError, match=r'choice.member = "ease" or "experts" has them'):
        ncf.load(tmp_path / "c").explain_choices(5, [3])


def test_similar_movies_are_those_with_the_highest_partial_correlation(
    world: Any, tmp_path: Path
) -> None:
    recommender = both(world, tmp_path / "c", PLAIN)
    assert recommender.choices
    ease = recommender.choices.checkpoint.ease
    assert ease
    expected = ease.similarities(7).numpy()
    expected[7] = -np.inf
    found = recommender.similar(7, 5)
    assert found.movies.tolist() == np.argsort(-expected, kind="stable")[:5].tolist()
    np.testing.assert_allclose(found.scores, expected[found.movies])


def test_many_users_at_once_are_scored_as_one_by_one(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = both(world, tmp_path / "c")
    monkeypatch.setattr("ncf.inference.choices._CELLS", 80 * 7)
    users = np.arange(1, 121)
    movies, scores, stars = recommender.recommend_all(users, 6)
    for index in (1, 7, 8, 60, 120):
        one = recommender.recommend(index - 1, 6)
        assert movies[index - 1].tolist() == one.movies.tolist()
        np.testing.assert_allclose(scores[index - 1], one.scores, rtol=1e-5)
        assert one.stars is not None
        np.testing.assert_allclose(stars[index - 1], one.stars, rtol=1e-5)


def test_ranks_after_the_last_movie_are_empty(world: Any) -> None:
    everything = Interactions.of(np.zeros(79), np.arange(79), np.ones(79), np.zeros(79), 80)
    known = everything.select([NEW_USER])
    checked = choice_checkpoint.ChoiceCheckpoint(
        fitted(world)["ease"], None, CONFIG, world.preprocessor, everything, everything, {}
    )
    best = Choices(checked).best(known, replace(everything, users=np.array([NEW_USER])), 3)
    assert best.movies.tolist() == [[79, -1, -1]]
    assert np.isnan(best.scores[0]).tolist() == [False, True, True]


def test_settings_of_members_are_validated() -> None:
    with pytest.raises(ValueError, match="names one twice"):
        NetworkConfig(users=("history", "history"))
    with pytest.raises(ValueError, match="at least 1"):
        EaseConfig(ridges=())
