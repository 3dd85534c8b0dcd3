"""A checkpoint in use, against the model's own forward pass and against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ncf
from ncf.config import ExperimentConfig, HistoryConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch
from ncf.errors import CheckpointError, UnknownIdError, UnsupportedError
from ncf.inference import checkpoint
from ncf.inference.recommender import Recommender
from ncf.models.conditioned import ConditionedModel
from ncf.models.history.ratings import Ratings
from ncf.models.ncf import NCF
from ncf.models.weights import snapshot
from tests.ncf.worlds import training_rows

SMALL = {"vector_dim": 4, "linear_dim": 3, "rbf_dim": 2}
GAUSSIAN_PROCESS = ModelConfig(
    inputs=("genres", "decade", "numeric", "time"),
    embedding_dim=4,
    hidden_dims=(8,),
    biases=("movie",),
    history=HistoryConfig(encoders=("gaussian-process",), **SMALL),
)
PLAIN = ModelConfig(embedding_dim=4, hidden_dims=(8,), biases=("user", "movie"), gmf_dim=3)


def with_encoder(name: str) -> ModelConfig:
    inputs = ("genres", "numeric", "time")
    history = HistoryConfig.model_validate({"encoders": (name,), **SMALL})
    return ModelConfig(inputs=inputs, embedding_dim=4, hidden_dims=(8,), history=history)


def drawn(world: Any, config: ModelConfig, apply_to: str = "none") -> checkpoint.Checkpoint:
    """A model with random weights, large enough to tell users and movies apart."""
    torch.manual_seed(0)
    experiment = ExperimentConfig(
        model=config,
        train=TrainConfig(),
        time_decay=TimeDecayConfig.model_validate({"apply_to": apply_to}),
    )
    preprocessor = replace(world.preprocessor, decay_reference=int(world.train.times.max()))
    network = NCF(config, preprocessor)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for module in network.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight[0] = 0  # nothing is known of the unknown
    network.init_output_bias(preprocessor.rating_mean)
    model = ConditionedModel(network)
    model.fit_history(training_rows(world.train[:1500]))
    return checkpoint.Checkpoint(model.eval(), experiment, preprocessor, {})


def of_user(rows: Batch, user: int) -> Batch:
    return rows[torch.nonzero(rows.users == user)[:, 0]]


@pytest.mark.parametrize("config", [GAUSSIAN_PROCESS, PLAIN], ids=["Gaussian process", "plain"])
def test_a_loaded_checkpoint_predicts_and_recommends_by_ids(
    config: ModelConfig, world: Any, tmp_path: Path
) -> None:
    made = drawn(world, config)
    model, preprocessor = made.model, made.preprocessor
    history = model.history
    weights = snapshot(model.network)
    checkpoint.save(tmp_path / "c", weights, made.experiment, preprocessor, {}, history)
    loaded = ncf.load(tmp_path / "c")

    users, movies = np.array([5, 77, 10**6, 5]), np.array([3, 3, 40, 79])  # ids are index - 1
    now = torch.full((4,), preprocessor.decay_reference)
    with torch.no_grad():
        expected = model.expected_ratings(torch.tensor([6, 78, 0, 6]), torch.tensor(movies), now)
    low, high = preprocessor.rating_min, preprocessor.rating_max
    found = loaded.predict(users, movies)
    np.testing.assert_allclose(found, expected.clamp(low, high), rtol=1e-5)
    assert len(set(found.round(4))) == 4

    best = loaded.recommend(user=5, n=80, seen=[79])
    rated = set() if history is None else set(of_user(world.train[:1500], 6).movies.tolist())
    assert set(best.movies) == set(range(80)) - rated - {79}
    assert best.titles[0] == f"Movie {best.movies[0]}"
    np.testing.assert_allclose(best.scores, loaded.predict(5, best.movies), rtol=1e-4)
    assert (np.diff(best.scores) <= 0).all()
    assert len(loaded.recommend(user=5).movies) == 10


def test_a_prediction_depends_on_the_time(world: Any) -> None:
    recommender = Recommender(drawn(world, GAUSSIAN_PROCESS))
    times = of_user(world.train[:1500], 6).times[:1].numpy()
    assert recommender.looks_at_times
    assert abs(recommender.predict(5, 3, times) - recommender.predict(5, 3)) > 1e-3
    assert not Recommender(drawn(world, PLAIN)).looks_at_times


def test_predictions_do_not_depend_on_the_times_of_other_rows(world: Any) -> None:
    """For rows of the same time, temporal kernels are computed once."""
    recommender = Recommender(drawn(world, GAUSSIAN_PROCESS))
    today = recommender.checkpoint.preprocessor.decay_reference
    times = np.full(81, today - 1000)
    times[80] = 5
    mixed = recommender.predict(5, [*range(80), 0], times)
    np.testing.assert_allclose(
        recommender.predict(5, np.arange(80), today - 1000), mixed[:80], rtol=1e-6
    )
    assert abs(mixed[80] - mixed[0]) > 1e-3


def test_predictions_are_stars_if_the_target_is_decayed(world: Any) -> None:
    made = drawn(world, PLAIN, apply_to="target")
    made = replace(made, preprocessor=replace(made.preprocessor, decay_rate_per_day=0.001))
    day = made.preprocessor.decay_reference - 100 * 86_400
    with torch.no_grad():
        output = float(made.model.expected_ratings(torch.tensor([6]), torch.tensor([3])))
    found = Recommender(made).predict(5, 3, day)
    expected = np.clip(
        output / np.exp(-0.1), made.preprocessor.rating_min, made.preprocessor.rating_max
    )
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_unknown_movies_are_refused_and_named(world: Any) -> None:
    recommender = Recommender(drawn(world, PLAIN))
    with pytest.raises(UnknownIdError, match=r"2 movie ids .* 80 movies: 900 \(at position 1\), 9"):
        recommender.predict([1, 2, 3], [4, 900, 901])
    with pytest.raises(UnknownIdError, match=r"900 \(at position 0\)"):
        recommender.similar(900)
    with pytest.raises(UnknownIdError, match="900"):
        recommender.recommend(1, seen=[900])


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        ncf.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "config",
    [GAUSSIAN_PROCESS, *map(with_encoder, ("statistics", "implicit", "explicit", "transformer"))],
    ids=["gaussian-process", "statistics", "implicit", "explicit", "transformer"],
)
def test_folding_in_a_users_ratings_gives_that_users_predictions(
    config: ModelConfig, world: Any
) -> None:
    recommender = Recommender(drawn(world, config))
    theirs = of_user(world.train[:1500], 6)
    unknown = recommender.predict(10**6, np.arange(80))
    fold_in = recommender.fold_in(theirs.movies, theirs.ratings, theirs.times)
    np.testing.assert_allclose(
        fold_in.predict(1, np.arange(80)), recommender.predict(5, np.arange(80)), atol=1e-5
    )
    assert np.abs(fold_in.predict(1, np.arange(80)) - unknown).max() > 0.01
    assert fold_in.recommend(1).movies.tolist() == recommender.recommend(5).movies.tolist()
    # The original model is unchanged.
    np.testing.assert_array_equal(recommender.predict(10**6, np.arange(80)), unknown)


def test_folded_in_ratings_without_times_are_of_today(world: Any) -> None:
    recommender = Recommender(drawn(world, GAUSSIAN_PROCESS))
    today = recommender.checkpoint.preprocessor.decay_reference
    given = recommender.fold_in([3, 9], [5.0, 1.0])
    same = recommender.fold_in([3, 9], [5.0, 1.0], [today, today])
    np.testing.assert_array_equal(given.predict(1, [7]), same.predict(1, [7]))
    later = recommender.fold_in([3, 9], [5.0, 1.0], [today, today + 10**6])
    assert later.today == today + 10**6


def test_folded_in_ratings_are_decayed_if_the_target_is(world: Any) -> None:
    made = drawn(world, GAUSSIAN_PROCESS, apply_to="target")
    made = replace(made, preprocessor=replace(made.preprocessor, decay_rate_per_day=0.001))
    day = made.preprocessor.decay_reference - 1000 * 86_400
    (why,) = Recommender(made).fold_in([3], [4.0], [day]).explain(1, [7])
    np.testing.assert_allclose(why.ratings, [4 * np.exp(-1)], rtol=1e-5)


def test_a_model_without_history_refuses_to_fold_in(world: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"model\.history\.encoders.*gaussian-process\.toml"):
        Recommender(drawn(world, PLAIN)).fold_in([1], [4.0])


def test_explanations_add_up_to_the_prediction(world: Any) -> None:
    recommender = Recommender(drawn(world, GAUSSIAN_PROCESS))
    theirs = of_user(world.train[:1500], 6)
    found = recommender.explain(5, np.arange(80))
    predicted = recommender.predict(5, np.arange(80))
    low, high = (
        recommender.checkpoint.preprocessor.rating_min,
        recommender.checkpoint.preprocessor.rating_max,
    )
    for why, stars in zip(found, predicted, strict=True):
        assert set(why.base) == {"network", "biases"}
        total = sum(why.base.values()) + why.added.sum()
        assert why.prediction == pytest.approx(total, abs=1e-5)
        assert np.clip(total, low, high) == pytest.approx(stars, abs=1e-4)
        assert sorted(why.rated) == sorted(theirs.movies.tolist())
        assert len(set(why.added.round(6))) > 1


def by_numpy(
    recommender: Recommender, rows: Batch, movie: int, today: int
) -> tuple[np.ndarray, float]:
    """What each of ``rows`` adds to ``movie``, and the prediction, by another solution."""
    model = recommender.checkpoint.model
    assert model.network.gaussian_process is not None
    kernel = model.network.gaussian_process.kernel
    query = Ratings.of(torch.tensor([[movie]]), torch.tensor([[today]]))
    known = Ratings.of(rows.movies[None], rows.times[None])
    one = torch.zeros(1, dtype=torch.int64)
    now = torch.tensor([today])
    with torch.no_grad():
        between = kernel(query, known)[0, 0].double().numpy()
        among = kernel(known, known)[0].double().numpy()
        noise = kernel.noise(rows.movies).double().numpy()
        expected = model.terms(torch.zeros(len(rows)).long(), rows.movies, rows.times)
        base = sum(float(p) for p in model.terms(one, torch.tensor([movie]), now).values())
    residuals = rows.ratings.double().numpy() - sum(p.double().numpy() for p in expected.values())
    added = between * np.linalg.solve(among + np.diag(noise), residuals)
    return added, base + float(added.sum())


def test_attributions_equal_a_gaussian_process_in_numpy(world: Any) -> None:
    """With and without the rating, each against a Gaussian process written with NumPy."""
    config = GAUSSIAN_PROCESS.model_copy(update={"inputs": ("genres", "decade", "numeric")})
    recommender = Recommender(drawn(world, config))
    today = recommender.checkpoint.preprocessor.decay_reference
    theirs = of_user(world.train[:1500], 6)
    without = theirs[torch.arange(len(theirs)) != 2]
    predictions = []
    for rows in (theirs, without):
        fold_in = recommender.fold_in(rows.movies, rows.ratings, rows.times)
        (why,) = fold_in.explain(1, [7])
        added, prediction = by_numpy(recommender, rows, 7, today)
        order = np.argsort(rows.times.numpy(), kind="stable")
        assert why.rated.tolist() == rows.movies[order].tolist()
        np.testing.assert_allclose(why.added, added[order], atol=1e-4)
        assert why.prediction == pytest.approx(prediction, abs=1e-4)
        predictions.append(why.prediction)
    assert abs(predictions[0] - predictions[1]) > 1e-3


def test_explanations_without_a_gaussian_process_have_no_attributions(world: Any) -> None:
    made = drawn(world, PLAIN)
    (why,) = Recommender(made).explain(5, 3)
    assert (list(why.base), len(why.rated), len(why.added)) == (
        ["network", "biases", "gmf"],
        0,
        0,
    )
    user, movie = torch.tensor([6]), torch.tensor([3])
    with torch.no_grad():
        assert made.model.network.gmf is not None
        assert why.base["gmf"] == pytest.approx(float(made.model.network.gmf(user, movie)))
        expected = float(made.model.expected_ratings(user, movie))
        assert why.prediction == pytest.approx(expected, abs=1e-5)


def test_ordinal_predictions_cannot_be_explained(world: Any) -> None:
    levels = replace(
        world, preprocessor=replace(world.preprocessor, rating_min=0.5, rating_max=5.0)
    )
    made = drawn(levels, ModelConfig(embedding_dim=4, hidden_dims=(8,), head="ordinal"))
    with pytest.raises(UnsupportedError, match="ordinal"):
        Recommender(made).explain(5, 3)


def test_similarity_with_a_gaussian_process_is_the_kernels_correlation(world: Any) -> None:
    """The kernel's correlation, from its own values: without times and without the constant."""
    history = HistoryConfig(encoders=("gaussian-process",), use_times=False, **SMALL)
    config = ModelConfig(inputs=("genres",), embedding_dim=4, hidden_dims=(), history=history)
    made = drawn(world, config)
    assert made.model.network.gaussian_process is not None
    kernel = made.model.network.gaussian_process.kernel
    all_movies = Ratings(torch.arange(80)[None], torch.zeros(1, 80, dtype=torch.float64))
    with torch.no_grad():
        values = (kernel(all_movies, all_movies)[0] - kernel.log_constant.exp()).numpy()
    correlation = values[4] / np.sqrt(values[4, 4] * np.diag(values))
    found = Recommender(made).similar(4, n=5)
    expected = [m for m in np.argsort(-correlation) if m != 4][:5]
    assert found.movies.tolist() == expected
    np.testing.assert_allclose(found.scores, correlation[expected], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "vectors"),
    [
        (
            PLAIN,
            lambda network, m: network.gmf.movies(m) * network.gmf.output.weight,
        ),
        (
            ModelConfig(inputs=("user", "movie", "genres"), embedding_dim=4, hidden_dims=(8,)),
            lambda network, m: torch.cat(
                [network.branches[name](m, m) for name in ("movie", "genres")], dim=1
            ),
        ),
    ],
    ids=["gmf", "inputs"],
)
def test_similarity_without_a_gaussian_process_is_a_cosine_of_vectors(
    config: ModelConfig, vectors: Callable[..., torch.Tensor], world: Any
) -> None:
    made = drawn(world, config)
    with torch.no_grad():
        table = vectors(made.model.network, torch.arange(80)).numpy()
    cosines = table @ table[4] / np.linalg.norm(table, axis=1) / np.linalg.norm(table[4])
    found = Recommender(made).similar(4, n=5)
    expected = [m for m in np.argsort(-cosines) if m != 4][:5]
    assert found.movies.tolist() == expected
    np.testing.assert_allclose(found.scores, cosines[expected], atol=1e-5)


