"""The true probabilities of choices, which no ranking can be expected to beat."""

from __future__ import annotations

import numpy as np

from ingest.config import SyntheticConfig
from ingest.sources.synthetic.data import SyntheticData
from ingest.sources.synthetic.world import Floats, Ints


def choice_oracle(config: SyntheticConfig, user_ids: Ints | None = None) -> Floats:
    """Logarithms of the true probabilities of a user's choices, from the seed alone.

    They are those of a choice in any of the user's sessions, whatever the user knows already.
    Ordering the movies that a user does not know by them is the best ranking to be expected on
    held-out ratings that were drawn at random. On the newest ones, a ranking that knows their
    times may be better.

    Args:
        config: of the data set.
        user_ids: ``[U]`` in ascending order, to compute large data sets in parts; None for all.

    Returns:
        ``[U, M]``, rows and columns in the order of ids; the exponentials of a row add up to 1.

    Raises:
        ConfigError: if the configuration cannot be met.
    """
    data = SyntheticData.generate(config)
    wanted = np.arange(config.num_users) if user_ids is None else user_ids - 1
    rows = [np.empty((0, config.num_movies))]
    for _, _, choices in data.chunks():
        part = np.flatnonzero(np.isin(choices.users, wanted))
        rows += [choices.log_probabilities(block) for block in choices.blocks(part)]
    return np.concatenate(rows)
