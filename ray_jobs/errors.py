"""Everything that ``ray_jobs`` raises on purpose.

::

    JobError                 the root: catch this one
    ├── ResourceError        the cluster cannot be reached or is too small
    ├── ClusterError         nodes cannot work together, or ``doctor`` found a fault
    ├── NoModelError         a trained model is needed and there is none
    ├── TrainingError        a training run or every trial of a search failed
    └── ServingError         the page cannot be served
"""

from __future__ import annotations

from foundation.errors import MovieRatingsError


class JobError(MovieRatingsError):
    """Root of every error that ``ray_jobs`` raises on purpose."""


class ResourceError(JobError):
    """The cluster cannot be reached or is too small for what was asked."""


class ClusterError(JobError):
    """Nodes have other versions or no common storage, or ``doctor`` found a fault."""


class NoModelError(JobError):
    """A trained model is needed and there is none."""


class NoRunError(JobError):
    """There is no run of this name, or none at all."""


class TrainingError(JobError):
    """A training run, or every trial of a search, failed."""


class ServingError(JobError):
    """The page cannot be served: a package is missing, a port is taken, or Ray Serve failed."""
