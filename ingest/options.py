"""Options of the command line that commands of several packages have."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from ingest.config import ColumnsConfig

_EXAMPLE: Final = "user=customer_id,item=sku,rating=score,time=date"


class _Columns(click.ParamType[tuple[tuple[str, str], ...]]):
    """``meaning=column,...`` as pairs."""

    name = "columns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, str], ...]:
        """Each meaning and its column."""
        if isinstance(value, tuple):
            return value
        meanings = list(ColumnsConfig.model_fields)
        found = []
        for part in value.split(","):
            meaning, equals, column = (text.strip() for text in part.partition("="))
            if not equals or not column or meaning not in meanings:
                self.fail(
                    f"{part!r} is not MEANING=COLUMN; meanings are {', '.join(meanings)}: "
                    f"{_EXAMPLE}",
                    param,
                    ctx,
                )
            found.append((meaning, column))
        return tuple(found)


def _overrides(
    ctx: click.Context, param: click.Parameter, value: tuple[tuple[tuple[str, str], ...], ...]
) -> tuple[str, ...]:
    """All columns that are named, as ``--set`` takes them.

    Raises:
        click.BadParameter: if a meaning is given twice.
    """
    found: dict[str, str] = {}
    for meaning, column in (pair for given in value for pair in given):
        if meaning in found:
            raise click.BadParameter(f"{meaning} is given twice", ctx, param)
        found[meaning] = column
    return tuple(f"data.columns.{each}={json.dumps(name)}" for each, name in found.items())


def quiet_option() -> click.Option:
    """``--quiet``."""
    return click.Option(
        ["--quiet", "-q"], is_flag=True, help="print answers, warnings and errors, but no progress"
    )


def columns_option() -> click.Option:
    """``--columns``, as overrides in ``columns``."""
    return click.Option(
        ["--columns"],
        type=_Columns(),
        multiple=True,
        callback=_overrides,
        metavar="MEANING=COLUMN,...",
        help=f"columns of a table of your own, such as {_EXAMPLE}",
    )
