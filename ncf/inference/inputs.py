"""Checks of what users pass to a trained model: ids, ratings and times.

An id is a whole number, in any numeric type: ``7``, ``7.0`` and ``numpy.int32(7)`` are the same id.
Texts, fractions, booleans and missing values are refused rather than guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from foundation import times as possible_times
from ncf.errors import InputError

Integers = npt.NDArray[np.int64]

_INT64: Final = np.iinfo(np.int64)


def whole_numbers(values: object, what: str) -> Integers:
    """``values`` as int64, in the same shape.

    Raises:
        InputError: naming ``what`` and the first value that is no whole number of 64 bits.
    """
    found = _array(values, what)
    if not found.size:
        return found.astype(np.int64)
    if found.dtype.kind == "i":
        return found.astype(np.int64)
    if found.dtype.kind == "u":
        wrong = found > np.uint64(_INT64.max)
    elif found.dtype.kind == "f":
        found = found.astype(np.float64)
        fits = (found >= _INT64.min) & (found < 2.0**63)  # NaN does not
        wrong = ~(fits & (found == np.floor(found)))
    else:
        _refuse(values, found.dtype, what)
    if wrong.any():
        _refuse(found[wrong][0] if found.ndim else found[()], found.dtype, what)
    return found.astype(np.int64)


def _of_python_numbers(found: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array of objects with the type of their numbers, if they are all numbers."""
    kinds = {type(value) for value in found.ravel()}
    are_numbers = all(issubclass(kind, int | float | np.number) for kind in kinds)
    return np.array(found.tolist()) if are_numbers and bool not in kinds else found


def listed(values: object) -> object:
    """Sets, views and iterators as lists; what else there is as it is."""
    is_text = isinstance(values, str | bytes)
    is_list = is_text or isinstance(values, np.ndarray)
    return list(values) if isinstance(values, Iterable) and not is_list else values


def flat_whole_numbers(values: object, what: str) -> Integers:
    """``values``, one or a flat list, as int64 ``[N]``.

    Raises:
        InputError: as ``whole_numbers``, and if they are nested.
    """
    found = np.atleast_1d(whole_numbers(values, what))
    if found.ndim != 1:
        raise InputError(f"{what} must be a flat list; found one of the shape {found.shape}")
    return found


def _array(values: object, what: str) -> npt.NDArray[Any]:
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged; tensors with gradients
        raise InputError(f"{what} must be one number or a flat list of numbers: {error}") from error
    if found.dtype == object and found.size:  # a column of mixed types, say
        found = _of_python_numbers(found)
    if np.ma.is_masked(values):
        raise InputError(f"{what} holds masked values, which are none; leave them out")
    return found


def one_whole_number(value: object, what: str, lowest: int = int(_INT64.min)) -> int:
    """``value`` as an int.

    Raises:
        InputError: if it is not a single whole number of at least ``lowest``.
    """
    found = whole_numbers(value, what)
    if found.ndim:
        raise InputError(f"{what} must be one number; found {_shown(value)}")
    if found < lowest:
        raise InputError(f"{what} is {found}; expected a whole number of at least {lowest}")
    return int(found)


def stars(values: object, lowest: float, highest: float) -> npt.NDArray[np.float32]:
    """Ratings ``[N]`` as float32.

    Raises:
        InputError: naming the first that is no number from ``lowest`` to ``highest``.
    """
    found = _array(values, "ratings")
    if found.size and found.dtype.kind not in "iuf":
        _refuse(values, found.dtype, "ratings", "numbers of stars")
    found = found.astype(np.float32)
    wrong = np.flatnonzero(~((found >= lowest) & (found <= highest)))  # NaN is in no range
    if len(wrong):
        position = int(wrong[0])
        raise InputError(
            f"the rating at position {position} is {found.ravel()[position]:g}; expected a number "
            f"from {lowest:g} to {highest:g}, as in the training data"
        )
    return found


def seconds(values: object, newest: int) -> Integers:
    """Times as int64 seconds since 1970 UTC, in the same shape; ``newest`` is that of the newest
    training rating.

    Raises:
        InputError: naming the first that is no whole number, or an impossible time.
    """
    found = whole_numbers(values, "times")
    problem = possible_times.problem(found.ravel(), newest)
    if problem is not None:
        raise InputError(problem[1])
    return found


def each_once(movies: Integers) -> None:
    """Check that ``movies: [N]`` are distinct.

    Raises:
        InputError: naming the first that occurs twice.
    """
    ids, counts = np.unique(movies, return_counts=True)
    if (counts > 1).any():
        repeated = ids[counts > 1][0]
        first, second = np.flatnonzero(movies == repeated)[:2]
        raise InputError(
            f"movie {repeated} is rated at positions {first} and {second}; expected each movie once"
        )


def _refuse(
    value: object, dtype: np.dtype[np.generic], what: str, expected: str = "whole numbers (64 bits)"
) -> NoReturn:
    raise InputError(f"{what}: found {_shown(value)} ({dtype.name}), expected {expected}")


def _shown(value: object) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:60]}..."
