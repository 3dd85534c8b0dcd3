"""Unpacking a zip archive that may not be trusted."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from ingest.errors import DatasetError


def extract(archive: Path, target: Path) -> None:
    """Unpack ``archive`` into the folder ``target``.

    Raises:
        DatasetError: if it is no zip archive, is damaged, or holds a member that would lie outside
            ``target`` or is a link; nothing is unpacked in that last case.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                _refuse_unsafe(archive, member)
            opened.extractall(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DatasetError(
            f"{archive} is not a whole zip archive: {error}. Download it again."
        ) from error
    except OSError as error:
        raise DatasetError(f"cannot unpack {archive}: {error.strerror or error}") from error


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    """Refuse what ``extractall`` would quietly rename, and links."""
    name = member.filename
    windows = PureWindowsPath(name)
    outside = (
        PurePosixPath(name).is_absolute()
        or bool(windows.drive or windows.root)
        or ".." in windows.parts  # these split at both kinds of slash
    )
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise DatasetError(
            f"{archive} holds {name!r}, which would lie outside the folder it is unpacked into. "
            "This is no MovieLens release; download it again from "
            "https://grouplens.org/datasets/movielens/."
        )
