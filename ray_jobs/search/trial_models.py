"""The weights of a search's best trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from foundation.checksums import CHECKSUMS
from foundation.storage import Storage
from ray_jobs.search.trials import TrialRecord


@dataclass(frozen=True)
class TrialModels:
    """The best and the last weights of a search's best trials."""

    folder: Storage
    """With a folder for each of these trials, by Ray Tune's name of it."""
    count: int
    """Of how many trials they are kept."""

    def of(self, trial_id: str) -> Storage | None:
        """Where a trial leaves its weights; None if none are kept."""
        return self.folder / trial_id if self.count else None

    def kept(self, trial_id: str) -> Storage | None:
        """Where a trial's weights are, if they are, and whole."""
        folder = self.folder / trial_id
        whole = all(_is_whole(folder / which) for which in ("best", "last"))
        return folder if whole else None

    def prune(self, ended: Iterable[TrialRecord], *, others: bool = False) -> None:
        """Delete those of all but the best trials among ``ended``, and with ``others`` whatever
        else is there: of interrupted trials, and in parts."""
        trials = list(ended)
        judged = [trial for trial in trials if trial.result is not None]
        best = sorted(judged, key=lambda trial: (trial.cost, trial.number))[: self.count]
        kept = {trial.trial_id for trial in best}
        known = {trial.trial_id for trial in trials}
        for folder in self.folder.list_folders():
            if folder.name not in kept and (others or folder.name in known):
                folder.delete()


def _is_whole(model: Storage) -> bool:
    """Whether every file of a checkpoint is there."""
    sums = model / CHECKSUMS
    if not sums.exists():
        return False
    names = (line.partition("  ")[2] for line in sums.read_bytes().decode().splitlines())
    return all((model / name).exists() for name in names)
