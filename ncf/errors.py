"""Everything that ``ncf`` raises on purpose.

::

    NcfError                 the root: catch this one
    ├── DataError            the raw or prepared data cannot be used
    ├── DivergedError        training reached a loss that is no number
    ├── CheckpointError      a checkpoint is absent, damaged or of another version
    ├── UnknownIdError       a user or movie that the model does not know was asked for
    └── UnsupportedError     something was asked for that this kind of model cannot tell
"""

from __future__ import annotations

from foundation.errors import MovieRatingsError


class NcfError(MovieRatingsError):
    """Root of every error that ``ncf`` raises on purpose."""


class DataError(NcfError):
    """The raw or prepared data cannot be used."""


class DivergedError(NcfError):
    """Training reached a loss that is no number."""


class CheckpointError(NcfError):
    """A checkpoint is absent, damaged or of another version."""


class UnknownIdError(NcfError):
    """A user or movie that the model does not know was asked for."""


class UnsupportedError(NcfError):
    """Something was asked for that this kind of model cannot tell."""
