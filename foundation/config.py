"""Configuration files: TOML with ``extends``, ``--set`` overrides, validation and error
messages."""

from __future__ import annotations

import os
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, get_args, get_origin

from annotated_types import Le, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from foundation.errors import ConfigError, shortened, without_secrets
from foundation.spelling import nearest


def _usable_path(text: str) -> str:
    """A path of this machine, or a URI.

    Raises:
        ValueError: if no file can have it.
    """
    if "://" in text or not text:
        return text
    try:
        found = Path(text).expanduser()
        os.fsencode(found)
    except (RuntimeError, ValueError) as error:  # an unknown user's home; no UTF-8
        raise ValueError(f"no file can have this path: {error}") from error
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("it holds control characters, as no path of this program may")
    if len(str(found)) > _LONGEST_PATH or any(len(os.fsencode(p)) > 255 for p in found.parts):
        raise ValueError("no file can have this path: it is too long")
    return text


UsablePath = Annotated[str, AfterValidator(_usable_path)]
"""A path that a file can have, or a URI."""
_LONGEST_PATH: Final = 4_000

LARGEST: Final = 1_000_000_000
"""Largest whole number of a setting without a limit of its own."""


class Section(BaseModel):
    """Base of every configuration section: immutable, validated, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions and their present names; refused, with the present name."""
    renamed_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """By key, values of earlier versions and their present names; refused likewise."""

    @model_validator(mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, values: Any) -> Any:
        """Refuse true for a number, which pydantic takes as 1."""
        if isinstance(values, Mapping):
            for name, field in cls.model_fields.items():
                given = values.get(name)
                parts = given if isinstance(given, list | tuple) else (given,)
                kinds = set(_leaves(field.annotation))
                is_number = bool(kinds & {int, float}) and bool not in kinds
                if is_number and any(isinstance(part, bool) for part in parts):
                    raise ValueError(f"{name} = {str(given).lower()}, expected a number")
        return values

    @model_validator(mode="after")
    def _numbers_are_not_absurd(self) -> Self:
        """Refuse what no machine has; fields with a limit of their own are left to that."""
        for name, field in type(self).model_fields.items():
            noted = (*field.metadata, *_limits(field.annotation))
            if any(isinstance(limit, Le | Lt) for limit in noted):
                continue
            for number in _whole_numbers(getattr(self, name)):
                if abs(number) > LARGEST:
                    found = shortened(_repr(number))
                    raise ValueError(f"{name} = {found}, expected at most {LARGEST:,}")
        return self


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that a field may hold, also in lists; True and False of a literal count as bool."""
    if get_origin(annotation) is Literal:
        yield from (type(value) for value in get_args(annotation))
    elif args := get_args(annotation):
        for part in args:
            yield from _leaves(part)
    else:
        yield annotation


def _limits(annotation: Any) -> Iterator[Any]:
    """What is noted about the types inside of another one."""
    for part in get_args(annotation):
        if get_origin(part) is Annotated:
            noted = part.__metadata__[0]
            yield from getattr(noted, "metadata", (noted,))
        yield from _limits(part)


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, tuple):
        for part in value:
            yield from _whole_numbers(part)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


_MAX_PROBLEMS: Final = 20
"""Wrong settings that a message lists."""
_MAX_LINE: Final = 1_000
"""Characters that a message has for each: some list all valid keys."""

Settings = TypeVar("Settings", bound=BaseModel)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: if it is missing or not TOML.
    """
    try:
        # Windows' editor begins files with a byte order mark.
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        close = nearest(str(path), map(str, Path(path).parent.glob("*.toml")))
        hint = f". Did you mean {close}?" if close else ""
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}{hint}"
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # also NULs in paths, and endless numbers
        raise ConfigError(f"{path} is not valid TOML: {shortened(str(error))}") from error


def read_configs(paths: Sequence[str | Path], model: type[BaseModel]) -> dict[str, Any]:
    """Several configuration files as one, later files taking precedence.

    A file may say ``extends = "other.toml"``, or a list of such paths relative to itself: it is
    read as if these came before it. Tables are merged key by key, except for tables whose keys the
    user chooses, such as ``tune.space``: there a later one replaces an earlier one. An ``extends``
    in a table is kept for the reader of that table, as a list of absolute paths.

    Raises:
        ConfigError: if a file is missing or not TOML, or files extend each other in a circle.
    """
    result: dict[str, Any] = {}
    read: dict[Path, dict[str, Any]] = {}
    try:
        for path in paths:
            result = _merged(result, _read_with_bases(Path(path), (), model, read), model, [])
    except RecursionError:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: tables are nested too deeply to be settings"
        ) from None
    return result


