"""The training loops of rating and choice models: losses, optimiser, learning-rate schedules,
compiled steps, and the state from which interrupted training continues. May import
``ncf.evaluation`` and below, but not its siblings ``ncf.baselines`` and ``ncf.inference``."""

__all__ = [
    "choice",
    "compiled",
    "loop",
    "losses",
    "optimizer",
    "parallel",
    "random_state",
    "schedules",
    "state",
    "trainer",
]
