"""What all command lines of the project share: help, usage errors, common options, exit codes.

Built on Click. An unknown option or command is answered with the nearest valid one, help fits into
80 columns, and options cannot be abbreviated, so that a new option never changes what an old
command line means.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import click

from foundation.spelling import nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from pydantic import BaseModel

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

_PACKAGE: Final = "movielens-ray-tune"
_WIDTH: Final = 80
_MAX_QUOTED: Final = 200
"""Characters of an unexpected exception's message that are shown."""
_SECRET: Final = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""In names of environment variables whose values must not be shown."""
_SHORTEST_SECRET: Final = 6

_ENVIRONMENT: Final = """\
environment:
  TMDB_ACCESS_TOKEN   TMDb's "API Read Access Token" (v4), or
  TMDB_API_KEY        its "API Key" (v3); without one, TMDb is left out
"""
_EXIT_CODES: Final = """\
  NO_COLOR            if set, no colours; there are none outside of a terminal

exit codes:
  0 done   1 failed   2 wrong usage or configuration   130 interrupted

Every setting that --config and --set may hold: docs/configuration.md
"""


def main(
    command: click.Command, arguments: Sequence[str] | None = None, context: object = None
) -> int:
    """Run a command; returns the exit code. SIGTERM interrupts it as Ctrl-C does.

    Args:
        command: its callback returns an exit code, or nothing for 0.
        arguments: of the command line; None takes those of the program.
        context: passed on to callbacks with ``click.pass_obj``.
    """
    try:
        with _interrupted_by_sigterm():
            code = command.main(arguments, standalone_mode=False, obj=context)
    except click.UsageError as error:
        _print_usage_error(error)
        return WRONG_USAGE
    except click.Abort:
        return INTERRUPTED
    except Exception as error:
        sys.stderr.write(f"error: {_unexpected(error)}\n")
        return FAILED
    return code if isinstance(code, int) else DONE


def _unexpected(error: Exception) -> str:
    """A paragraph on an exception that nothing has handled; its traceback goes into a file."""
    if _is_out_of_memory(error):
        return (
            f"out of memory: {_first_line(error)}. Close other programs, use a machine with more "
            "memory, or lower what is trained: train.batch_size, model.embedding_dim, "
            "model.hidden_dims, tune.max_concurrent_trials, scaling.num_workers."
        )
    what = f"{type(error).__name__}: {_first_line(error)}"
    text = _without_secrets("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="movie-ratings-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:  # a full disk, perhaps
        return f"unexpected {what}\n{text}"
    return (
        f"unexpected {what}. This is a mistake of the program: please report it with the traceback "
        f"in {file.name}. Stages of a job that were finished before are kept."
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Also what torch raises, whose class is that of many errors."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _first_line(error: Exception) -> str:
    lines = _without_secrets(str(error)).strip().splitlines()
    return lines[0][:_MAX_QUOTED].rstrip(".") if lines else "no message"


def _without_secrets(text: str) -> str:
    """The text without the values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_usage_error(error: click.UsageError) -> None:
    message = f"error: {error.format_message()}\n"
    if error.ctx is not None:
        message = f"{error.ctx.get_usage()}\n{error.ctx.command_path}: {message}"
    sys.stderr.write(message)


def enable_completion() -> None:
    """Let bash and zsh add no space after a completed ``key=``.

    Click completes for a program whose environment variable ``_<PROGRAM>_COMPLETE`` is set.
    """
    if not any(name.endswith("_COMPLETE") for name in os.environ):
        return
    from foundation import completion

    completion.register()


# -- Commands --------------------------------------------------------------------------------------


