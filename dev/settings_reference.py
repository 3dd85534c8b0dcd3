"""Write docs/configuration.md: every setting with its type, default, range and meaning.

It is generated from the classes that validate a configuration, through pydantic's JSON schema, so
that it cannot differ from the code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from foundation import cli
from foundation.cli import DONE, FAILED, Command
from foundation.config import Section
from foundation.console import print_error
from ray_jobs.config import Dimension, JobConfig

Schema = Mapping[str, Any]

_HEAD: Final = """\
# Settings

Written by `make docs` from [foundation/config.py](../foundation/config.py),
[ncf/config.py](../ncf/config.py) and [ray_jobs/config.py](../ray_jobs/config.py), where they are
validated. Every setting has a default; a TOML file overrides settings, and `--set` overrides single
settings of the file:

```
movie-ratings run --config configs/quickstart.toml --set train.epochs=9
```

A value is written as in TOML (`3`, `true`, `[64, 32]`, `{a = 1}`); anything else is read as
text, so `--set train.loss=l1` needs no quotes, but `--set 'name="2024"'` does. Unknown keys and
values out of range end the command with exit code 2 and a message with the valid ones.
"""

_RANGES: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
_TYPES: Final = {"integer": "whole number", "number": "number", "string": "text"}


def reference() -> str:
    """The page, as Markdown."""
    schema = JobConfig.model_json_schema()
    return "\n".join([_HEAD, *_section("", schema, schema["$defs"])])


def _section(name: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    """A section's heading, description and table, then its subsections.

    A section of the whole job that is part of another section too is not repeated there.
    """
    titles = {section.__name__ for section in _sections_of_the_job()}
    if name:
        yield f"## `[{name}]`\n\n{_prose(schema['description'])}\n"
    values, sections = [], []
    for key, field in schema["properties"].items():
        path = f"{name}.{key}" if name else key
        inner, place = _inner(path, field, definitions)
        if inner:
            sections.append((place, inner))
        if not inner or "description" in field:
            values.append((path, field))
    if not name:
        yield "## The whole job\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    required = schema.get("required", ())
    for path, field in values:
        cells = (
            f"`{path}`",
            _type(field, definitions),
            "required" if path.rpartition(".")[2] in required else _default(field),
            _prose(field.get("description", "")),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    for path, field in values:
        if field.get("type") == "object" and field.get("default"):
            yield f"`{path}` is by default:\n\n```toml\n[{path}]\n{_toml(field['default'])}```\n"
    for place, inner in sections:
        if not name or inner["title"] not in titles:
            yield from _section(place, inner, definitions)


def _sections_of_the_job() -> Iterator[type]:
    for field in JobConfig.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield field.annotation


def _inner(path: str, field: Schema, definitions: Schema) -> tuple[Schema | None, str]:
    """The section that a field holds, if any, and the name of its table."""
    tables = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
    for part in (field, *field.get("anyOf", ()), *(t for t in tables if isinstance(t, dict))):
        if "$ref" in part:
            found: Schema = definitions[part["$ref"].rpartition("/")[2]]
            in_table = part is not field and part not in field.get("anyOf", ())
            return found, f"{path}.NAME" if in_table else path
    return None, path


def _type(field: Schema, definitions: Schema) -> str:
    """The values of a field, in words."""
    if "enum" in field:
        return ", ".join(map(_code, field["enum"]))
    if "const" in field:
        return _code(field["const"])
    if "anyOf" in field:
        kinds = dict.fromkeys(_type(part, definitions) for part in field["anyOf"])
        return " or ".join(kinds)
    if "$ref" in field or field.get("type") == "object":
        return "table"
    if field["type"] == "null":
        return "left out"
    if field["type"] == "array":
        if "prefixItems" in field:
            return f"{len(field['prefixItems'])} of: {_type(field['prefixItems'][0], definitions)}"
        number = field.get("minItems", 0)
        least = {0: "list", 1: "one or more"}.get(number, f"{number} or more")
        return f"{least} of: {_type(field['items'], definitions)}"
    if field["type"] == "boolean":
        return "`true`, `false`"
    kind = "date" if field.get("format") == "date" else _TYPES[field["type"]]
    limits = [text.format(f"{field[key]:,}") for key, text in _RANGES.items() if key in field]
    if "pattern" in field:
        limits.append(f"like {_code(field['pattern'], quoted=False)}")
    return ", ".join([kind, *limits])


def _default(field: Schema) -> str:
    value = field.get("default")
    if "$ref" in field or field.get("type") == "object":
        return "below" if value else "none"
    return "none" if value is None else _code(value)


def _code(value: Any, *, quoted: bool = True) -> str:
    text = json.dumps(value) if quoted else str(value)
    return f"`{text.replace('|', chr(92) + '|')}`"


def _toml(values: Mapping[str, Mapping[str, Any]]) -> str:
    """The default search space, one inline table a line, without values that are defaults."""
    lines = []
    for key, table in values.items():
        dimension = Dimension.model_validate(table).model_dump(mode="json", exclude_defaults=True)
        inner = ", ".join(f"{name} = {json.dumps(value)}" for name, value in dimension.items())
        lines.append(f'"{key}" = {{ {inner} }}\n')
    return "".join(lines)


def _prose(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|").replace("<", "&lt;")


def _write(out: Path | None) -> int:
    """Write the page; the exit code."""
    if out is None:
        sys.stdout.write(reference())
        return DONE
    try:
        out.write_text(reference(), encoding="utf-8")
    except OSError as error:
        print_error(f"cannot write {out}: {error.strerror}")
        return FAILED
    return DONE


command: Final = Command(
    "settings_reference",
    (__doc__ or "").partition("\n\n")[0],
    params=[
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="a file instead of the terminal",
        )
    ],
    callback=_write,
    examples=("", "--out FILE"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return cli.main(command, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
