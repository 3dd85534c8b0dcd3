"""How the report shows errors by kind of row."""

from __future__ import annotations

import numpy as np
import torch

from ncf.data.batches import Batch
from ncf.evaluation.assessment import Assessment
from ncf.evaluation.slices import errors_by_slice, slicings
from ray_jobs.report.document import Report
from ray_jobs.report.sections.errors import slices_section
from ray_jobs.results.comparison import Comparison
from tests.ray_jobs.made import FITTED, ROWS


def test_cold_starts_and_decades_have_lines_of_their_own() -> None:
    """User 0 and the movies 3 and 4 have no training rating; movie 4 is of the eighties."""
    rows = Batch(
        users=torch.tensor([0, 1, 0, 2]),
        movies=torch.tensor([0, 3, 4, 0]),
        ratings=torch.full((4,), 3.0),
        weights=torch.ones(4),
        times=torch.full((4,), 8),
    )
    models = [("model", np.array([[3.0, 2.0, -4.0, 0.5]])), ("bias", np.ones((1, 4)))]
    found = errors_by_slice(slicings(ROWS, rows, FITTED), models)
    comparison = Comparison((), "stars", 4, 0, False, "model", "bias", Assessment(3, (), found, ()))

    text = Report("A run", (), (), (slices_section(comparison),)).markdown("plots")

    cold = "0 (cold start)"
    assert "| training ratings of the user | rows | RMSE, model | RMSE, bias |" in text
    # Of the user: errors 3 and -4; of the movies: 2 and -4.
    assert f"| {cold} | 2 | 3.5355 | 1.0000 | 3.5000 | 1.0000 |" in text
    assert f"| {cold} | 2 | 3.1623 | 1.0000 | 3.0000 | 1.0000 |" in text
    assert "| neither | 1 | 4.0000 | 1.0000 | 4.0000 | 1.0000 |" in text
    assert "| movie only | 1 | 3.0000 |" in text
    assert "| user only | 1 | 2.0000 |" in text
    assert "| 1980s | 1 | 4.0000 |" in text
    assert "| 1990s | 3 | 2.1016 | 1.0000 | 1.8333 | 1.0000 |" in text
