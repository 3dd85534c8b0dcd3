from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pyarrow as pa
import pytest
import torch

from ncf.data.batches import Batch, chunks
from ncf.data.sampling import (
    COLD_START_ROWS,
    SINGLE_WORKER,
    Grouping,
    Shard,
    ShardedBatch,
    grouped,
    shuffled,
)


def numbered(count: int) -> Batch:
    """Rows that say their number in every column."""
    numbers = torch.arange(count)
    return Batch(
        numbers.int(), numbers.int() + 100, numbers / 2, numbers.float() + 0.25, numbers + 2**40
    )


def order_of(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.users for batch in batches]).tolist()


def assert_whole_rows(batch: Batch) -> None:
    """Every row's columns still belong together."""
    assert torch.equal(batch.movies, batch.users + 100)
    assert torch.equal(batch.ratings, batch.users / 2)
    assert torch.equal(batch.weights, batch.users + 0.25)
    assert torch.equal(batch.times, batch.users.long() + 2**40)


def test_columns_become_tensors_of_fixed_types() -> None:
    table = pa.table(
        {
            "weight": pa.array([0.5, 1.0], pa.float64()),
            "rating": pa.array([4.5, 0.5], pa.float32()),
            "movie_index": pa.array([7, 0], pa.int64()),
            "user_index": pa.array([3, 2**31 - 1], pa.int32()),
            "timestamp": pa.array([-1, 2**40 + 1], pa.int64()),
        }
    )
    batch = Batch.from_arrow(table)
    assert torch.equal(batch.users, torch.tensor([3, 2**31 - 1], dtype=torch.int32))
    assert torch.equal(batch.movies, torch.tensor([7, 0], dtype=torch.int32))
    assert torch.equal(batch.ratings, torch.tensor([4.5, 0.5]))
    assert torch.equal(batch.weights, torch.tensor([0.5, 1.0]))
    assert torch.equal(batch.times, torch.tensor([-1, 2**40 + 1]))
    assert batch.users.dtype == batch.movies.dtype == torch.int32
    assert batch.ratings.dtype == batch.weights.dtype == torch.float32


def test_a_batch_does_not_share_memory_with_the_table() -> None:
    names = ("user_index", "movie_index", "rating", "weight")
    table = pa.table(
        {name: pa.array([1, 2], pa.int32()) for name in names[:2]}
        | {name: pa.array([1, 2], pa.float32()) for name in names[2:]}
        | {"timestamp": pa.array([1, 2], pa.int64())}
    )
    Batch.from_arrow(table).ratings[0] = 9
    assert table["rating"].to_pylist() == [1, 2]


