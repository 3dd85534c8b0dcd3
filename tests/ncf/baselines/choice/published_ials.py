"""Writes ``published_ials.json``, what ``implicit`` finds on small data; not a test itself.

    pip install implicit==0.7.3
    python tests/ncf/baselines/choice/published_ials.py

``implicit`` minimises, with confidences c(u, i) of rated pairs and 1 of all others,
sum of c(u, i) (p(u, i) - x(u) y(i))^2 + regularization * (sum of |x|^2 + sum of |y|^2).
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
from scipy import sparse

OUT = Path(__file__).with_suffix(".json")
LISTS = [[0, 1, 2, 6], [1, 3], [0, 2, 4, 5], [5], [3, 4, 6], [0, 1, 2, 3, 4], [2, 6], [1, 5]]
NUM_MOVIES, DIM, ITERATIONS = 7, 3, 4
CONFIDENCE, REGULARIZATION = 6.0, 0.8


def main() -> None:
    """Fit, and write settings, initial vectors and results."""
    als = importlib.import_module("implicit.cpu.als")
    rows = np.repeat(np.arange(len(LISTS)), [len(movies) for movies in LISTS])
    rated = sparse.csr_matrix(
        (np.full(len(rows), CONFIDENCE), (rows, np.concatenate(LISTS))),
        shape=(len(LISTS), NUM_MOVIES),
    )
    model = als.AlternatingLeastSquares(
        factors=DIM,
        regularization=REGULARIZATION,
        dtype=np.float64,
        use_cg=False,
        iterations=ITERATIONS,
        num_threads=1,
        random_state=0,
    )
    initial = np.random.default_rng(7).normal(0, 0.1, (NUM_MOVIES, DIM)).round(6)
    model.item_factors = initial.copy()
    model.fit(rated, show_progress=False)
    new_users = model.recalculate_user(np.arange(len(LISTS)), rated)
    values = {
        "lists": LISTS,
        "num_movies": NUM_MOVIES,
        "iterations": ITERATIONS,
        "confidence": CONFIDENCE,
        "regularization": REGULARIZATION,
        "initial": initial.tolist(),
        "movie_vectors": model.item_factors.round(12).tolist(),
        "user_vectors": new_users.round(12).tolist(),
    }
    OUT.write_text(json.dumps(values) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
