"""Unpack a zip archive that may not be trusted."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from ingest.errors import DatasetError

_MAX_RATIO: Final = 200
"""Ratings are compressed to about a fifth; a member made to fill the disk to a thousandth."""
_SMALL: Final = 1 << 20
"""Bytes up to which a member may have any ratio."""


def extract(archive: Path, target: Path, names: Container[str]) -> None:
    """Unpack the files ``names`` of any folder in ``archive`` into the folder ``target``.

    Raises:
        DatasetError: if it is not a zip archive, is damaged or encrypted, or has a member that is a
            link, would be written outside ``target``, or grows beyond what ratings do; nothing is
            unpacked in these last cases.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                _refuse_unsafe(archive, member)
            wanted = [m for m in opened.infolist() if PurePosixPath(m.filename).name in names]
            for member in wanted:
                _refuse_unreadable(archive, member)
            opened.extractall(target, wanted)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        UnicodeError,
    ) as error:
        raise DatasetError(
            f"{archive} is not a complete zip archive: {error}. Download or create it again."
        ) from error
    except OSError as error:
        raise DatasetError(f"cannot unpack {archive}: {error.strerror or error}") from error


def _refuse_unreadable(archive: Path, member: zipfile.ZipInfo) -> None:
    """Refuse what needs a password, or is much larger than its archive suggests.

    Raises:
        DatasetError: naming the member.
    """
    if member.flag_bits & 1:
        raise DatasetError(
            f"{archive}: {member.filename!r} is encrypted. Unpack the archive with its password, "
            "and name the folder."
        )
    if member.file_size > max(_SMALL, _MAX_RATIO * member.compress_size):
        raise DatasetError(
            f"{archive}: {member.filename!r} grows from {member.compress_size:,} to "
            f"{member.file_size:,} bytes, which no file of ratings does. Download or create the "
            "archive again."
        )


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    """Refuse links, and paths that ``extractall`` would rename without a message.

    Raises:
        DatasetError: naming the member.
    """
    name = member.filename
    windows = PureWindowsPath(name)
    outside = (
        PurePosixPath(name).is_absolute()
        or bool(windows.drive or windows.root)
        or ".." in windows.parts  # these split at both kinds of slash
    )
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise DatasetError(
            f"{archive} holds {name!r}, which would be written outside the folder it is unpacked "
            "into. Expected files and folders with relative paths; download or create the archive "
            "again."
        )
