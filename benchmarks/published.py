"""The baselines compared with published implementations: same settings, same rows.

    pip install scikit-surprise lenskit
    python -m ray_jobs.preprocess --config configs/models/ncf.toml
    python benchmarks/published.py artifacts/prepared/*

Settings are chosen on the validation rows; then both implementations are fitted on training and
validation rows, and scored on the test rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pyarrow import fs

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ncf.baselines.base import fit_baseline  # noqa: E402
from ncf.baselines.bias import DAMPED_BIAS, Dampings  # noqa: E402
from ncf.baselines.matrix_factorization import MATRIX_FACTORIZATION, FactorSettings  # noqa: E402
from ncf.baselines.neighbours import NEAREST_NEIGHBOURS, NeighbourSettings  # noqa: E402
from ncf.data.batches import concatenated  # noqa: E402
from ncf.data.dataset import PreparedDataset  # noqa: E402
from ncf.errors import DataError  # noqa: E402

COLUMNS: Final = ["user_id", "movie_index", "rating"]

Stars = npt.NDArray[np.float64]


def open_with_validation(folders: Sequence[str]) -> PreparedDataset:
    """Open the only one of several prepared folders that has validation rows.

    Exits if there is none, or more than one.
    """
    opened = {folder: _open(folder) for folder in folders}
    found = [prepared for prepared in opened.values() if prepared.manifest.counts["validation"]]
    if len(found) == 1:
        return found[0]
    listed = "".join(
        f"\n  {folder}: " + ", ".join(f"{n:,} {split}" for split, n in each.manifest.counts.items())
        for folder, each in opened.items()
    )
    raise SystemExit(
        f"{len(found)} of these folders have validation rows, expected one. Name the one that "
        f"python -m ray_jobs.preprocess prints with the same options:{listed}"
    )


def _open(folder: str) -> PreparedDataset:
    try:
        return PreparedDataset.open(fs.LocalFileSystem(), str(Path(folder).resolve()))
    except DataError as error:
        raise SystemExit(str(error)) from error


def surprise_predictions(algorithm: Any, train: pd.DataFrame, test: pd.DataFrame) -> Stars:
    """``[N]`` stars of one of Surprise's algorithms."""
    from surprise import Dataset, Reader

    reader = Reader(rating_scale=(train["rating"].min(), train["rating"].max()))
    algorithm.fit(Dataset.load_from_df(train, reader).build_full_trainset())
    return np.array([p.est for p in algorithm.test(list(test.itertuples(index=False)))])


def surprise_bias(settings: Dampings) -> Any:
    """Surprise's ``BaselineOnly``."""
    from surprise import BaselineOnly

    return BaselineOnly(_als(settings.users, settings.movies), verbose=False)


def surprise_neighbours(settings: NeighbourSettings) -> Any:
    """Surprise's ``KNNBaseline``."""
    from surprise import KNNBaseline

    return KNNBaseline(
        k=settings.neighbours,
        sim_options={
            "name": "pearson_baseline", "user_based": False, "shrinkage": settings.shrinkage,
        },
        bsl_options=_als(settings.user_damping, settings.movie_damping),
        verbose=False,
    )  # fmt: skip


def _als(users: float, movies: float) -> dict[str, Any]:
    return {"method": "als", "reg_u": users, "reg_i": movies, "n_epochs": 10}


def lenskit_factors(settings: FactorSettings, train: pd.DataFrame, test: pd.DataFrame) -> Stars:
    """``[N]`` stars of LensKit's ``BiasedMFScorer``; unknown movies by its bias."""
    from lenskit.als import BiasedMFScorer
    from lenskit.data import ItemList, from_interactions_df

    known = from_interactions_df(train.rename(columns={"movie_index": "item_id"}))
    scorer = BiasedMFScorer(
        features=settings.factors,
        epochs=settings.sweeps,
        regularization=settings.penalty,
        damping=settings.damping,
    )
    scorer.train(known)
    stars = np.empty(len(test))
    for user, rows in test.groupby("user_id").indices.items():
        items = ItemList(item_ids=test["movie_index"].to_numpy()[rows])
        scores = scorer(user, items).scores()
        assert scores is not None
        bias, _ = scorer.bias.compute_for_items(items, user_id=user)
        stars[rows] = np.where(np.isnan(scores), bias, scores)
    return stars


def show(
    name: str, ours: Stars, theirs: Stars, test: pd.DataFrame, clip: tuple[float, float]
) -> None:
    """Print the RMSE of both, and the distance between their predictions."""
    ours, theirs = (np.clip(stars, *clip) for stars in (ours, theirs))
    one, other = (np.sqrt(np.mean((stars - test["rating"]) ** 2)) for stars in (ours, theirs))
    apart = np.sqrt(np.mean((ours - theirs) ** 2))
    print(f"{name:40} ours {one:.4f}   theirs {other:.4f}   apart {apart:.4f}", flush=True)


def main() -> int:
    """Fit each baseline with both implementations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "prepared",
        nargs="+",
        help="folder of the preprocess stage; of several, the one with validation rows",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    prepared = open_with_validation(options.prepared)
    train, validation, test = (prepared.rows(s) for s in ("train", "validation", "test"))
    assert train is not None
    assert test is not None
    preprocessor, both = prepared.preprocessor, concatenated(train, validation)
    frames = {s: prepared.table(s, COLUMNS).to_pandas() for s in ("train", "validation", "test")}
    known, recommender = pd.concat([frames["train"], frames["validation"]]), frames["test"]

    def ours(spec: Any) -> tuple[Any, Stars]:
        found = fit_baseline(spec, train, validation, preprocessor)
        (baseline,) = found.refit(both, preprocessor)
        print(f"  {baseline.detail}")
        return found.settings, baseline.predict(test).numpy()

    clip = (preprocessor.rating_min, preprocessor.rating_max)
    dampings, stars = ours(DAMPED_BIAS)
    theirs = surprise_predictions(surprise_bias(dampings), known, recommender)
    show("damped bias, Surprise's BaselineOnly", stars, theirs, recommender, clip)
    neighbours, stars = ours(NEAREST_NEIGHBOURS)
    theirs = surprise_predictions(surprise_neighbours(neighbours), known, recommender)
    show("item kNN, Surprise's KNNBaseline", stars, theirs, recommender, clip)
    gmf, stars = ours(MATRIX_FACTORIZATION)
    theirs = lenskit_factors(gmf, known, recommender)
    show("factorisation, LensKit's BiasedMF", stars, theirs, recommender, clip)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
