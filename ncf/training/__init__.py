"""The training loop: losses, optimiser, learning-rate schedules, compiled steps, and the state from
which an interrupted training continues. May import ``ncf.evaluation`` and below; ``ncf.baselines``
and ``ncf.inference`` are its siblings and are not imported."""

__all__ = [
    "compiled",
    "loop",
    "losses",
    "optimizer",
    "parallel",
    "schedules",
    "state",
    "trainer",
]
