"""torch's fused AdamW with less overhead, which dominates the steps of a small model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class AdamW(torch.optim.AdamW):
    """The same arithmetic; the moments of all parameters are views of one tensor each."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float
    ) -> None:
        """All parameters must be float32 and on one device."""
        super().__init__(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self._parameters: list[torch.Tensor] = list(parameters)
        device = parameters[0].device
        count = sum(p.numel() for p in parameters)
        self.means = torch.zeros(count, device=device)
        """``[N]`` running means of the gradient of all parameters."""
        self.squares = torch.zeros(count, device=device)
        """``[N]`` running means of the squared gradient."""
        self.steps = torch.zeros(len(parameters), device=device)
        """``[P]`` steps that each parameter has taken."""
        self._mean_of = parts(self.means, parameters)
        self._square_of = parts(self.squares, parameters)
        self._step_of = list(self.steps)
        for parameter, mean, square, step in zip(
            parameters, self._mean_of, self._square_of, self._step_of, strict=True
        ):
            self.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}

    @property
    def moments(self) -> dict[str, torch.Tensor]:
        """The state of the optimiser, by name; may be changed in place."""
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self.param_groups[0]["lr"] = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, without torch's search for them."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step without hooks and without collecting state; ``closure`` is not supported."""
        assert closure is None
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if len(gradients) < len(self._parameters):
            super().step()  # which leaves parameters without a gradient as they are
            return
        group = self.param_groups[0]
        self.steps += 1
        torch._fused_adamw_(
            self._parameters,
            gradients,
            self._mean_of,
            self._square_of,
            [],
            self._step_of,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    # Otherwise torch wraps the method with hooks, which take longer than a small step.
    step.hooked = True  # type: ignore[attr-defined]


def parts(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``flat: [N]`` cut into views with the shapes of ``like``."""
    pieces = flat.split([tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
