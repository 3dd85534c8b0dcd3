"""Rows of prepared data."""

from __future__ import annotations

from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset


def rows_of(prepared: PreparedDataset, split: str) -> Batch:
    """The rows of a split that has some."""
    rows = prepared.rows(split)
    assert rows is not None
    return rows