def _read_with_bases(
    path: Path, chain: tuple[Path, ...], model: type[BaseModel], read: dict[Path, dict[str, Any]]
) -> dict[str, Any]:
    """A file merged into those it extends; ``chain`` are the files that extend it, ``read`` holds
    what was read before."""
    if path in read:
        return read[path]
    values = _read_unread(path, chain, model, read)
    read[path] = values
    return values


def _read_unread(
    path: Path, chain: tuple[Path, ...], model: type[BaseModel], read: dict[Path, dict[str, Any]]
) -> dict[str, Any]:
    if _resolved(path) in chain:
        circle = " extends ".join(str(p) for p in (*chain[chain.index(path.resolve()) :], path))
        raise ConfigError(f"configuration files extend each other in a circle: {circle}")
    values = read_toml(path)
    bases = base_files(values.pop("extends", []), path.parent, str(path))
    result: dict[str, Any] = {}
    for base in bases:
        base_values = _read_with_bases(base, (*chain, path.resolve()), model, read)
        result = _merged(result, base_values, model, [])
    return _merged(result, _with_absolute_bases(values, path), model, [])


def base_files(bases: Any, folder: Path, origin: str) -> list[Path]:
    """The files that ``extends = bases`` names, relative to ``folder``.

    Raises:
        ConfigError: if it is neither a path nor a list of paths, or a file is missing.
    """
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{origin}: extends = {shortened(_repr(bases))}, expected the path of a file, relative "
            f"to {folder}, "
            'such as extends = "../datasets/ml-latest-small.toml", or a list of paths'
        )
    for name in names:
        if not _is_file(folder / name):
            raise ConfigError(
                f"{origin} extends {shortened(repr(name))}, but there is no such file in {folder}"
            )
    return [folder / name for name in names]


def _resolved(path: Path) -> Path:
    """Also of what cannot be a path, which reading refuses with the reason."""
    try:
        return path.resolve()
    except (OSError, ValueError):
        return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _with_absolute_bases(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The values of the file ``path`` with absolute paths in the ``extends`` of its tables."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key == "extends":
            files = base_files(value, path.parent, str(path))
            result[key] = [str(file.resolve()) for file in files]
        else:
            result[key] = _with_absolute_bases(value, path) if isinstance(value, Mapping) else value
    return result


def merge(
    base: Mapping[str, Any], top: Mapping[str, Any], model: type[BaseModel]
) -> dict[str, Any]:
    """``base`` with the values of ``top`` put in, merged as ``read_configs`` merges files."""
    return _merged(base, top, model, [])


def _merged(
    base: Mapping[str, Any], top: Mapping[str, Any], model: type[BaseModel], location: list[str]
) -> dict[str, Any]:
    result = _deep_copy(base)
    for key, value in top.items():
        here = [*location, key]
        earlier = result.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(earlier, Mapping)
            and not _is_table(model, here)
        ):
            result[key] = _merged(earlier, value, model, here)
        else:
            result[key] = value
    return result


def apply_overrides(
    values: Mapping[str, Any], overrides: Iterable[str], valid: Iterable[str] = ()
) -> dict[str, Any]:
    """``values`` with each ``section.key=value`` put in.

    A value is read as TOML (``3``, ``true``, ``[64, 32]``), and as a plain string where it is not.
    If the value is missing, the message names the nearest of the ``valid`` keys.

    Raises:
        ConfigError: if an override has no ``=`` or goes through a key that is no section.
    """
    result = _deep_copy(values)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.strip():
            close = nearest(dotted.partition(" ")[0], valid)
            hint = f". Did you mean {close}=...?" if close else ""
            raise ConfigError(
                f"--set {shortened(repr(override))} is not of the form section.key=value{hint}"
            )
        *sections, key = dotted.strip().split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                found = shortened(repr(override))
                raise ConfigError(f"--set {found}: {section!r} is a value, not a section")
        target[key] = _parse_value(text.strip())
    return result


