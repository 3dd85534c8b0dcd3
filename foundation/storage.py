"""One root for outputs: a local folder or an object store URI, behind ``pyarrow.fs``.

Every write is atomic: locally through a temporary name and a rename, in an object store because an
upload appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import TypeAdapter, ValidationError

from foundation.errors import ConfigError, StorageError, shortened, without_secrets

PART_SUFFIX = ".part"
"""Ending of a file that is still being written."""

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class Storage:
    """A folder in some file system; ``storage / "a/b"`` is the file or folder beneath it.

    Picklable, so that Ray workers can use it.
    """

    filesystem: fs.FileSystem
    path: str

    @classmethod
    def at(cls, location: str | Path) -> Storage:
        """Open ``location``: a path, or a URI such as ``s3://bucket/folder``.

        Raises:
            ConfigError: if the URI's scheme is unknown, or the URI has no bucket or folder.
            StorageError: if the location cannot be reached.
        """
        text = str(location)
        if not re.match(r"^[a-z][a-z0-9+.-]+://", text):
            return cls(fs.LocalFileSystem(), str(Path(text).expanduser().resolve()))
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        # Without the cause, whose message repeats the credentials that are masked here.
        except pa.ArrowInvalid as error:
            raise ConfigError(
                without_secrets(
                    f"cannot open the storage {text!r}: {error}. Name a folder, or a URI such as "
                    "s3://bucket/folder."
                )
            ) from None
        except OSError as error:
            raise StorageError(
                without_secrets(f"cannot open the storage {text!r}: {error}")
            ) from None
        if not path.rstrip("/"):
            raise ConfigError(
                f"{without_secrets(text)!r} names no bucket or folder, expected one as in "
                "s3://bucket/folder"
            )
        return cls(filesystem, path.rstrip("/"))

    def __truediv__(self, relative: str) -> Storage:
        return Storage(self.filesystem, f"{self.path}/{relative}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of the local file system."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def name(self) -> str:
        """Last component of the path."""
        return self.path.rsplit("/", 1)[-1]

    def exists(self) -> bool:
        """Whether a file or folder exists."""
        return bool(self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound)

    def list_folders(self) -> list[Storage]:
        """Folders directly beneath this one, sorted by path."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        folders = sorted(i.path for i in infos if i.type == fs.FileType.Directory)
        return [Storage(self.filesystem, path) for path in folders]

    def list_files(self, suffix: str = "", *, recursive: bool = False) -> list[Storage]:
        """Files beneath this folder whose name ends in ``suffix``, sorted by path."""
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        paths = sorted(i.path for i in infos if i.is_file and i.path.endswith(suffix))
        return [Storage(self.filesystem, path) for path in paths]

    def size(self) -> int:
        """Bytes in this file."""
        return int(self.filesystem.get_file_info(self.path).size or 0)

    def delete(self) -> None:
        """Remove this file or folder, if it exists."""
        kind = self.filesystem.get_file_info(self.path).type
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path)

    def make_folder(self) -> Storage:
        """Create this folder and its parents.

        Raises:
            StorageError: if the location is not writable or a file has that name.
        """
        try:
            self.filesystem.create_dir(self.path, recursive=True)
        except OSError as error:
            raise StorageError(
                f"cannot create the folder {self}: {error.strerror or error}. "
                "Name a writable place with --set storage=..."
            ) from error
        return self

    @contextlib.contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """A binary stream whose content appears under this path only if the block succeeds.

        Raises:
            StorageError: if the location is not writable.
        """
        if self.is_local:
            with self._writing_locally() as stream:
                yield stream
            return
        # Closing a remote stream publishes its content, even after an exception: so buffer first.
        buffer = io.BytesIO()
        yield buffer
        try:
            with self.filesystem.open_output_stream(self.path) as remote:
                remote.write(buffer.getbuffer())
        except OSError as error:
            raise self._not_writable(error) from error

    @contextlib.contextmanager
    def _writing_locally(self) -> Iterator[BinaryIO]:
        final = Path(self.path)
        self.parent.make_folder()
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(final)
        except OSError as error:
            raise self._not_writable(error) from error
        finally:
            with contextlib.suppress(OSError):  # must not hide the exception of the block
                partial.unlink(missing_ok=True)

    def _not_writable(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self}: {error.strerror or error}. "
            "Name a writable place with --set storage=..."
        )

    @property
    def parent(self) -> Storage:
        """The folder that holds this file or folder."""
        return Storage(self.filesystem, self.path.rsplit("/", 1)[0])

    def move_to(self, target: Storage) -> None:
        """Rename this file to ``target`` in the same file system, replacing an existing file.

        Raises:
            StorageError: if the location is not writable.
        """
        try:
            self.filesystem.move(self.path, target.path)
        except OSError as error:
            raise target._not_writable(error) from error

    def copy_to(self, target: Storage) -> None:
        """Copy this folder, also to another file system, replacing what is there.

        In a local file system ``target`` is there as a whole or not at all. Object stores cannot
        rename folders: there a file that is written last tells a whole copy from a part of one.

        Raises:
            StorageError: if this folder cannot be read, or ``target`` not be written.
        """
        partial = target.parent / f".{target.name}{PART_SUFFIX}" if target.is_local else target
        try:
            partial.delete()
            partial.make_folder()
            fs.copy_files(
                self.path,
                partial.path,
                source_filesystem=self.filesystem,
                destination_filesystem=partial.filesystem,
            )
            if target.is_local:
                target.delete()
                partial.move_to(target)
        except OSError as error:
            raise StorageError(
                f"cannot copy {self} to {target}: {error.strerror or error}"
            ) from error

    def write_bytes(self, content: bytes) -> None:
        """Write this file atomically."""
        with self.writing() as stream:
            stream.write(content)

    def write_text(self, content: str) -> None:
        """Write this file atomically, as UTF-8."""
        self.write_bytes(content.encode())

    def write_json(self, value: Any) -> None:
        """Write this file atomically, as indented JSON; NaN and infinity, which JSON lacks, are
        null."""
        text = json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
        self.write_text(f"{text}\n")

    def write_table(self, table: pa.Table) -> None:
        """Write this file atomically, as Parquet."""
        with self.writing() as stream:
            pq.write_table(table, stream, compression="zstd")

    def read_bytes(self) -> bytes:
        """The content of this file.

        Raises:
            StorageError: if it cannot be read.
        """
        try:
            with self.filesystem.open_input_stream(self.path) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise StorageError(f"cannot read {self}: {error.strerror or error}") from error

    def read_as(self, kind: type[T], remedy: str) -> T:
        """A dataclass of this kind from the JSON in this file.

        Raises:
            StorageError: if it cannot be read, or was written by another version; with the
                ``remedy``, what to do.
        """
        values = self.read_json()
        try:
            known = {field.name for field in fields(kind)}
            unknown = sorted(values.keys() - known) if isinstance(values, dict) else []
            if unknown:
                raise ValueError(f"the key {unknown[0]!r} is unknown")
            found: T = TypeAdapter(kind).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            reason = f"{place}: {first['msg']}"
        except ValueError as error:
            reason = str(error)
        else:
            return found
        raise StorageError(
            f"{self} is damaged, or was written by another version: {shortened(reason)}. Delete "
            f"the file, or {remedy}."
        )

    def read_json(self) -> Any:
        """The JSON value in this file.

        Raises:
            StorageError: if it cannot be read or is not JSON.
        """
        try:
            return json.loads(self.read_bytes())
        except ValueError as error:
            raise StorageError(
                f"{self} is not valid JSON: {error}. Delete it and try again"
            ) from error

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """The Parquet table in this file.

        Raises:
            StorageError: if it cannot be read.
        """
        try:
            return pq.read_table(self.path, filesystem=self.filesystem, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"cannot read {self} as Parquet: {error}") from error


def read_parquet(file: str | Path, filesystem: fs.FileSystem | None = None) -> pa.Table:
    """The table in one Parquet file, without pandas, which ``pyarrow.parquet.read_table`` imports.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    with pq.ParquetFile(file, filesystem=filesystem) as opened:
        return opened.read()


def _without_nan(value: Any) -> Any:
    """A JSON value with null for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
