"""Run a coroutine from synchronous code, and with less garbage collection."""

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
    """The coroutine's result; also works in a notebook, where the thread already runs a loop."""
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
    """Collect garbage rarely, in a loop that allocates many objects but creates no cycles.

    Existing objects are excluded from collection: a program that has imported Arrow and aiohttp has
    hundreds of thousands of objects, which every full collection would traverse for nothing.
    """
    threshold = gc.get_threshold()
    others = gc.get_freeze_count() > 0  # frozen by other code, which will unfreeze them
    gc.set_threshold(10_000, *threshold[1:])
    gc.freeze()
    try:
        yield
    finally:
        if not others:
            gc.unfreeze()
        gc.set_threshold(*threshold)
