"""The members of a blend, their prediction, and their folder in a checkpoint.

::

    blend.json       format version, weights, and the members' names
    <member>/        what the member's ``save`` wrote
    SHA256SUMS       in each folder
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, Self, runtime_checkable

import torch

from foundation.checksums import verify_checksums, write_checksums
from ncf.baselines.tables import FeatureTable
from ncf.blending.stacking import StackedMember
from ncf.blending.weights import Weights
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.errors import CheckpointError
from ncf.registry import BASELINES, STACKED_MEMBERS, implementation

FORMAT_VERSION: Final = 1
FILE: Final = "blend.json"


class Member(Protocol):
    """A baseline that is part of a blend."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""

    def fold_in(self, rows: Batch) -> Self:
        """The member for one new user with the ratings ``rows``, who has any index in what it
        predicts."""

    def save(self, folder: Path) -> None:
        """Write files into a folder that is there."""


@runtime_checkable
class Explained(Protocol):
    """A member whose predictions are sums over features."""

    def contributions(self, rows: Batch) -> FeatureTable:
        """``[B, F]`` terms whose sums are the predictions."""


@dataclass(frozen=True)
class Blend:
    """What is added to a network to make it a blend."""

    weights: Weights
    """Of the network, then of ``members``."""
    members: tuple[tuple[str, Member | StackedMember], ...]
    """By their names in ``ncf.registry``."""
    lowest: float
    """Lowest rating; every member's predictions are clipped to it."""
    highest: float
    """Highest rating likewise."""

    def each(self, network: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[K, B]`` clipped predictions of the network and of the members."""
        network = network.double()
        clipped = network.clamp(self.lowest, self.highest)
        others = (stars_of(member, clipped, rows) for _, member in self.members)
        return torch.stack([network, *others]).clamp(self.lowest, self.highest)

    def combine(self, of_members: torch.Tensor) -> torch.Tensor:
        """The blend's prediction, not clipped, from those of its members: ``[K, B] -> [B]``."""
        return torch.from_numpy(self.weights.combine(of_members.numpy())).float()

    def fold_in(self, rows: Batch) -> Blend:
        """The blend for one new user with the ratings ``rows``; nothing is trained."""
        members = tuple((name, member.fold_in(rows)) for name, member in self.members)
        return replace(self, members=members)

    def save(self, folder: Path) -> None:
        """Write it; ``folder`` appears whole or not at all, and replaces an older one."""
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        for name, member in self.members:
            (partial / name).mkdir(parents=True)
            member.save(partial / name)
            write_checksums(partial / name)
        content = {
            "format_version": FORMAT_VERSION,
            "center": self.weights.center,
            "weights": self.weights.of_members,
            "members": [name for name, _ in self.members],
        }
        (partial / FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
        write_checksums(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    @classmethod
    def load(cls, folder: Path, preprocessor: Preprocessor) -> Blend:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: if it is of another version, or a member cannot be loaded here.
            OSError: if a file is missing.
            ValueError: if one is damaged.
        """
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"the blend {folder} has format version {content['format_version']}, this program "
                f"reads version {FORMAT_VERSION}. Train again."
            )
        verify_checksums(folder)
        weights = Weights(float(content["center"]), tuple(map(float, content["weights"])))
        members = tuple(
            (name, load_member(folder, name, preprocessor)) for name in content["members"]
        )
        if len(weights.of_members) != len(members) + 1:
            raise ValueError(
                f"{FILE} has {len(weights.of_members)} weights for the network and "
                f"{len(members)} members"
            )
        return cls(weights, members, preprocessor.rating_min, preprocessor.rating_max)


def stars_of(member: Member | StackedMember, network: torch.Tensor, rows: Batch) -> torch.Tensor:
    """``[B]`` what a member predicts, not clipped; ``network: [B]`` is clipped."""
    if isinstance(member, StackedMember):
        return member.predict_from(network, rows)
    return member.predict(rows)


def load_member(folder: Path, name: str, preprocessor: Preprocessor) -> Member | StackedMember:
    """Read what the ``save`` of the member of this name has written into ``folder / name``.

    Raises:
        CheckpointError: if it needs a package that is not there.
        OSError: if a file is missing.
        ValueError: if one is damaged, or no member has this name.
    """
    entry = BASELINES.get(name) or STACKED_MEMBERS.get(name)
    if entry is None or entry.load is None:
        raise ValueError(f"{FILE} names the member {name[:200]!r}, which no blend can have")
    verify_checksums(folder / name)
    member: Member | StackedMember = implementation(entry.load)(folder / name, preprocessor)
    return member
