"""The data source that docs/how-to.md adds: ingested, prepared, trained on, and asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import blocks
from tests.support import ROOT, environment
from tests.test_docs import apply

pytestmark = pytest.mark.ray(seconds=30)

NUM_USERS, NUM_MOVIES = 40, 24
LICENCE = "The reviews are licensed under CC BY 4.0."
CITATION = "The Example Reviews. 2024. https://example.org/reviews"

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, ncf
from foundation.errors import MovieRatingsError
from foundation.cli import main
from foundation.storage import Storage
from ingest import __main__ as ingester
from ingest.config import DataConfig, TmdbConfig
from ingest.dataset import ingest
from ray_jobs import doctor, train
from ray_jobs.report.sections.origin import licences_section
from ray_jobs.results.final_model import load_recommender
from ray_jobs.web.about import describe

data, out = sys.argv[1:]
settings = [f"data.source=reviews", f"data.path={data}", f"storage={out}"]
options = [f"--set={setting}" for setting in settings]

assert ingester.main(["ratings", *options, "--json"], {}) == 0

quick = ["name=reviews", "task=rating",
         "train.epochs=40", "train.batch_size=64", "train.learning_rate=0.02",
         "train.patience=40", "train.embedding_l2=0.0", "model.dropout=0.0", "model.gmf_dim=8",
         "model.inputs=['user', 'movie', 'genres', 'decade', 'numeric']", "tune.num_trials=0",
         "scaling.num_workers=0"]
assert main(train.command, [*options, *(f"--set={setting}" for setting in quick)]) == 0

model = ncf.load(f"{out}/runs/reviews/checkpoint")
users, movies = np.meshgrid(np.arange(1, 41), np.arange(101, 125), indexing="ij")
predictions = model.predict(users.ravel(), movies.ravel()).reshape(40, 24)
reviews = [json.loads(line) for line in Path(data, "reviews.jsonl").read_text().splitlines()]
seen = {user: [r["movie"] for r in reviews if r["user"] == user] for user in (1, 2)}
best = [model.recommend(user=user, n=3, seen=seen[user]) for user in (1, 2)]
similar = [model.similar(movie, 5) for movie in (101, 113)]

storage = Storage.at(out)
raw = ingest(DataConfig(source="reviews", path=data), TmdbConfig(), storage, environ={})
run = storage / "runs" / "reviews"
about = describe(run / "checkpoint", load_recommender(run / "checkpoint"))
lines = Path(data, "reviews.jsonl").read_text().splitlines()
Path(data, "reviews.jsonl").write_text("\\n".join([*lines[:3], '{"user": 3}', *lines[4:]]))
try:
    ingest(DataConfig(source="reviews", path=data), TmdbConfig(), storage, environ={})
except MovieRatingsError as error:
    problem = str(error)
Path(out, "answers.json").write_text(json.dumps({
    "predictions": predictions.tolist(),
    "recommended": [list(map(int, found.movies)) for found in best],
    "titles": list(best[0].titles),
    "similar": [list(map(int, found.movies)) for found in similar],
    "notices": raw.notices,
    "about": about.model_dump(),
    "report": [block.text for block in licences_section(raw).blocks],
    "problem": problem,
}))
"""


def likes(user: int, movie: int) -> bool:
    """Odd users like the first half of the movies, even users the second half."""
    return (user % 2 == 1) == (movie <= 112)


def rated(user: int, movie: int) -> bool:
    """Two of three pairs."""
    return (user + movie) % 3 > 0


def write_reviews(folder: Path) -> None:
    lines = [
        json.dumps(
            {
                "user": user,
                "movie": movie,
                "title": f"Movie {movie}",
                "stars": 5 if likes(user, movie) else 1.5,
                "at": f"2024-05-{1 + (7 * user + movie) % 28:02}T20:15Z",
            }
        )
        for user in range(1, NUM_USERS + 1)
        for movie in range(101, 101 + NUM_MOVIES)
        if rated(user, movie)
    ]
    (folder / "reviews.jsonl").write_text("\n".join(lines) + "\n")


def test_the_source_of_the_how_to_works(tmp_path: Path) -> None:
    packages, data, out = (tmp_path / name for name in ("packages", "data", "out"))
    for package in ("foundation", "ingest", "ncf", "ray_jobs"):
        shutil.copytree(ROOT / package, packages / package)
    (diff,) = (block for block in blocks("diff") if "ingest/sources/" in block.text)
    apply(diff.text, packages)
    data.mkdir()
    write_reviews(data)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data), str(out)],
        cwd=packages,
        env=environment() | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )

    assert done.returncode == 0, done.stderr
    answers = json.loads((out / "answers.json").read_bytes())
    check_model(answers)
    check_terms(answers, out, done.stdout)
    assert "reviews.jsonl, line 4: found '{\"user\": 3}', expected a review" in answers["problem"]


def check_model(answers: dict[str, Any]) -> None:
    """Users are predicted to like what they like, and movies to resemble those of their half."""
    users, movies = range(1, NUM_USERS + 1), range(101, 101 + NUM_MOVIES)
    liked: list[float] = []
    disliked: list[float] = []
    for user, row in zip(users, answers["predictions"], strict=True):
        for movie, stars in zip(movies, row, strict=True):
            (liked if likes(user, movie) else disliked).append(stars)
    assert min(liked) > max(disliked)
    for user, found in zip((1, 2), answers["recommended"], strict=True):
        assert len(found) == 3
        assert all(likes(user, int(movie)) and not rated(user, int(movie)) for movie in found)
    assert answers["titles"] == [f"Movie {int(movie)}" for movie in answers["recommended"][0]]
    for first_half, found in zip((True, False), answers["similar"], strict=True):
        assert [movie <= 112 for movie in found] == [first_half] * 5


def check_terms(answers: dict[str, Any], out: Path, printed: str) -> None:
    """Licence and citation of the source are everywhere, those of MovieLens nowhere."""
    assert answers["notices"][-1] == CITATION
    assert answers["about"]["notices"] == [CITATION]
    assert answers["report"][:2] == [LICENCE, CITATION]
    assert f'"licence": "{LICENCE}"' in printed
    assert f"NOTE: {CITATION}" in printed
    metrics = json.loads((out / "runs" / "reviews" / "metrics.json").read_bytes())
    assert metrics["dataset"] == "reviews"
    assert metrics["raw"]["attribution"] == [CITATION]
    assert metrics["raw"]["licence"] == LICENCE
    written = [file.read_bytes().decode() for file in out.rglob("*.json")]
    for text in (*written, printed, json.dumps(answers)):
        assert "GroupLens" not in text
        assert "MovieLens" not in text