class _Documented(click.Command):
    """Help with examples, environment and exit codes; unknown options name the nearest one."""

    def __init__(
        self,
        name: str,
        purpose: str,
        *,
        examples: Sequence[str] = (),
        environment: str = "",
        params: Iterable[click.Parameter] = (),
        **options: Any,
    ) -> None:
        """Describe the command.

        Args:
            name: as it follows the name of the program.
            purpose: a sentence or two, which may be those of a docstring.
            examples: what may follow the name of the command.
            environment: further lines for the environment's part of the help.
            params: options and arguments, in the order of the help.
            options: of ``click.Command``.
        """
        super().__init__(
            name=name,
            help=" ".join(purpose.replace("``", "").split()),
            params=[*params, _version_option(), _help_option()],
            add_help_option=False,
            **({"options_metavar": "[options]"} | options),
        )
        self.context_settings = {"max_content_width": _WIDTH}
        self._examples = examples
        self._environment = environment

    def option_names(self) -> list[str]:
        """All options of the command."""
        return [name for param in self.params if not _is_argument(param) for name in param.opts]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As Click's, but an unknown option is an error that names the nearest one."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = next((a for a in given if a.startswith(error.option_name)), error.option_name)
            raise click.UsageError(self._unknown(name.partition("=")[0]), ctx) from error

    def _unknown(self, option: str) -> str:
        close = nearest(option, self.option_names())
        hint = f"did you mean {close}?" if close else "--help lists the valid ones"
        return f"unknown option {option}; {hint}"

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage line."""
        pieces = " ".join(self.collect_usage_pieces(ctx))
        formatter.write_usage(ctx.command_path, pieces, prefix="usage: ")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the whole help."""
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        # Names such as ml-latest-small stay whole.
        text = textwrap.fill(self.help or "", formatter.width, break_on_hyphens=False)
        formatter.write(f"{text}\n")
        described = [
            (param.metavar or param.name or "", param.help or "")
            for param in self.params
            if isinstance(param, click.Argument) and param.help
        ]
        if described:
            with formatter.section("arguments"):
                formatter.write_dl(described)
        records = [param.get_help_record(ctx) for param in self.params if not _is_argument(param)]
        with formatter.section("options"):
            formatter.write_dl([record for record in records if record])
        self.format_commands(ctx, formatter)
        self._format_epilog(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands, if the command has any."""

    def _format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        if self._examples:
            lines = (_shell(f"{ctx.command_path} {e}".rstrip()) for e in self._examples)
            formatter.write(f"examples:\n{''.join(lines)}\n")
        formatter.write(_ENVIRONMENT + self._environment + _EXIT_CODES)


class Command(_Documented):
    """A command without subcommands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As Click's, but a configuration that is given without ``--config`` is recognised."""
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            file = next((text for text in rest if text.endswith(".toml")), None)
            takes_one = "--config" in self.option_names()
            hint = f"; did you mean --config {file}?" if file and takes_one else ""
            raise click.UsageError(f"unexpected arguments: {' '.join(rest)}{hint}", ctx)
        return rest


class Group(_Documented, click.Group):
    """A command with subcommands, each imported when it is used or listed."""

    def __init__(
        self,
        name: str,
        purpose: str,
        modules: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Describe the group.

        Args:
            name: as it follows the name of the program.
            purpose: a sentence or two.
            modules: of subcommands by their names, in the order of the help; each holds the
                subcommand as ``command``.
            aliases: further names of subcommands, which the help leaves out.
            options: of ``click.Group``, and ``examples`` and ``environment``.
        """
        defaults: dict[str, Any] = {"subcommand_metavar": "COMMAND ...", "no_args_is_help": False}
        super().__init__(name, purpose, **(defaults | options))
        self._modules = dict(modules or {})
        self._aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the subcommands, in the order of the help."""
        return [*self._modules, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of that name, imported if need be; None if there is none."""
        name = self._aliases.get(cmd_name, cmd_name)
        if name not in self._modules:
            return super().get_command(ctx, name)
        command: click.Command = importlib.import_module(self._modules[name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click's, but an unknown command is an error that names the nearest one."""
        names = self.list_commands(ctx)
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            close = nearest(args[0], names)
            hint = f"did you mean {close}?" if close else f"expected one of {', '.join(names)}"
            raise click.UsageError(f"unknown command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands with what they do."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            aliases = [alias for alias, meant in self._aliases.items() if meant == name]
            names = f"{name} ({', '.join(aliases)})" if aliases else name
            rows.append((names, (command.short_help or command.help or "") if command else ""))
        with formatter.section("commands"):
            formatter.write_dl(rows)

    def _unknown(self, option: str) -> str:
        context = click.Context(self)
        for name in self.list_commands(context):
            command = self.get_command(context, name)
            if isinstance(command, _Documented) and option in command.option_names():
                return f"options follow the command: COMMAND {option} ..."
        return super()._unknown(option)


def _is_argument(param: click.Parameter) -> bool:
    return isinstance(param, click.Argument)


def _shell(command: str) -> str:
    """A command line, indented, continued where an option would not fit."""
    lines = [""]
    for part in re.split(" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) + len("   \\") > _WIDTH:
            lines.append("     ")
        lines[-1] += f" {part}"
    return " " + " \\\n".join(lines) + "\n"


# -- Options and arguments -------------------------------------------------------------------------


class PositiveInt(click.ParamType[int]):
    """A whole number above 0."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the number."""
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is not a whole number above 0", param, ctx)
        return int(value)


class _Override(click.ParamType[str]):
    """``key=value``, completed with the keys of a configuration."""

    name = "key=value"

    def __init__(self, settings: Callable[[], type[BaseModel]]) -> None:
        self._settings = settings

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Keys that begin with what has been typed."""
        from click.shell_completion import CompletionItem

        from foundation.config import keys

        matching = (key for key in keys(self._settings()) if key.startswith(incomplete))
        return [CompletionItem(f"{key}=") for key in matching]


def config_options(
    settings: Callable[[], type[BaseModel]], example: str, remark: str = ""
) -> tuple[click.Option, click.Option]:
    """``--config``, as ``config_files``, and ``--set``, as ``overrides``.

    Args:
        settings: loads the class of the configuration, to complete its keys.
        example: of a setting.
        remark: follows the description of ``--config``.
    """
    config = click.Option(
        ["--config", "config_files"],
        metavar="FILE",
        multiple=True,
        type=click.Path(),
        help="configuration, TOML; may be given many times, later files taking precedence" + remark,
    )
    override = click.Option(
        ["--set", "overrides"],
        metavar="KEY=VALUE",
        multiple=True,
        type=_Override(settings),
        help=f"change one setting, such as {example}; may be given many times",
    )
    return config, override


def _version_option() -> click.Option:
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="print the version and exit",
    )


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Look the version up only now: code that a Ray job brings is not installed."""
    if not value or ctx.resilient_parsing:
        return
    try:
        found = version(_PACKAGE)
    except PackageNotFoundError:
        found = "(not installed)"
    sys.stdout.write(f"{_PACKAGE} {found}\n")
    ctx.exit()


def _help_option() -> click.Option:
    return click.Option(
        ["-h", "--help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_help,
        help="print this help and exit",
    )


def _print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        sys.stdout.write(f"{ctx.get_help()}\n")
        ctx.exit()
