"""Predicted ratings as sums: of the network's terms, the user's ratings, and a blend's features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ncf.baselines.tables import FeatureTable
from ncf.blending.blend import Blend, Explained, Member, stars_of
from ncf.blending.stacking import Correcting, StackedMember
from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats
from ncf.inference.checkpoint import Checkpoint
from ncf.models.history.ratings import Ratings


@dataclass(frozen=True)
class Explanation:
    """A prediction as a sum."""

    movie: int | str
    """Id."""
    prediction: float
    """In the training target's unit and not clipped: the sum of ``base``, ``added`` and
    ``features``."""
    base: dict[str, float]
    """Terms of the network (with the mean rating), of the biases of user and movie, and of the
    matrix factorisation, as far as the model has them. Those of a blend are multiplied by the
    weight of the network and of members that correct it."""
    rated: npt.NDArray[Any]
    """``[L]`` ids of the movies in the user's history; none without the Gaussian process."""
    ratings: npt.NDArray[np.float32]
    """``[L]`` their ratings in the training target's unit."""
    added: npt.NDArray[np.float32]
    """``[L]`` attributions: the rating's covariance with the movie times its weight. A weight
    depends on all ratings, so this is not the difference that leaving a rating out would make."""
    features: dict[str, float] = field(default_factory=dict)
    """Of a blend: what each feature of its trees adds (SHAP values), times the trees' weight."""

    def largest_features(self, at_most: int) -> list[tuple[str, float]]:
        """At most so many ``features`` that add or take most, and the sum of the others."""
        if not self.features:
            return []
        by_size = sorted(self.features.items(), key=lambda item: -abs(item[1]))
        others = sum(adds for _, adds in by_size[at_most:])
        return [*by_size[:at_most], ("other features", others)]


def explanations(checkpoint: Checkpoint, rows: Batch) -> list[Explanation]:
    """The terms whose sums are the predictions for ``rows``, all of one user."""
    model, table = checkpoint.model, checkpoint.preprocessor.movies
    with torch.inference_mode():
        terms = model.terms(rows.users, rows.movies, rows.times)
        rated, ratings = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        added = torch.zeros(len(rows), 0)
        if model.has_attributions and len(rows):
            history, user = model.required_history(), int(rows.users[0])
            of_user = history.rows_of(user)
            rated, ratings = history.movies[of_user], history.targets[of_user]
            added = model.attributions(user, Ratings.of(rows.movies, rows.times))
    found = [
        Explanation(
            movie=int(table.ids[position]),
            prediction=float(sum(p[i] for p in terms.values()) + added[i].sum()),
            base={name: float(part[i]) for name, part in terms.items()},
            rated=table.ids[rated.numpy()],
            ratings=ratings.numpy(),
            added=added[i].numpy(),
        )
        for i, position in enumerate(rows.movies.tolist())
    ]
    return found if checkpoint.blend is None else _of_blend(checkpoint.blend, found, rows)


def _of_blend(blend: Blend, of_network: list[Explanation], rows: Batch) -> list[Explanation]:
    """The blend's predictions as sums of its members' terms, each times the member's weight."""
    first, *weights = blend.weights.of_members
    members = [(member, weight) for (_, member), weight in zip(blend.members, weights, strict=True)]
    # Stacked members add a correction to the network's prediction.
    network = first + sum(w for member, w in members if isinstance(member, StackedMember))
    constant = blend.weights.center * (1 - sum(blend.weights.of_members))
    outside = [network * (_clip(blend, each.prediction) - each.prediction) for each in of_network]
    base = [
        {name: network * term for name, term in each.base.items()}
        | {"center of the blend": constant}
        for each in of_network
    ]
    features: list[dict[str, float]] = [{} for _ in of_network]
    clipped = torch.tensor([_clip(blend, each.prediction) for each in of_network]).double()
    for member, weight in members:
        stars: Floats = stars_of(member, clipped, rows).numpy()
        contributions = _contributions(member, clipped, rows)
        for i, predicted in enumerate(stars):
            outside[i] += weight * (_clip(blend, predicted) - predicted)
            if contributions is None:
                added = predicted - clipped[i] if isinstance(member, StackedMember) else predicted
                base[i][member.name] = weight * float(added)
                continue
            *of_features, mean = weight * contributions.values[i].astype(np.float64)
            base[i][f"mean of {member.name}"] = float(mean)
            for name, term in zip(contributions.names, of_features, strict=False):
                features[i][name] = features[i].get(name, 0.0) + float(term)
    return [
        Explanation(
            movie=each.movie,
            prediction=sum(base[i].values())
            + sum(features[i].values())
            + float(network * each.added.sum())
            + outside[i],
            base=base[i] | ({"clipping of members": outside[i]} if outside[i] else {}),
            rated=each.rated,
            ratings=each.ratings,
            added=(network * each.added).astype(np.float32),
            features=features[i],
        )
        for i, each in enumerate(of_network)
    ]


def _contributions(
    member: Member | StackedMember, network: torch.Tensor, rows: Batch
) -> FeatureTable | None:
    """``[B, F + 1]`` what features add to the member's predictions, and their mean; of a stacked
    member, to its corrections. ``None`` if these are no such sums."""
    if isinstance(member, Correcting):
        return member.corrections(network, rows)
    return member.contributions(rows) if isinstance(member, Explained) else None


def _clip(blend: Blend, stars: float) -> float:
    return float(np.clip(stars, blend.lowest, blend.highest))
