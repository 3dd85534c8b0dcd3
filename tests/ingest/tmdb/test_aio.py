from __future__ import annotations

import asyncio
import gc

import pytest

from ingest.tmdb.aio import rarer_garbage_collection, run


async def answer() -> int:
    return 42


async def fail() -> None:
    raise LookupError("as it was")


def test_run_works_where_a_loop_runs_already() -> None:
    async def notebook() -> int:
        return run(answer())

    assert run(answer()) == asyncio.run(notebook()) == 42


def test_errors_come_through() -> None:
    async def notebook() -> None:
        run(fail())

    for call in (lambda: run(fail()), lambda: asyncio.run(notebook())):
        with pytest.raises(LookupError, match="as it was"):
            call()


def test_garbage_collection_is_as_it_was_afterwards() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with rarer_garbage_collection():
        assert gc.get_threshold()[0] > before[0][0]
        assert gc.get_freeze_count() > 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
    with pytest.raises(LookupError), rarer_garbage_collection():
        raise LookupError
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_what_other_code_has_frozen_stays_frozen() -> None:
    gc.freeze()
    try:
        with rarer_garbage_collection():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