def test_rows_are_taken_by_slice_or_by_position(make_rows: Callable[..., Batch]) -> None:
    rows = make_rows([1, 2, 3], [4, 5, 6], [1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    taken = rows[torch.tensor([2, 0])]
    assert (taken.users.tolist(), taken.movies.tolist()) == ([3, 1], [6, 4])
    assert torch.equal(taken.ratings, torch.tensor([3.0, 1.0]))
    assert torch.equal(taken.weights, torch.tensor([0.3, 0.1]))
    assert len(rows[1:]) == 2
    assert rows[1:].movies.tolist() == [5, 6]


@pytest.mark.parametrize(("rows", "size"), [(10, 3), (9, 3), (2, 5), (0, 5)])
def test_chunks_hold_all_rows_in_order(rows: int, size: int) -> None:
    parts = list(chunks(numbered(rows), size))
    assert [len(part) for part in parts] == [min(size, rows - s) for s in range(0, rows, size)]
    assert [n for part in parts for n in part.users.tolist()] == list(range(rows))


def test_shuffled_batches_hold_every_row_once_in_another_order() -> None:
    pairs = list(shuffled(numbered(103), 20, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch, *_ in pairs] == [20, 20, 20, 20, 20, 3]
    assert [size for _, size, _ in pairs] == [20, 20, 20, 20, 20, 3]
    order = order_of([batch for batch, *_ in pairs])
    assert order != sorted(order)
    assert sorted(order) == list(range(103))
    for batch, *_ in pairs:
        assert_whole_rows(batch)


def test_the_order_follows_from_the_generator_and_changes_every_epoch() -> None:
    def epochs(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [order_of([b for b, *_ in shuffled(numbered(50), 8, generator)]) for _ in range(2)]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    assert epochs(1)[0] != epochs(1)[1]


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_workers_split_the_batches_of_a_single_worker(workers: int) -> None:
    def epoch(shard: Shard) -> list[ShardedBatch[Batch]]:
        return list(shuffled(numbered(41), 10, torch.Generator().manual_seed(3), shard))

    whole = epoch(SINGLE_WORKER)
    parts = [epoch(Shard(rank, workers)) for rank in range(workers)]
    for number, (batch, size, _) in enumerate(whole):
        of_workers = [part[number] for part in parts]
        assert [s for _, s, _ in of_workers] == [size] * workers
        assert sorted(order_of([b for b, *_ in of_workers])) == sorted(batch.users.tolist())
        lengths = [len(b) for b, *_ in of_workers]
        assert max(lengths) - min(lengths) <= 1
    # 41 rows leave a last batch of one row: the first worker has it, the others have nothing.
    assert [len(part[-1][0]) for part in parts] == [1] + [0] * (workers - 1)


def of_users(*counts: int) -> Batch:
    """Numbered rows; user u has ``counts[u]`` of them, scattered."""
    users = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    users = users[torch.randperm(len(users), generator=torch.Generator().manual_seed(9))]
    numbers = torch.arange(len(users))
    return Batch(users.int(), numbers.int(), numbers / 2, numbers + 0.25, numbers)


def groups_of(portion: ShardedBatch[Batch]) -> list[Batch]:
    assert portion.starts is not None
    bounds = portion.starts.tolist()
    return [portion.rows[a:b] for a, b in pairwise(bounds)]


def epoch_of_groups(
    rows: Batch, shard: Shard = SINGLE_WORKER, small: float = 0.0
) -> list[ShardedBatch[Batch]]:
    generator = torch.Generator().manual_seed(3)
    return list(grouped(rows, 30, Grouping(10, small), generator, shard))


def test_groups_hold_every_row_once_and_one_user_each() -> None:
    rows = of_users(1, 0, 7, 10, 11, 45)
    portions = epoch_of_groups(rows)
    groups = [group for portion in portions for group in groups_of(portion)]
    assert sorted(n for g in groups for n in g.movies.tolist()) == list(range(74))
    for group in groups:
        assert len(set(group.users.tolist())) == 1
        assert torch.equal(group.ratings, group.movies / 2)  # whole rows
        assert torch.equal(rows.users[group.movies.long()], group.users)
    # As few groups as the limit of 10 allows, and of nearly the same size.
    sizes = sorted((int(g.users[0]), len(g)) for g in groups)
    assert sizes == [(0, 1), (2, 7), (3, 10), (4, 5), (4, 6)] + [(5, 9)] * 5
    assert [p.batch_size for p in portions] == [len(p.rows) for p in portions]
    assert max(p.batch_size for p in portions) < 30 + 10


def test_some_rows_are_put_into_small_groups() -> None:
    rows = of_users(200, 200, 200)
    sizes = [len(g) for p in epoch_of_groups(rows, small=0.5) for g in groups_of(p)]
    small = [size for size in sizes if size <= COLD_START_ROWS]
    assert sum(small) == pytest.approx(300, abs=15)
    assert all(size == 10 for size in sizes if size > COLD_START_ROWS)


def test_groups_differ_from_epoch_to_epoch() -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = (
        list(grouped(of_users(40), 30, Grouping(10, 0.0), generator)) for _ in range(2)
    )
    assert not torch.equal(first[0].rows.movies, second[0].rows.movies)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_split_the_groups_of_a_single_worker(workers: int) -> None:
    rows = of_users(3, 50, 20, 9, 1)
    whole = epoch_of_groups(rows, small=0.2)
    parts = [epoch_of_groups(rows, Shard(rank, workers), small=0.2) for rank in range(workers)]
    for number, portion in enumerate(whole):
        of_workers = [part[number] for part in parts]
        assert [p.batch_size for p in of_workers] == [portion.batch_size] * workers
        expected = sorted(tuple(g.movies.tolist()) for g in groups_of(portion))
        found = sorted(tuple(g.movies.tolist()) for p in of_workers for g in groups_of(p))
        assert found == expected


def test_moving_to_a_device_keeps_the_rows() -> None:
    moved = numbered(3).to(torch.device("cpu"))
    assert moved.users.tolist() == [0, 1, 2]
    assert_whole_rows(moved)