def test_similarity_needs_vectors_of_movies(world: Any) -> None:
    made = drawn(world, ModelConfig(inputs=("user",), embedding_dim=4, hidden_dims=()))
    with pytest.raises(UnsupportedError, match="no vectors"):
        Recommender(made).similar(4)


@pytest.fixture
def titled(world: Any) -> Recommender:
    made = drawn(world, PLAIN)
    titles = list(made.preprocessor.movies.titles)
    titles[:4] = "Toy Story (1995)", "Toy Story 2 (1999)", "Heat (1995)", "Heat (1986)"
    movies = replace(made.preprocessor.movies, titles=tuple(titles))
    return Recommender(replace(made, preprocessor=replace(made.preprocessor, movies=movies)))


def test_a_movie_is_found_by_its_title(titled: Recommender) -> None:
    assert titled.find("toy story (1995)") == 0
    assert titled.find(" Toy Story 2 ") == 1
    assert titled.find("Heat (1986)") == 3


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("Heat", r"2 movies have the title 'Heat': 'Heat \(1995\)' \(2\); 'Heat \(1986\)' \(3\)"),
        ("Toy Stroy (1995)", r"Did you mean 'Toy Story \(1995\)' \(0\)"),
        ("Zzzzzzzzz", "No title comes close"),
    ],
)
def test_an_unknown_title_is_refused_with_similar_ones(
    title: str, message: str, titled: Recommender
) -> None:
    with pytest.raises(UnknownIdError, match=message):
        titled.find(title)


def test_for_few_users_only_their_own_ratings_are_solved_for(world: Any) -> None:
    of_all, of_one = drawn(world, GAUSSIAN_PROCESS).model, drawn(world, GAUSSIAN_PROCESS).model
    rows = world.test[(world.test.users > 0) & (world.test.users <= 20)]
    mine = rows[rows.users == 3]
    with torch.no_grad():
        everyone = of_all.expected_ratings(rows.users, rows.movies, rows.times)
        alone = of_one.expected_ratings(mine.users, mine.movies, mine.times)
        assert of_one._solution is not None
        assert of_one._solution.is_known.nonzero().flatten().tolist() == [3]
        torch.testing.assert_close(alone, everyone[rows.users == 3], rtol=1e-5, atol=1e-5)
        some = rows[(rows.users == 3) | (rows.users == 5)]
        both = of_one.expected_ratings(some.users, some.movies, some.times)
        assert of_one._solution.is_known.nonzero().flatten().tolist() == [3, 5]
        expected = everyone[(rows.users == 3) | (rows.users == 5)]
        torch.testing.assert_close(both, expected, rtol=1e-5, atol=1e-5)
        of_one.eval()
        assert of_one._solution is None
