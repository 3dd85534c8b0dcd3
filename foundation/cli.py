"""What every command line of the project has in common: its parser, and the ends of its help.

An unknown option is told with the nearest valid one, help fits into 80 columns, and options cannot
be abbreviated, so that a new one never changes what an old command line means.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

_PACKAGE: Final = "movielens-ray-tune"
_WIDTH: Final = 80

_NUMBER: Final = re.compile(r"-\.?\d")

_ENVIRONMENT: Final = """\
environment:
  TMDB_ACCESS_TOKEN   TMDb's "API Read Access Token" (v4), or
  TMDB_API_KEY        its "API Key" (v3); without one, TMDb is left out
"""
_ENDS: Final = """\
  NO_COLOR            if set, no colours; there are none outside of a terminal

exit codes:
  0 done   1 failed   2 wrong usage or configuration   130 interrupted

Every setting that --config and --set may hold: docs/configuration.md
"""


class Parser(argparse.ArgumentParser):
    """argparse's parser with what the module describes.

    Args:
        prog: the command as a user writes it, such as ``python -m ingest``.
        purpose: a sentence or two, which may be those of a docstring.
        examples: what may stand after ``prog``.
        environment: further lines for the environment's part of the help.
        options: of argparse's parser.
    """

    def __init__(
        self,
        prog: str,
        purpose: str = "",
        examples: Sequence[str] = (),
        environment: str = "",
        **options: Any,
    ) -> None:
        lines = "".join(_shell(f"{prog} {example}".rstrip()) for example in examples)
        super().__init__(
            prog=prog,
            description=" ".join(purpose.replace("``", "").split()),
            epilog=(f"examples:\n{lines}\n" if lines else "") + _ENVIRONMENT + environment + _ENDS,
            formatter_class=_Formatter,
            allow_abbrev=False,
            **options,
        )
        self.add_argument("--version", action=_Version, help="print the version and stop")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an unknown option is an error that names the nearest one."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:
            for text in given[: given.index("--") if "--" in given else None]:
                self._refuse_unknown(text)
        elif given:  # what comes after it may be options of a command
            self._refuse_unknown(given[0])
        return super().parse_known_args(given, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a configuration without ``--config`` is told so."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            file = next((text for text in rest if text.endswith(".toml")), None)
            takes_one = "--config" in {*self._option_string_actions, *self._options_of_commands()}
            hint = f"; did you mean --config {file}?" if file and takes_one else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return parsed

    def _options_of_commands(self) -> set[str]:
        return {
            name
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for command in action.choices.values()
            for name in command._option_string_actions
        }

    def _refuse_unknown(self, text: str) -> None:
        name = text.partition("=")[0]
        if name in self._option_string_actions or not name.startswith("-") or name == "-":
            return
        # As argparse has it, what holds a space or is a number below zero is no option.
        if " " in text or _NUMBER.match(text):
            return
        if name in self._options_of_commands():
            self.error(f"options follow the command: {self.prog} COMMAND {name} ...")
        close = nearest(name, self._option_string_actions)
        hint = f"did you mean {close}?" if close else "--help lists those there are"
        self.error(f"unknown option {name}; {hint}")


def _shell(command: str) -> str:
    """A command line, indented, continued where an option would not fit."""
    lines = [""]
    for part in re.split(" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) + len("   \\") > _WIDTH:
            lines.append("     ")
        lines[-1] += f" {part}"
    return " " + " \\\n".join(lines) + "\n"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of at most 80 columns, on any terminal and in a file."""

    def __init__(self, prog: str, **options: Any) -> None:
        columns = min(_WIDTH, shutil.get_terminal_size().columns)
        super().__init__(prog, **({"max_help_position": 26, "width": columns} | options))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Lists are kept as they are, prose is filled.
        return "\n\n".join(
            super(_Formatter, self)._fill_text(part, width, indent)
            if "\n" in part
            else textwrap.fill(
                " ".join(part.split()),
                width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,  # ml-1m and --set are easier to copy from one line
            )
            for part in text.strip().split("\n\n")
        )


class _Version(argparse.Action):
    """Looks the version up when it is asked for: code that a Ray job brings is not installed."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            found = version(_PACKAGE)
        except PackageNotFoundError:
            found = "(not installed)"
        sys.stdout.write(f"{_PACKAGE} {found}\n")
        parser.exit(DONE)


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that somebody who wrote ``word`` may have meant."""
    return next(iter(difflib.get_close_matches(word, list(valid), n=1)), None)


def positive(text: str) -> int:
    """A whole number above 0, as the ``type`` of an option."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
