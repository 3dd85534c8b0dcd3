"""A data set in one of MovieLens' layouts while it is read, and what its files have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ingest.releases import Layout
from ingest.sources.encoding import UTF_8, encoding_of
from ingest.sources.encoding import name_of as encoding_name
from ingest.sources.parsing import Problems, read_text


@dataclass
class Reading:
    """A data set that is being read."""

    folder: Path
    layout: Layout
    notices: list[str] = field(default_factory=list)
    """What the user should know about the data."""

    def notice(self, text: str) -> None:
        """Add a notice."""
        self.notices.append(text)

    def notice_open_end(self, name: str) -> None:
        """Add a notice about a file whose last line has no end, as if the file were cut."""
        with (self.folder / name).open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(-min(stream.tell(), 4), os.SEEK_END)
            end = stream.read()
        if end.strip(b"\0")[-1:] not in (b"\n", b"\r", b""):
            self.notice(
                f"{name}: the last line does not end with a line break. If the file is cut there, "
                "copy it again."
            )

    def notice_encoding(self, file: Path) -> None:
        """Add a notice about the encoding in which a file was read, unless it is the usual one."""
        encoding = encoding_of(file)
        if encoding != UTF_8 or (self.layout.is_latin_1 and not file.read_bytes().isascii()):
            self.notice(f"{file.name}: read as {encoding_name(encoding)}.")


def double_colon_lines(
    file: Path, width: int, layout: str, problems: Problems
) -> Iterator[tuple[int, list[str]]]:
    """Fields of a ``::`` file; a ``::`` inside the text in the middle is part of the text."""
    for line, text in enumerate(read_text(file).split("\n"), 1):
        if not text.strip():
            continue
        fields = text.rstrip("\r").split("::")
        if len(fields) < width:
            problems.add(line, f"{len(fields)} fields, expected {width} ({layout})")
            continue
        head = width - 2
        yield line, [*fields[:head], "::".join(fields[head:-1]), fields[-1]]
