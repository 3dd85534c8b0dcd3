"""In which encoding a text file is, by its bytes."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from ingest.errors import DatasetError

UTF_8: Final = "utf-8-sig"
"""With or without a byte order mark."""
WESTERN: Final = "cp1252"
"""Windows' Western European encoding: the printable characters of latin-1, and a few more."""

_MARKS: Final = (
    # Before UTF-16, whose mark begins like that of UTF-32.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK: Final = 1 << 20
_NOT_ASCII: Final = bytes(range(128, 256))
_NAMES: Final = {UTF_8: "UTF-8", WESTERN: "Windows-1252 (latin-1)"}


def marked_encoding(path: Path) -> str:
    """UTF-16 or UTF-32 if the file begins with their byte order mark, else UTF-8."""
    with path.open("rb") as stream:
        start = stream.read(4)
    return next((name for mark, name in _MARKS if start.startswith(mark)), UTF_8)


def encoding_of(path: Path) -> str:
    """UTF-8 if all bytes are that, UTF-16 or UTF-32 by their mark, else ``WESTERN``.

    Text in latin-1 is hardly ever valid UTF-8, for which an accented letter is the first of several
    bytes of fixed ranges.

    Raises:
        DatasetError: naming the line and the byte, if the file is in none of these.
    """
    found = marked_encoding(path)
    problem = _undecodable(path, found)
    if problem is None:
        return found
    line, byte = _place(path, problem)
    if found != UTF_8:
        raise DatasetError(
            f"{path}, line {line}: byte 0x{byte:02x} is not {name_of(found)}, which the file's "
            "first bytes announce. Copy the file again, or save it as UTF-8."
        )
    content = path.read_bytes()
    if b"\0" in content or _undecodable(path, WESTERN) is not None or _is_mostly_utf_8(content):
        raise DatasetError(
            f"{path}, line {line}: byte 0x{byte:02x} is neither UTF-8, as the rest of the file may "
            "be, nor Windows-1252 (latin-1). Save the file as UTF-8."
        )
    return WESTERN


def _is_mostly_utf_8(content: bytes) -> bool:
    """Whether text with a few wrong bytes was meant to be UTF-8."""
    text = content.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    right = len(text) - wrong - len(content.translate(None, _NOT_ASCII))
    return right > wrong


def name_of(encoding: str) -> str:
    """For messages."""
    return _NAMES.get(encoding, encoding.upper())


def _undecodable(path: Path, encoding: str) -> int | None:
    """Position of the first byte that cannot be decoded; None if all can."""
    decoder = codecs.getincrementaldecoder(encoding)()
    position = 0
    with path.open("rb") as stream:
        while True:
            chunk = stream.read(_CHUNK)
            kept = len(decoder.getstate()[0])  # bytes of a character that the chunk completes
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return position - kept + error.start
            if not chunk:
                return None
            position += len(chunk)


def _place(path: Path, position: int) -> tuple[int, int]:
    """Line and value of the byte at ``position``."""
    content = path.read_bytes()
    return content.count(b"\n", 0, position) + 1, content[min(position, len(content) - 1)]
