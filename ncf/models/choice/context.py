"""Numbers as smooth features: radial bumps at equal distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ncf.data.interactions import Floats


@dataclass(frozen=True)
class Bumps:
    """``count`` Gaussian bumps with centres from ``low`` to ``high``, as wide as their distance.

    Values beyond the ends count as the ends, so that nothing is extrapolated.
    """

    low: float
    high: float
    count: int

    def of(self, values: npt.ArrayLike) -> Floats:
        """``[...] -> [..., count]``, in (0, 1]."""
        width = (self.high - self.low) / max(1, self.count - 1) or 1.0
        centres = np.linspace(self.low, self.high, self.count)
        clipped = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return np.exp(-0.5 * ((clipped[..., None] - centres) / width) ** 2).astype(np.float32)
