"""Whether a search should train on CPUs beside GPUs, by how long its epochs take on each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

_EPOCHS: Final = 4
"""Timed on each before they are compared. The first ones of a process take longer."""

logger: Final = logging.getLogger(__name__)


@dataclass
class EpochTimes:
    """Compares the epochs of trials on GPUs with those on CPUs."""

    quicker: str | None = field(default=None, init=False)
    """The device whose epochs take less time, once they have been compared."""

    def too_slow(
        self,
        seconds: Mapping[str, Sequence[float]],
        num_groups: Mapping[str, int],
        num_left: int,
    ) -> str | None:
        """The device whose groups should take no further trial, if any.

        That is the slower one when a trial on it would take longer than all the others together
        on the quicker one, so that the search would end by waiting for it.

        Args:
            seconds: of epochs, by device.
            num_groups: how many there are on each.
            num_left: trials that have not ended.
        """
        all_have_begun = num_left <= sum(num_groups.values())
        if all_have_begun or len(seconds) < 2 or min(map(len, seconds.values())) < _EPOCHS:
            return None
        of_device = {device: median(each) for device, each in seconds.items()}
        quick, slow = sorted(of_device, key=lambda device: of_device[device])
        is_too_slow = of_device[slow] / of_device[quick] > num_left / max(1, num_groups[quick])
        self._tell(of_device, quick, is_too_slow=is_too_slow)
        return slow if is_too_slow else None

    def _tell(self, of_device: Mapping[str, float], quick: str, *, is_too_slow: bool) -> None:
        if self.quicker == quick and not is_too_slow:
            return
        self.quicker = quick
        times = " and ".join(
            f"{seconds:.2g} s on a {device}" for device, seconds in of_device.items()
        )
        if is_too_slow:
            use = (
                f"further trials train on {quick}s alone; tune.also_on_cpus = true keeps "
                "both to the end"
            )
        else:
            use = "trials train on both"
        logger.info("   an epoch takes %s: %s", times, use)
