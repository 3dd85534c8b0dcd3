"""What a model returns to Python users: recommendations, and predictions with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ncf.data.preprocessor import Integers

if TYPE_CHECKING:
    import pandas as pd


class Recommendation(NamedTuple):
    """One recommended or similar movie."""

    movie: int | str
    """Id, as the data have it."""
    title: str
    score: float
    """What it is ordered by."""
    stars: float | None
    """Predicted rating, if there is one."""


@dataclass(frozen=True)
class Recommendations:
    """Movies, best first; iteration yields a ``Recommendation`` for each."""

    movies: Integers
    """``[N]`` ids."""
    titles: tuple[str, ...]
    """``[N]`` as released."""
    scores: npt.NDArray[np.float32]
    """``[N]`` what they are ordered by: of ``recommend`` the logarithm of a probability up to a
    constant of the user, or the predicted rating; of ``similar`` the similarity, at most 1."""
    stars: npt.NDArray[np.float32] | None = None
    """``[N]`` predicted ratings (stars, or decayed if the training target was) of recommended
    movies; None without a rating model."""
    external_ids: tuple[str, ...] | None = None
    """``[N]`` ids as the data have them, if these are texts, for which ``movies`` has numbers."""

    @property
    def ids(self) -> Sequence[int | str]:
        """``[N]`` ids as the data have them."""
        numbers: list[int | str] = self.movies.tolist()
        return numbers if self.external_ids is None else self.external_ids

    def __len__(self) -> int:
        return len(self.titles)

    def __iter__(self) -> Iterator[Recommendation]:
        stars = [None] * len(self) if self.stars is None else self.stars.tolist()
        rows = zip(self.ids, self.titles, self.scores.tolist(), stars, strict=True)
        return (Recommendation(*row) for row in rows)

    def __repr__(self) -> str:
        return f"<{len(self)} movies>\n{self.to_pandas().to_string()}"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return self.to_pandas().to_html(float_format="{:.3f}".format)

    def to_pandas(self) -> pd.DataFrame:
        """The columns movie, title, score and, with a rating model, stars; the index is the rank,
        from 1."""
        import pandas as pd

        columns = {"movie": list(self.ids), "title": list(self.titles), "score": self.scores}
        if self.stars is not None:
            columns["stars"] = self.stars
        index = pd.RangeIndex(1, len(self) + 1, name="rank")
        return pd.DataFrame(columns, index=index)


@dataclass(frozen=True)
class PredictedIntervals:
    """Predicted ratings with what is known of their errors."""

    stars: npt.NDArray[np.float32]
    """``[B]`` as of ``predict``."""
    sd: npt.NDArray[np.float32]
    """``[B]`` standard deviations of the ratings, in stars."""
    low: npt.NDArray[np.float32]
    """``[B]`` lower ends of the intervals."""
    high: npt.NDArray[np.float32]
    """``[B]`` upper ends."""

    def __len__(self) -> int:
        return len(self.stars)

    def to_pandas(self) -> pd.DataFrame:
        """The fields as columns."""
        import pandas as pd

        return pd.DataFrame(vars(self))