def build(model: type[Settings], values: Mapping[str, Any], origin: str) -> Settings:
    """Validate ``values`` as ``model``.

    Raises:
        ConfigError: naming each wrong key, what was found, and the valid keys or values.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = "\n".join(f"  {problem}" for problem in problems(model, error))
        raise ConfigError(f"{origin} is not a valid configuration:\n{found}") from error


def problems(model: type[BaseModel], error: ValidationError) -> list[str]:
    """A line on each thing that is wrong with values for ``model``: the key, what was found, and
    the valid keys or values.
    """
    details = error.errors()
    lines = [shortened(_explain(model, detail), _MAX_LINE) for detail in details[:_MAX_PROBLEMS]]
    more = len(details) - len(lines)
    return [*lines, f"and {more:,} more"] if more else lines


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration and of its sections, as ``--set`` takes it."""
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section is None:
            yield f"{prefix}{name}"
        else:
            yield from keys(section, f"{prefix}{name}.")


def _deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _deep_copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
        return parsed["value"] if len(parsed) == 1 else text
    except (ValueError, RecursionError):
        return text


def _explain(model: type[BaseModel], detail: ErrorDetails) -> str:
    """One line on one validation error."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if new := _renamed(model, location, detail):
        return new
    if detail["type"] != "extra_forbidden":
        return f"{_found(location, detail)}{detail['msg'].removeprefix('Value error, ')}" + (
            _quoting(key, detail) if detail["type"] == "string_type" else ""
        )
    section = _section_at(model, location[:-1])
    valid = sorted(section.model_fields) if section else []
    where = f"[{'.'.join(location[:-1])}]" if location[:-1] else "the top level"
    if isinstance(detail["input"], Mapping) and _is_table(model, location[:-2]):
        table, name = ".".join(location[:-2]), ".".join(location[-2:])
        return (
            f'unknown key {key!r}. A name with a dot in it needs quotes: "{name}" = ... in '
            f"[{table}], or --set '{table}={{\"{name}\" = ...}}'"
        )
    # A section was left out, or the key is another one's; or it is misspelt.
    meant = [k for k in keys(model) if k.endswith(f".{location[-1]}")]
    meant = meant or [k for k in (nearest(location[-1], valid),) if k]
    hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    return f"unknown key {key!r}.{hint} Valid keys of {where}: {', '.join(valid)}"


def _renamed(model: type[BaseModel], location: list[str], detail: ErrorDetails) -> str | None:
    """What to write instead of a key or value of an earlier version."""
    for depth in range(len(location)):
        section = _section_at(model, location[:depth])
        if section is None or not issubclass(section, Section):
            continue
        name = location[depth]
        if detail["type"] == "extra_forbidden" and name in section.renamed:
            old, new = ".".join(location[: depth + 1]), section.renamed[name]
            return f"{old} is now called {'.'.join([*location[:depth], new])}"
        values = section.renamed_values.get(name, {})
        if isinstance(detail["input"], str) and detail["input"] in values:
            key, old = ".".join(location[: depth + 1]), detail["input"]
            return f'{key}: "{old}" is now called "{values[old]}"'
    return None


def _found(location: list[str], detail: ErrorDetails) -> str:
    """The key and its value, for the begin of a message; of rules about many settings, which name
    these themselves, no value: it would be all settings.
    """
    if not location:
        return ""
    if detail["type"] == "value_error" and isinstance(detail["input"], Mapping):
        return f"{'.'.join(location)}: "
    found = shortened(without_secrets(_repr(detail["input"])))
    return f"{'.'.join(location)} = {found}: "


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return "a number of thousands of digits"


def _quoting(key: str, detail: ErrorDetails) -> str:
    """How to write as text what was read as a number, a truth value or a date."""
    value = detail["input"]
    if isinstance(value, Mapping | list):
        return ""
    text = shortened(str(value).lower() if isinstance(value, bool) else str(value))
    return f"; text that looks like a value needs quotes: --set '{key}=\"{text}\"'"


def _section_at(model: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    """The section class at a dotted path, if the path leads to one."""
    current: type[BaseModel] | None = model
    names = iter(location)
    for name in names:
        field = current.model_fields.get(name) if current else None
        if field and get_origin(field.annotation) is dict:
            current = _section_of(get_args(field.annotation)[1]) if next(names, "") else None
        else:
            current = _section_of(field.annotation) if field else None
    return current


def _is_table(model: type[BaseModel], location: list[str]) -> bool:
    """Whether a path leads to a table of sections with names of the user's choice."""
    section = _section_at(model, location[:-1]) if location else None
    field = section.model_fields.get(location[-1]) if section else None
    return field is not None and get_origin(field.annotation) is dict


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class that a field holds, or may hold."""
    parts = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    for part in parts:
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
