"""Compare a file of weights with the model that is to take them, before either takes memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open

_MAX_NAMED: Final = 3


def check_shapes(build: Callable[[], torch.nn.Module], file: Path) -> None:
    """Check that ``file`` has the tensors of the module that ``build`` makes, in their shapes.

    Raises:
        ValueError: naming tensors that differ.
        SafetensorError: if the file cannot be read.
    """
    try:
        with torch.device("meta"):
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


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape)) or "a number"
