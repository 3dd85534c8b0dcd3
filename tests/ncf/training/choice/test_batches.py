"""Batches have each user once an epoch, and workers share them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ncf.choice_config import NetworkConfig
from ncf.data.interactions import Interactions
from ncf.data.sampling import SINGLE_WORKER, Shard
from ncf.models.choice.network import build_network
from ncf.training.choice.batches import ChoiceBatch, ChoiceBatches
from ncf.training.choice.masks import Mask
from tests.ncf.training.choice.clusters import Clusters, clusters

Rating = tuple[int, int]
"""User index and movie."""


@pytest.fixture(scope="module")
def world() -> Clusters:
    return clusters()


def batches_of(
    world: Clusters,
    train: Interactions | None = None,
    mask: Mask = "random",
    shard: Shard = SINGLE_WORKER,
    **settings: Any,
) -> ChoiceBatches:
    config = NetworkConfig.model_validate({"dim": 4, "batch_users": 25} | settings)
    train = train or world.train
    network = build_network(config, world.preprocessor, train)
    return ChoiceBatches(train, network, config, mask, shard)


def known_of(batch: ChoiceBatch) -> list[Rating]:
    users = batch.known.users[batch.known_rows]
    return list(zip(users.tolist(), batch.known.movies.tolist(), strict=True))


def choices_of(batch: ChoiceBatch) -> list[Rating]:
    users = batch.known.users[batch.choices.rows]
    return list(zip(users.tolist(), batch.choices.movies.tolist(), strict=True))


def all_of(ratings: Interactions) -> list[Rating]:
    users = ratings.users[ratings.rows] // 10  # the index of user 10 is 1
    return list(zip(users.tolist(), ratings.movies.tolist(), strict=True))


@pytest.mark.parametrize("mask", ["random", "forward"])
def test_an_epoch_has_every_rating_once(world: Clusters, mask: Mask) -> None:
    batches = batches_of(world, mask=mask)
    epoch = list(batches.of_epoch(1))
    assert [len(batch) for batch in epoch] == [25, 25, 10]
    assert [batch.num_users for batch in epoch] == [25, 25, 10]
    assert len(batches) == 3
    assert batches.num_users == 60
    found = [rating for batch in epoch for rating in known_of(batch) + choices_of(batch)]
    assert sorted(found) == sorted(all_of(world.train))


def test_users_with_one_rating_or_none_take_no_part(world: Clusters) -> None:
    wanted = np.ones(world.train.num_ratings, np.bool_)
    wanted[:12] = False  # the first user has none
    wanted[13:24] = False  # the second user has one
    train = world.train.where(wanted)
    batches = batches_of(world, train)
    assert batches.num_users == 58
    found = [r for b in batches.of_epoch(1) for r in known_of(b) + choices_of(b)]
    assert {user for user, _ in found} == set(range(3, 61))
    assert not list(batches_of(world, train.of_users(0, 2)).of_epoch(1))


def test_epochs_differ_and_depend_on_the_seed_alone(world: Clusters) -> None:
    first = [choices_of(batch) for batch in batches_of(world).of_epoch(1)]
    batches = batches_of(world)
    list(batches.of_epoch(7))
    assert [choices_of(batch) for batch in batches.of_epoch(1)] == first
    assert [choices_of(batch) for batch in batches.of_epoch(2)] != first
    assert [choices_of(batch) for batch in batches_of(world, seed=1).of_epoch(1)] != first


def test_weights_by_hand() -> None:
    world = clusters()
    train = Interactions.of(
        np.array([10, 10, 10, 10, 20, 20]),
        np.arange(6, dtype=np.int32),
        np.array([1, 2, 4, 5, 3, 0.5], np.float32),
        np.arange(6),
        50,
    )
    batches = batches_of(world, train, stars=0.6, user_power=0.5)
    mean = 15.5 / 6
    means = {1: (12 + 5 * mean) / 9, 2: (3.5 + 5 * mean) / 7}
    (batch,) = batches.of_epoch(1)
    num_choices = batch.choices.rows.bincount()
    stars = dict(zip(all_of(train), train.ratings.tolist(), strict=True))
    for rating, row, weight in zip(
        choices_of(batch), batch.choices.rows, batch.weights, strict=True
    ):
        value = max(0.05, 1 + 0.6 * (stars[rating] - means[rating[0]]))
        assert weight.item() == pytest.approx(value / num_choices[row].item() ** 0.5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_penalties_are_in_proportion_to_the_weights(world: Clusters, power: float) -> None:
    batches = batches_of(world, user_power=power, stars=0.0)
    totals = [
        float(batch.weights.sum()) / len(batch)
        for epoch in range(1, 30)
        for batch in batches.of_epoch(epoch)
    ]
    scale = batches.penalty_scale * world.train.num_ratings
    assert scale == pytest.approx(float(np.mean(totals)), rel=0.1)


def test_the_shards_of_workers_are_the_batch_of_one(world: Clusters) -> None:
    whole = list(batches_of(world).of_epoch(3))
    parts = [list(batches_of(world, shard=Shard(r, 3)).of_epoch(3)) for r in range(3)]
    for batch, *shards in zip(whole, *parts, strict=True):
        assert [shard.num_users for shard in shards] == 3 * [len(batch)]
        for ratings_of in (known_of, choices_of):
            found = [rating for shard in shards for rating in ratings_of(shard)]
            assert sorted(found) == sorted(ratings_of(batch))
        weights = torch.cat([shard.weights for shard in shards])
        torch.testing.assert_close(weights.sort().values, batch.weights.sort().values)


def test_workers_draw_different_negatives(world: Clusters) -> None:
    streams = [batches_of(world, shard=Shard(r, 2)).negatives(1) for r in range(2)]
    again = batches_of(world, shard=Shard(1, 2)).negatives(1)
    first, second, same = (stream.random(5) for stream in (*streams, again))
    assert (second == same).all()
    assert (first != second).all()


def test_a_worker_may_have_no_user_of_a_batch(world: Clusters) -> None:
    batches = batches_of(world, world.train.of_users(0, 1), shard=Shard(1, 2))
    (batch,) = batches.of_epoch(1)
    assert len(batch) == 0
    assert batch.num_users == 1
    assert len(batch.known_rows) == len(batch.weights) == 0
