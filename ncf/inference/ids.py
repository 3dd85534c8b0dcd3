"""Ids that are texts: the numbers that the model has for them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from foundation.errors import shortened
from ncf.data.preprocessor import Integers
from ncf.errors import UnknownIdError

UNKNOWN_USER: Final = 0
"""The number of texts that are no user's: those of the data are numbered from 1."""


@dataclass(frozen=True)
class TextIds:
    """The texts that a data set has as ids of users, or of movies."""

    numbers: Integers
    """``[N]`` ids within the program."""
    texts: tuple[str, ...]
    """``[N]`` ids of the data set."""

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return dict(zip(self.texts, self.numbers.tolist(), strict=True))

    def numbers_of(self, values: object, *, unknown: int | None = None) -> object:
        """Numbers for one text or a list of texts.

        Raises:
            UnknownIdError: naming a text that is not among them, unless there is a number
                ``unknown`` for these; or what is no text.
        """
        if not _are_texts(values):
            raise UnknownIdError(
                f"the ids of the data are texts, such as {self.texts[0]!r}; found "
                f"{shortened(repr(values))}"
            )
        found = np.asarray(values, dtype=object)
        numbers = [self._number_of.get(text, unknown) for text in found.ravel().tolist()]
        if None in numbers:
            absent = found.ravel()[numbers.index(None)]
            raise UnknownIdError(
                f"the id {str(absent)[:60]!r} is not among the {len(self.texts):,} ids, such as "
                f"{self.texts[0]!r}"
            )
        return np.array(numbers, np.int64).reshape(found.shape)

    def texts_of(self, numbers: Integers) -> tuple[str, ...]:
        """The texts of ids ``[B]`` that are among them."""
        positions = np.searchsorted(self.numbers, numbers)
        return tuple(self.texts[i] for i in positions.tolist())


def _are_texts(values: object) -> bool:
    if isinstance(values, str):
        return True
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        return False  # ragged
    if not found.size or found.dtype.kind in "UT":
        return True
    return found.dtype == object and all(isinstance(value, str) for value in found.ravel().tolist())
