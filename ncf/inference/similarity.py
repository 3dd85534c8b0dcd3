"""How similar movies are to a model."""

from __future__ import annotations

import torch

from ncf.errors import UnsupportedError
from ncf.models.ncf import NCF


def similarities(network: NCF, movie: int, num_movies: int) -> torch.Tensor:
    """``[M]`` similarity of every movie to the one at position ``movie``, at most 1.

    Raises:
        UnsupportedError: if the network has no vectors of movies.
    """
    one, movies = torch.tensor([movie]), torch.arange(num_movies)
    if network.gaussian_process is not None:
        return network.gaussian_process.kernel.similarity(one, movies)[0]
    vectors = movie_vectors(network, movies)
    # A movie whose inputs are all unknown has the zero vector, and a similarity of 0.
    return torch.nn.functional.cosine_similarity(vectors[one], vectors)


def movie_vectors(network: NCF, movies: torch.Tensor) -> torch.Tensor:
    """Vectors of the matrix factorisation, or else of the branches: ``[M] -> [M, D]``.

    Raises:
        UnsupportedError: if the network has neither.
    """
    if network.gmf is not None:
        return network.gmf.movies(movies) * network.gmf.output.weight
    unknown = torch.zeros_like(movies)
    vectors = [
        branch(unknown, movies, None)
        for branch in network.inputs.values()
        if branch.depends_on == "movie" and not branch.uses_time
    ]
    if not vectors:
        raise UnsupportedError(
            "this model has no vectors of movies to compare; model.inputs or model.gmf_dim adds "
            "some"
        )
    return torch.cat(vectors, dim=1)
