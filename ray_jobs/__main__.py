"""List the commands."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from foundation.cli import DONE, Parser, nearest

_FIRST: Final = ("pipeline", "preprocess", "tune", "compare", "train", "recommend", "predict")
"""Commands in the order of their work; the others follow by their names."""


def commands() -> dict[str, str]:
    """What each ``python -m ray_jobs.NAME`` is for, without importing any: that takes seconds."""
    found = {}
    folder = Path(__file__).parent
    for file in (*folder.glob("*.py"), *folder.glob("*/__main__.py")):
        source = file.read_text(encoding="utf-8")
        name = file.stem if file.parent == folder else file.parent.name
        if 'if __name__ == "__main__":' in source and name != "__main__":
            described = ast.get_docstring(ast.parse(source)) or ""
            found[name] = " ".join(described.partition("\n\n")[0].replace("``", "").split())
    order = {name: place for place, name in enumerate(_FIRST)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    found = commands()
    parser = Parser(
        "python -m ray_jobs",
        "Movie ratings on Ray: python -m with one of the commands, each of which has its --help.",
    )
    if given and not given[0].startswith("-"):
        meant = nearest(given[0], found) or next(iter(found))
        parser.error(f"commands are modules: did you mean python -m ray_jobs.{meant}?")
    group = parser.add_argument_group("commands")
    for name, purpose in found.items():
        group.add_argument(f"ray_jobs.{name}", nargs="?", help=purpose)
    parser.usage = "python -m ray_jobs.COMMAND [options]"
    parser.parse_args(given)
    parser.print_help()
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())
