"""Options of the command line that describe data."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from ingest.config import ColumnsConfig

_EXAMPLE: Final = "user=customer_id,item=sku,rating=score,time=date"


class _Columns(click.ParamType[tuple[str, ...]]):
    """``meaning=column,...`` as overrides of the settings ``data.columns``."""

    name = "columns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The settings, as ``--set`` takes them."""
        if isinstance(value, tuple):
            return value
        meanings = list(ColumnsConfig.model_fields)
        found: dict[str, str] = {}
        for part in value.split(","):
            meaning, equals, column = (text.strip() for text in part.partition("="))
            if not equals or not column or meaning not in meanings:
                self.fail(
                    f"{part!r} is not MEANING=COLUMN; meanings are {', '.join(meanings)}: "
                    f"{_EXAMPLE}",
                    param,
                    ctx,
                )
            if meaning in found:
                self.fail(f"{meaning} is given twice", param, ctx)
            found[meaning] = column
        return tuple(f"data.columns.{each}={json.dumps(name)}" for each, name in found.items())


def columns_option() -> click.Option:
    """``--columns``, as overrides in ``columns``."""
    return click.Option(
        ["--columns"],
        type=_Columns(),
        default=(),
        metavar="MEANING=COLUMN,...",
        help=f"columns of a table of your own, such as {_EXAMPLE}",
    )
