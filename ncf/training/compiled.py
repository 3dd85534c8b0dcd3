"""Several training steps compiled into one function: forward, gradient and AdamW in one graph.

The result is that of single steps up to the order of additions, with the same dropout masks. At
batches of some tens of rows, a step is mostly the overhead of about a hundred small operations; a
compiled one has only a few.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import torch
from torch import nn
from torch.func import functional_call, grad

from ncf.config import TrainConfig
from ncf.data.batches import TrainingBatch
from ncf.models.ncf import NCF
from ncf.training.losses import get_loss
from ncf.training.optimizer import AdamW, parts

UNROLLED: Final = 4
"""Steps in one call. More are a little faster; the time to compile is about proportional."""
WORTHWHILE_STEPS: Final = 50_000
"""Steps of a run from which compiling saves time, also without a cache: it takes 15 to 20 seconds
and saves 0.3 milliseconds a step, and on a slower machine both take longer."""


def obstacle(network: NCF) -> str | None:
    """Why steps of this network cannot be compiled here, or None."""
    if network.uses_history:
        return "a model that learns from the user's other ratings is not compiled"
    if network.config.normalization == "batch":
        return "batch normalisation is not compiled"
    if next(network.parameters()).device.type != "cpu":
        return "steps are compiled for the CPU only"
    return _missing_tool()


def _missing_tool() -> str | None:
    """Which tool to compile with is missing, or None."""
    # Importing these takes a second.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler, such as g++"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the headers of Python are not installed"
    return None


def cache_folder(environ: Mapping[str, str]) -> str:
    """Folder in which compiled steps are cached between runs; it belongs to the user."""
    if chosen := environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return chosen
    home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(home, "ncf", "torchinductor"))


class CompiledSteps:
    """Takes ``UNROLLED`` steps in one call; the first call compiles them, or reads the cache."""

    def __init__(
        self,
        network: NCF,
        optimizer: AdamW,
        config: TrainConfig,
        l2_penalties: Sequence[tuple[torch.Tensor, float]],
    ) -> None:
        """``l2_penalties`` are parameters with the factors by which they are added to the gradient.

        The network's parameters become views of one tensor.
        """
        self.num_steps = UNROLLED
        """Steps of a call."""
        self.num_rows = UNROLLED * config.batch_size
        """Rows that a call takes."""
        self._network = network
        self._loss = get_loss(config.loss)
        self.config = config
        self.optimizer = optimizer
        self._names = [name for name, _ in network.named_parameters()]
        self.parameters = list(network.parameters())
        strengths = {id(table): strength for table, strength in l2_penalties}
        self._is_penalised = [id(p) in strengths for p in self.parameters]
        # A tensor, so that trials with other penalties use the same compiled code.
        self._strengths = torch.tensor([strengths.get(id(p), 0.0) for p in self.parameters])
        self._values = _flattened(self.parameters)
        self._steps = _compile(_copy_of(_take_steps))

    @torch.no_grad()
    def __call__(self, rows: TrainingBatch, rates: Sequence[float]) -> torch.Tensor:
        """Take a step on each batch of ``rows`` at the rates; returns the sum of losses."""
        group = self.optimizer.param_groups[0]
        first, second = group["betas"]
        done = int(self.optimizer.steps[0])
        # [steps, 3]: factor of weight decay, step size, and 1 / the correction of the squares.
        factors = torch.tensor(
            [
                [
                    1 - rate * group["weight_decay"],
                    rate / (1 - first**number),
                    (1 - second**number) ** -0.5,
                ]
                for number, rate in enumerate(rates, done + 1)
            ]
        )
        self.optimizer.steps += len(rates)
        # Moments of rarely seen entities shrink to denormal numbers, which processors are slow at;
        # as zeros they change no weight.
        torch.set_flush_denormal(True)
        try:
            return self._steps(
                self,
                self._values,
                self.optimizer.means,
                self.optimizer.squares,
                factors,
                self._strengths,
                rows.users,
                rows.movies,
                rows.times,
                rows.targets,
                rows.loss_weights,
            )
        finally:
            torch.set_flush_denormal(False)

    def gradient(
        self, values: list[torch.Tensor], strengths: torch.Tensor, batch: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``[N]`` gradient of the mean loss with its L2 penalty, and the sum of losses."""

        def loss_of(values: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            users, movies, times, targets, weights = batch
            named = dict(zip(self._names, values, strict=True))
            outputs = functional_call(self._network, named, (users, movies, times))
            total = self._loss.of_network(self._network, outputs, targets, weights)
            return total * (1 / self.config.batch_size), total

        gradients, total = grad(loss_of, has_aux=True)(values)
        penalised = [
            (gradient + strength * value if is_penalised else gradient).reshape(-1)
            for gradient, value, strength, is_penalised in zip(
                gradients, values, strengths, self._is_penalised, strict=True
            )
        ]
        return torch.cat(penalised), total


def _take_steps(
    steps: CompiledSteps,
    values: torch.Tensor,
    means: torch.Tensor,
    squares: torch.Tensor,
    factors: torch.Tensor,
    strengths: torch.Tensor,
    *columns: torch.Tensor,
) -> torch.Tensor:
    """The compiled function; changes ``values``, ``means`` and ``squares``, ``[N]`` each."""
    group = steps.optimizer.param_groups[0]
    first, second = group["betas"]
    size = steps.config.batch_size
    total = torch.zeros(())
    for number in range(steps.num_steps):
        batch = [column[number * size : (number + 1) * size] for column in columns]
        decay, rate, correction = factors[number, 0], factors[number, 1], factors[number, 2]
        gradient, loss = steps.gradient(parts(values, steps.parameters), strengths, batch)
        if group["weight_decay"]:
            values.mul_(decay)
        means.lerp_(gradient, 1 - first)
        squares.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        values.sub_(rate * means / (squares.sqrt() * correction + group["eps"]))
        total = total + loss
    return total


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    # The environment is the only way to tell torch the folder.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache_folder(os.environ)
    compiled: Callable[..., Any] = torch.compile(
        function,
        fullgraph=True,
        dynamic=False,
        # The wrapper in C++ is 1.2 times as fast. With eager dropout, results do not depend on
        # whether steps are compiled. Guards are skipped because calls differ in their tensors only,
        # and checking them takes 22 microseconds of the 135 of a step.
        options={
            "cpp_wrapper": True,
            "fallback_random": True,
            "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        },
    )
    return compiled


def _copy_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with a code object of its own, so that torch compiles it again.

    Otherwise a model would use the code compiled for another, as guards are skipped.
    """
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__)


def _flattened(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """``[N]`` all parameters in one tensor, whose memory they share from now on."""
    values = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, view in zip(parameters, parts(values, parameters), strict=True):
        parameter.data = view
    return values
