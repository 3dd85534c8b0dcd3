"""Compare a file of weights with the model that is to take them, before either takes memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch.nn import init
from torch.overrides import TorchFunctionMode

_MAX_NAMED: Final = 3
_FILLING: Final = frozenset(
    {
        *(getattr(init, name) for name in dir(init) if name.endswith("_") and name[0] != "_"),
        *(torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_),
    }
)
"""Functions that fill a tensor, their first argument."""
_OF_DATA: Final = frozenset({torch.tensor, torch.linspace, torch.arange})
"""Functions whose tensors are computed with, and no larger than what is in memory already."""
_SCALING: Final = frozenset(
    {torch.Tensor.__mul__, torch.Tensor.__rmul__, torch.Tensor.mul, torch.Tensor.mul_, torch.mul}
)
_DRAWING: Final = frozenset({torch.randn, torch.rand, torch.zeros, torch.ones})


def check_shapes(build: Callable[[], torch.nn.Module], file: Path) -> None:
    """Check that ``file`` has the tensors of the module that ``build`` makes, in their shapes.

    Raises:
        ValueError: naming tensors that differ.
        SafetensorError: if the file cannot be read.
    """
    try:
        with torch.device("meta"), _WithoutValues():
            expected = {name: tuple(t.shape) for name, t in build().state_dict().items()}
    except (NotImplementedError, RuntimeError):
        return  # a module whose constructor needs the values of tensors, which these have not
    with safe_open(file, framework="pt") as opened:
        names = opened.keys()
        found = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    different = [
        f"{name} ({_shown(found.get(name))} instead of {_shown(expected.get(name))})"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]
    if different:
        raise ValueError(
            f"the state_dict in {file.name} is not that of the configured model: "
            f"{', '.join(different[:_MAX_NAMED])}"
            + (f" and {len(different) - _MAX_NAMED} more" if len(different) > _MAX_NAMED else "")
        )


class _WithoutValues(TorchFunctionMode):
    """Leaves out initial values, which tensors on the device meta do not have.

    PyTorch would import its compiler for them, which takes longer than reading a small model.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """An empty tensor instead of one with values, and a tensor as it is instead of filled."""
        options = dict(kwargs or {})
        if func in _FILLING or (func in _SCALING and not isinstance(args[1], torch.Tensor)):
            return args[0] if args else options["tensor"]
        if func in _OF_DATA:
            options.setdefault("device", "cpu")
        if func is torch.full:
            return torch.empty(args[0])
        if func in _DRAWING:
            options.pop("generator", None)
            return torch.empty(*args, **options)
        return func(*args, **options)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape)) or "a number"
