"""Unpack a zip archive that may not be trusted."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from ingest.errors import DatasetError


def extract(archive: Path, target: Path) -> None:
    """Unpack ``archive`` into the folder ``target``.

    Raises:
        DatasetError: if it is not a zip archive, is damaged, or has a member that is a link or
            would be written outside ``target``; nothing is unpacked in that last case.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                _refuse_unsafe(archive, member)
            opened.extractall(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DatasetError(
            f"{archive} is not a complete zip archive: {error}. Download or create it again."
        ) from error
    except OSError as error:
        raise DatasetError(f"cannot unpack {archive}: {error.strerror or error}") from error


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
