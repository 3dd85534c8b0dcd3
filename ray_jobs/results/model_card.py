"""``MODEL_CARD.md`` beside a checkpoint: what the model is, what it is for, and how good it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ray_jobs.results.choices import MEMBERS, ChoiceMetrics
from ray_jobs.results.metrics import DataOrigin, RunMetrics
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.undefined import shown

FILE = "MODEL_CARD.md"

_USE = (
    "For predicting ratings that a user has not given, and for recommending movies. Not for "
    "decisions about people. Its terms are those of the data, below."
)
_LIMITS = (
    "Figures on a random split fill in ratings among others of the same users; on future ratings "
    "and for users with few ratings errors are larger. Ratings say what people chose to watch and "
    "rate, so rankings say what is likely to be chosen, not what would be liked if it were."
)


def write_model_card(paths: RunPaths, *, with_ratings: bool) -> None:
    """Write the card of the models that the run keeps, if it says something new.

    Args:
        paths: of the run; ``metrics.json`` may be there of an earlier run of this name.
        with_ratings: whether there is a rating model.
    """
    rating = RunMetrics.read(paths.metrics) if with_ratings else None
    has_choice = paths.choice_checkpoint.exists() and paths.choice_metrics.exists()
    choice = ChoiceMetrics.read(paths.choice_metrics) if has_choice else None
    file = paths.checkpoint / FILE
    text = model_card(paths.name, rating, choice).encode()
    if not file.exists() or file.read_bytes() != text:
        file.write_bytes(text)


def model_card(name: str, rating: RunMetrics | None, choice: ChoiceMetrics | None) -> str:
    """The card in Markdown, of a rating model, a choice model or both."""
    metrics = rating or choice
    assert metrics is not None
    parts = [f"# Model card: {_plain(name)}"]
    if metrics.synthetic:
        parts.append("**Trained on synthetic data: it says nothing about real movies or tastes.**")
    parts += ["## Use", _USE, "## Data", *_data(metrics.dataset, metrics.raw)]
    parts.append(
        f"Split: {metrics.split.kind}, seed {metrics.split.seed}, {metrics.split.test:.0%} test "
        f"and {metrics.split.validation:.0%} validation rows. No test row was used to fit or to "
        "choose."
    )
    if rating is not None:
        parts += ["## Predicted ratings", *_rating(rating)]
    if choice is not None:
        parts += ["## Recommendations", *_choice(choice)]
    parts += ["## Limits", _LIMITS, "## How it was made", *_origin(metrics)]
    return "\n\n".join(parts) + "\n"


def _data(dataset: str, raw: DataOrigin) -> Iterator[str]:
    yield f"Data set: {_plain(dataset)}."
    if raw.licence:
        yield _plain(raw.licence)
    yield from map(_plain, raw.attribution or raw.notices)


def _rating(metrics: RunMetrics) -> Iterator[str]:
    members = ", ".join(f"{each.weight:.2f} × {each.name}" for each in metrics.members)
    refitted = "training and validation rows" if metrics.refit_on_validation else "training rows"
    yield (
        f"Loss {metrics.loss}, {metrics.best_epoch} epochs, fitted to {refitted}."
        + (f" A blend: {members}." if members else "")
    )
    found = {"validation rows": metrics.validation, "test rows": metrics.test}
    lines = [
        f"| {rows} | {each.num_ratings:,} | {each.rmse:.4f} | {each.mae:.4f} | {shown(each.r2)} |"
        for rows, each in found.items()
        if each is not None
    ]
    head = ["| | ratings | RMSE, stars | MAE, stars | R² |", "|---|---:|---:|---:|---:|"]
    yield "\n".join([*head, *lines])
    if metrics.uncertainty is not None:
        covered = metrics.uncertainty.coverage
        held = ", ".join(f"{float(level):.0%}: {share:.1%}" for level, share in covered.items())
        yield f"Share of test ratings inside the intervals of each level: {held}."


def _choice(metrics: ChoiceMetrics) -> Iterator[str]:
    yield (
        f"Served: {MEMBERS[metrics.member]}, of movies with at least {metrics.min_ratings} "
        "training ratings."
    )
    scores = metrics.test[metrics.member] if metrics.test else None
    for what, found in (
        ("movies of 4 stars or more", scores and scores.liked),
        ("all rated movies", scores and scores.all),
    ):
        if found:
            yield (
                f"Test users, rankings of all unseen movies, relevant are {what}: NDCG@10 "
                f"{found.metrics['ndcg@10']:.4f}, recall@10 {found.metrics['recall@10']:.4f} "
                f"({found.num_users:,} users)."
            )


def _origin(metrics: RunMetrics | ChoiceMetrics) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in metrics.versions.items())
    yield f"Seed {metrics.seed}; configuration {metrics.config_hash[:16]}; {versions}."
    yield (
        "In Python: `ncf.load(FOLDER)` with the folder of this file. Checksums are in SHA256SUMS."
    )


def _plain(text: Any) -> str:
    """On one line, without characters that Markdown or HTML would read as something else."""
    line = " ".join(str(text).split())
    line = re.sub(r"([\\`*_\[\]#|])", r"\\\1", line)
    return line.replace("<", "&lt;").replace(">", "&gt;")
