"""What a command does again although it was done before."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Redo:
    """Work whose results are not used again."""

    all_stages: bool = False
    """``--force``."""
    failed_trials: bool = False
    """``--retry-failed``."""
    other_data: bool = False
    """``--replace``: results of another data set, which are otherwise kept."""
