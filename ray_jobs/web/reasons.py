"""Explanations as JSON: the largest attributions by name, and the sum of the others."""

from __future__ import annotations

import numpy as np

from ncf.data.preprocessor import MovieTable
from ncf.inference.explanations import Explanation
from ncf.inference.recommender import ChoiceExplanation
from ray_jobs.web import models


def why(explanation: Explanation, at_most: int, table: MovieTable) -> models.Why:
    """Of a predicted rating."""
    raised, lowered, others = _ratings(explanation, at_most, table)
    base = explanation.base.items()
    return models.Why(
        prediction=explanation.prediction,
        base=tuple(models.Part(name=name, adds=adds) for name, adds in base),
        features=tuple(
            models.Part(name=name, adds=adds)
            for name, adds in explanation.largest_features(2 * at_most)
        ),
        raised=raised,
        lowered=lowered,
        others=others,
    )


def why_chosen(explanation: ChoiceExplanation, at_most: int, table: MovieTable) -> models.WhyChosen:
    """Of a choice."""
    raised, lowered, others = _ratings(explanation, at_most, table)
    return models.WhyChosen(
        score=explanation.score,
        context=explanation.context,
        raised=raised,
        lowered=lowered,
        others=others,
    )


_Parts = tuple[models.RatingPart, ...]


def _ratings(
    explanation: Explanation | ChoiceExplanation, at_most: int, table: MovieTable
) -> tuple[_Parts, _Parts, models.OtherParts]:
    """At most so many ratings that raised it, and that lowered it, and the others."""
    rated, ratings, added = explanation.rated, explanation.ratings, explanation.added
    order = np.argsort(-added, kind="stable")
    up = [int(i) for i in order[:at_most] if added[i] > 0]
    down = [int(i) for i in order[::-1][:at_most] if added[i] < 0]
    positions = table.index_of(rated)

    def named(i: int) -> models.RatingPart:
        return models.RatingPart(
            movie_id=int(rated[i]),
            title=table.display_titles[positions[i]],
            rating=float(ratings[i]),
            adds=float(added[i]),
        )

    others = models.OtherParts(
        count=len(order) - len(up) - len(down),
        adds=float(added.sum() - added[[*up, *down]].sum()),
    )
    return tuple(map(named, up)), tuple(map(named, down)), others
