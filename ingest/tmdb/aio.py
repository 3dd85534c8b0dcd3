"""Running a coroutine to its end from code that is not asynchronous, and without ado."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The coroutine's result; works in a notebook as well, whose thread runs a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    future: Future[Result] = Future()

    def target() -> None:
        try:
            future.set_result(asyncio.run(coroutine))
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join()
    return future.result()


@contextlib.contextmanager
def rarer_garbage_collection() -> Iterator[None]:
    """Let a loop that makes much but leaves no cycles run without looking for cycles all the time.

    What exists already is spared altogether: a program that has imported Arrow and aiohttp has
    hundreds of thousands of objects, and each full collection would look through all in vain.
    """
    threshold = gc.get_threshold()
    others = gc.get_freeze_count() > 0  # somebody else's, not to be thawed here
    gc.set_threshold(10_000, *threshold[1:])
    gc.freeze()
    try:
        yield
    finally:
        if not others:
            gc.unfreeze()
        gc.set_threshold(*threshold)
