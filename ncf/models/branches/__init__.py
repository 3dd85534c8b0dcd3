"""Branches of the network: each turns users, movies and times ``[B]`` into one vector ``[B, D]``.

A branch is a subclass of ``base.Branch`` and a line in ``ncf.registry.BRANCHES``.
"""

__all__ = [
    "base",
    "content",
    "entities",
    "times",
]
