"""The exceptions that ``ncf`` raises on purpose.

::

    NcfError                 the root: catch this one
    ├── DataError            the raw or prepared data cannot be used
    ├── DivergedError        the training loss became infinite or NaN
    ├── CheckpointError      a checkpoint is absent, damaged or of another version
    ├── InputError           an argument is not what it must be; also a ValueError
    ├── UnknownIdError       an id is not in the model's catalogue
    └── UnsupportedError     this kind of model does not support the operation
"""

from __future__ import annotations

from foundation.errors import MovieRatingsError


class NcfError(MovieRatingsError):
    """Root of all exceptions that ``ncf`` raises on purpose."""


class DataError(NcfError):
    """The raw or prepared data cannot be used."""


class DivergedError(NcfError):
    """The training loss became infinite or NaN."""


class CheckpointError(NcfError):
    """A checkpoint is absent, damaged or of another version."""


class InputError(NcfError, ValueError):
    """An argument is not what it must be."""


class UnknownIdError(NcfError):
    """An id is not in the model's catalogue."""


class UnsupportedError(NcfError):
    """This kind of model does not support the operation."""
