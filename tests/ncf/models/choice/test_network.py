"""The choice network equals its description, for all users and movies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch

from ncf.choice_config import NetworkConfig
from ncf.data.interactions import NEW_USER, Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.models.choice.context import Bumps
from ncf.models.choice.network import (
    AGES,
    ERAS,
    OLDEST,
    ChoiceNetwork,
    Choices,
    MovieAge,
    NetworkChoiceModel,
    build_network,
    release_years,
)
from tests.ncf.training.choice.clusters import YEAR, Clusters, clusters, randomise


@pytest.fixture(scope="module")
def world() -> Clusters:
    return clusters()


def network_of(world: Clusters, **settings: Any) -> ChoiceNetwork:
    """With random weights."""
    config = NetworkConfig.model_validate({"dim": 4} | settings)
    network = build_network(config, world.preprocessor, world.train)
    randomise(network)
    if network.user_vectors is not None:
        with torch.no_grad():
            network.user_vectors[0] = 0  # that of unknown users, which is never trained
    return network


def scores_of(network: ChoiceNetwork, known: Interactions) -> torch.Tensor:
    return NetworkChoiceModel(network).scores(known)


def moved(known: Interactions, seconds: int) -> Interactions:
    return replace(known, times=known.times + seconds)


def by_description(network: ChoiceNetwork, world: Clusters, known: Interactions) -> np.ndarray:
    """``[B, M]`` scores, user by user and movie by movie."""
    weights = {name: p.detach().double().numpy() for name, p in network.named_parameters()}
    table = world.preprocessor.movies
    one_hot = np.eye(4)[table.decade][:, 1:]
    content = np.concatenate([table.genres, one_hot, table.numeric], axis=1)
    content = (content - content.mean(0)) / np.maximum(content.std(0), 0.1)
    content = content.clip(-4, 4)
    inputs = weights["movies_in.own"] + content @ weights["movies_in.of_content"]
    outputs = weights["movies_out.own"] + content @ weights["movies_out.of_content"]
    logarithms = np.log(world.train.movie_counts() + 0.5)
    bias = logarithms - logarithms.mean() + weights["bias.deviation"]
    bias = bias + content @ weights["bias.of_content"]
    eras = Bumps(float(world.train.times.min()), float(world.train.times.max()), ERAS)
    ages = Bumps(0, np.log1p(OLDEST), AGES)
    result = np.zeros((len(known), len(table)))
    for b in range(len(known)):
        own = known.of_users(b, b + 1)
        vector = weights["constant"].copy()
        for movie, stars in zip(own.movies, own.ratings, strict=True):
            level = round(float(2 * stars)) - 1
            share = weights["star_weights"][level] / np.sqrt(own.num_ratings)
            vector += share * inputs[movie]
        found = np.flatnonzero(world.preprocessor.user_ids == own.users[0])
        if len(found):
            vector += weights["user_vectors"][found[0] + 1]
        asked = own.times.max()
        vector += eras.of(asked).astype(float) @ weights["eras"]
        for movie in range(len(table)):
            score = vector @ outputs[movie] + bias[movie]
            if movie > 0:  # the year of the first is unknown
                year = 1990 + 5 * table.numeric[movie, 0]
                age = datetime.fromtimestamp(int(asked), UTC).year - round(float(year))
                bumps = ages.of(np.log1p(np.clip(age, 0, OLDEST))).astype(float)
                score += bumps @ weights["age.weights"]
            result[b, movie] = score
    return result


def test_scores_are_those_of_the_description(world: Clusters) -> None:
    network = network_of(world, users=("history", "embedding"))
    known = world.train.of_users(3, 20)
    users = np.where(np.arange(17) < 5, NEW_USER, known.users)
    known = replace(known, users=users)
    expected = by_description(network, world, known)
    np.testing.assert_allclose(scores_of(network, known).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("age", [True, False])
def test_logits_of_candidates_are_those_of_all_movies(world: Clusters, age: bool) -> None:
    network = network_of(world, age=age)
    known = network.inputs(world.train.of_users(0, 6))
    logits = network.logits(known)
    of_all = torch.tensor([7, 0, 7, 49])
    torch.testing.assert_close(network.logits(known, of_all), logits[:, of_all])
    of_each = torch.arange(18).view(6, 3)
    torch.testing.assert_close(network.logits(known, of_each), logits.gather(1, of_each))
    again = network.logits(known, movies=network.movie_tensors())
    assert torch.equal(again, logits)


@pytest.mark.parametrize("candidates", [None, torch.tensor([1, 2, 30])])
def test_a_training_step_gets_the_same_logits(
    world: Clusters, candidates: torch.Tensor | None
) -> None:
    network = network_of(world)
    known = network.inputs(world.train.of_users(0, 6))
    choices = Choices(torch.tensor([0, 0, 5]), torch.tensor([4, 0, 49]))
    found = network(known, choices, candidates)
    logits = network.logits(known)
    torch.testing.assert_close(found.choices, logits[choices.rows, choices.movies])
    expected = logits if candidates is None else logits[:, candidates]
    torch.testing.assert_close(found.candidates, expected)


def test_a_new_user_is_scored_by_ratings_alone(world: Clusters) -> None:
    known = world.train.of_users(0, 5)
    as_new = replace(known, users=np.full(5, NEW_USER))
    history = network_of(world)
    assert torch.equal(scores_of(history, known), scores_of(history, as_new))
    both = network_of(world, users=("history", "embedding"))
    assert not torch.allclose(scores_of(both, known), scores_of(both, as_new))
    both.load_state_dict(both.state_dict() | history.state_dict())
    torch.testing.assert_close(scores_of(both, as_new), scores_of(history, as_new))


def test_without_histories_users_differ_by_their_vectors_and_times(world: Clusters) -> None:
    network = network_of(world, users=("embedding",), age=False, era=False)
    known = world.train.of_users(0, 5)
    other = world.train.of_users(5, 10)
    assert torch.equal(
        scores_of(network, known), scores_of(network, replace(other, users=known.users))
    )
    of_new = scores_of(network, replace(known, users=np.full(5, NEW_USER)))
    assert torch.equal(of_new, of_new[:1].expand(5, -1))


def test_vectors_of_users_are_zero_at_first_and_new_users_have_none(world: Clusters) -> None:
    network = build_network(NetworkConfig(users=("embedding",)), world.preprocessor, world.train)
    vectors = network.user_vectors
    assert vectors is not None
    assert vectors.count_nonzero() == 0

    def has_gradient(users: np.ndarray) -> list[bool]:
        network.zero_grad()
        inputs = network.inputs(replace(world.train, users=users))
        network.logits(inputs).square().sum().backward()
        assert vectors.grad is not None
        return vectors.grad.any(dim=1).tolist()

    assert has_gradient(world.train.users) == [False, *60 * [True]]
    assert has_gradient(np.full(60, NEW_USER)) == 61 * [False]


def test_the_order_of_ratings_of_the_same_time_makes_no_difference(world: Clusters) -> None:
    network = network_of(world)
    known = replace(world.train, times=np.full(world.train.num_ratings, 1_100_000_000))
    other = np.arange(known.num_ratings).reshape(len(known), -1)[:, ::-1].ravel()
    turned = replace(known, movies=known.movies[other], ratings=known.ratings[other])
    torch.testing.assert_close(scores_of(network, known), scores_of(network, turned))


def test_other_users_make_no_difference(world: Clusters) -> None:
    network = network_of(world)
    whole = scores_of(network, world.train)
    parts = [scores_of(network, world.train.of_users(b, b + 7)) for b in range(0, 60, 7)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_without_age_and_era_times_make_no_difference(world: Clusters) -> None:
    known = world.train.of_users(0, 5)
    network = network_of(world, age=False, era=False)
    assert torch.equal(scores_of(network, known), scores_of(network, moved(known, 5 * YEAR)))
    assert not {"eras", "age.weights"} & dict(network.named_parameters()).keys()


def test_era_moves_all_movies_of_similar_vectors_and_age_those_of_a_year(world: Clusters) -> None:
    known = world.train.of_users(0, 1)
    with_age = network_of(world, era=False)
    difference = scores_of(with_age, moved(known, 5 * YEAR)) - scores_of(with_age, known)
    years = release_years(world.preprocessor)
    assert years is not None
    assert difference[0, 0] == 0  # its year is unknown
    assert difference[0, 1:].abs().max() > 0.1
    for year in np.unique(years):
        of_year = difference[0, torch.from_numpy(years == year)]
        torch.testing.assert_close(of_year, of_year[:1].expand_as(of_year))
    with_era = network_of(world, age=False)
    assert not torch.allclose(
        scores_of(with_era, moved(known, 5 * YEAR)), scores_of(with_era, known)
    )


def test_the_age_is_that_at_the_newest_known_rating(world: Clusters) -> None:
    network = network_of(world)
    known = world.train.of_users(0, 1)
    earlier = known.times.copy()
    earlier[:-1] -= 5 * YEAR
    torch.testing.assert_close(
        scores_of(network, replace(known, times=earlier)), scores_of(network, known)
    )


def test_ages_beyond_the_ends_are_those_of_the_ends() -> None:
    age = MovieAge(np.array([1880, 1900, 2030, 2050, MovieAge.NO_YEAR]))
    randomise(age)
    oldest, also_oldest, new, also_new, unknown = age(torch.tensor([2020]))[0, age.index]
    assert oldest == also_oldest != 0
    assert new == also_new != oldest
    assert unknown == 0


def test_release_years(preprocessor: Preprocessor) -> None:
    years = release_years(preprocessor)
    assert years is not None
    # The third has neither a year nor a decade; the decade of the last has no training movie.
    assert years.tolist() == [1985, 1995, MovieAge.NO_YEAR, 2000]


def test_without_the_feature_there_is_no_age(world: Clusters) -> None:
    table = replace(world.preprocessor.movies, numeric=np.zeros((50, 0), np.float32))
    bare = replace(world, preprocessor=replace(world.preprocessor, movies=table, numeric=()))
    assert release_years(bare.preprocessor) is None
    network = network_of(bare)
    assert network.age is None
    assert scores_of(network, world.train).isfinite().all()


def test_content_of_any_kind_or_none(world: Clusters) -> None:
    known = world.train.of_users(0, 5)
    other = replace(world.preprocessor.movies, genres=~world.preprocessor.movies.genres)
    changed = replace(world, preprocessor=replace(world.preprocessor, movies=other))
    without = network_of(world, content=False)
    assert torch.equal(
        scores_of(without, known), scores_of(network_of(changed, content=False), known)
    )
    assert not torch.allclose(
        scores_of(network_of(world), known), scores_of(network_of(changed), known)
    )


@pytest.mark.parametrize(
    ("lowest", "highest", "stars", "levels"),
    [
        (0.5, 5.0, [0.5, 3.0, 5.0], [0, 5, 9]),
        (1.0, 10.0, [1.0, 4.0, 10.0], [0, 6, 18]),
        (1.0, 5.0, [0.5, 3.3, 7.0], [0, 5, 8]),
        (1.0, 1.0, [1.0, 1.0, 1.0], [0, 0, 0]),
    ],
)
def test_levels_of_any_scale(
    world: Clusters, lowest: float, highest: float, stars: list[float], levels: list[int]
) -> None:
    scaled = replace(world.preprocessor, rating_min=lowest, rating_max=highest)
    network = network_of(replace(world, preprocessor=scaled))
    known = Interactions.of(
        np.zeros(3, np.int64),
        np.arange(3, dtype=np.int32),
        np.array(stars, np.float32),
        np.arange(3),
        50,
    )
    assert network.inputs(known).levels.tolist() == levels
    assert scores_of(network, known).isfinite().all()


def test_users_without_ratings_ask_at_the_end_of_training(world: Clusters) -> None:
    network = network_of(world)
    nothing = world.train.of_users(0, 3).where(np.zeros(36, np.bool_))
    inputs = network.inputs(nothing)
    assert inputs.years.tolist() == 3 * [2009]
    torch.testing.assert_close(inputs.eras[:, -1], torch.ones(3))
    scores = scores_of(network, nothing)
    assert torch.equal(scores, scores[:1].expand(3, -1))
    assert scores.isfinite().all()


@pytest.mark.parametrize("candidates", [None, torch.tensor([1, 2, 30])])
def test_without_users_every_parameter_has_a_gradient(
    world: Clusters, candidates: torch.Tensor | None
) -> None:
    """As data parallelism needs of a worker without users in a batch."""
    network = network_of(world, users=("history", "embedding"))
    nothing = torch.zeros(0, dtype=torch.int64)
    known = network.inputs(world.train.of_users(0, 0))
    logits = network(known, Choices(nothing, nothing), candidates)
    (logits.choices.sum() + logits.candidates.logsumexp(dim=1).sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() == 0, name


def test_weights_are_all_that_distinguishes_networks(world: Clusters) -> None:
    network = network_of(world, users=("history", "embedding"))
    other = ChoiceNetwork(network.config, world.preprocessor)
    other.load_state_dict(network.state_dict())
    assert torch.equal(scores_of(other, world.train), scores_of(network, world.train))


def test_the_seed_determines_the_weights(world: Clusters) -> None:
    first, same, other = (
        build_network(NetworkConfig(seed=seed), world.preprocessor, world.train)
        for seed in (1, 1, 2)
    )
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(first.movies_out.own, other.movies_out.own)


def test_before_training_movies_are_ranked_by_popularity(world: Clusters) -> None:
    network = build_network(NetworkConfig(dim=4), world.preprocessor, world.train)
    with torch.no_grad():
        network.movies_out.own.zero_()
        assert network.movies_out.of_content is not None
        network.movies_out.of_content.zero_()
    scores = scores_of(network, world.train.of_users(0, 1))[0].double().numpy()
    counts = world.train.movie_counts() + 0.5
    np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(), counts / counts.sum(), 1e-4)


def test_scores_are_on_the_cpu_without_gradients(world: Clusters) -> None:
    scores = scores_of(network_of(world), world.train)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    scores[0, 0] = -torch.inf  # as rankings do
