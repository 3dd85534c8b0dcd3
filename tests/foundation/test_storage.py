from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from foundation import lock
from foundation.errors import ConfigError, LockedError, StorageError
from foundation.lock import LOCK_FILE, RUN_LOCK_FILE, locked
from foundation.storage import Storage


@pytest.fixture(params=["local", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A local folder, and one that is only known through the interface of object stores."""
    if request.param == "local":
        return Storage.at(tmp_path)
    return Storage(
        fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "bucket"
    ).make_folder()


def test_round_trips(storage: Storage) -> None:
    (storage / "a.json").write_json({"ü": 1})
    assert (storage / "a.json").read_json() == {"ü": 1}
    table = pa.table({"x": [1, 2]})
    (storage / "deep").make_folder()
    (storage / "deep" / "t.parquet").write_table(table)
    assert (storage / "deep" / "t.parquet").read_table().equals(table)
    assert [f.name for f in storage.list_folders()] == ["deep"]
    assert [f.name for f in storage.list_files(".json")] == ["a.json"]
    (storage / "a.json").move_to(storage / "b.json")
    assert not (storage / "a.json").exists()
    (storage / "deep").delete()
    assert [f.name for f in storage.list_files(recursive=True)] == ["b.json"]


def test_a_failed_write_leaves_what_was_there(storage: Storage) -> None:
    file = storage / "a"
    file.write_bytes(b"old")

    def fail() -> None:
        with file.writing() as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert file.read_bytes() == b"old"
    assert [f.name for f in storage.list_files()] == ["a"]


def test_what_is_no_json_is_named(storage: Storage) -> None:
    (storage / "a.json").write_bytes(b"{")
    with pytest.raises(StorageError, match=r"a\.json is not valid JSON"):
        (storage / "a.json").read_json()
    with pytest.raises(StorageError, match="cannot read"):
        (storage / "b.json").read_json()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot create the folder"):
        (Storage.at(tmp_path / "file") / "below").write_bytes(b"x")


def test_the_scheme_must_be_known() -> None:
    with pytest.raises(ConfigError, match="cannot open the storage 'nonsense://x'"):
        Storage.at("nonsense://x")


def test_a_secret_in_an_address_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        Storage.at("nonsense://key:hidden@bucket/x")

    assert "nonsense://***@bucket/x" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("location", ["s3://", "gs://", "file:///"])
def test_a_bucket_or_folder_must_be_named(location: str) -> None:
    with pytest.raises(ConfigError, match=f"'{location}' names no bucket or folder"):
        Storage.at(location)


def test_the_lock_refuses_a_second_writer_and_is_freed(storage: Storage) -> None:
    with locked(storage), pytest.raises(LockedError, match=f"process {os.getpid()} on"), \
            locked(storage):  # fmt: skip
        pass
    with locked(storage):
        pass


def test_an_abandoned_lease_does_not_count(tmp_path: Path) -> None:
    remote = Storage(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "bucket")
    remote.make_folder()
    lease: dict[str, Any] = {"owner": "process 1 on nowhere", "identity": "x"}
    (remote / LOCK_FILE).write_json({**lease, "until": time.time() + 60})
    with pytest.raises(LockedError, match="process 1 on nowhere"), locked(remote):
        pass
    (remote / LOCK_FILE).write_json({**lease, "until": time.time() - 1})
    with locked(remote):
        assert (remote / LOCK_FILE).exists()
    assert not (remote / LOCK_FILE).exists()


def remote_in(folder: Path) -> Storage:
    """A place without locks of the operating system."""
    remote = Storage(fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), "bucket")
    remote.make_folder()
    return remote


def test_the_lease_of_a_killed_process_is_waited_for(tmp_path: Path) -> None:
    remote = remote_in(tmp_path)
    until = time.time() + 1.5
    lease = {"owner": "process 1 on nowhere", "identity": "x", "until": until}
    (remote / RUN_LOCK_FILE).write_json(lease)
    with locked(remote, RUN_LOCK_FILE, waits=True):
        assert time.time() >= until


def test_the_lease_of_a_process_that_lives_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_S", 2.0)
    remote = remote_in(tmp_path)
    with (
        locked(remote, RUN_LOCK_FILE),
        pytest.raises(LockedError, match=r"is writing .*--set name="),
        locked(remote, RUN_LOCK_FILE, waits=True),
    ):
        pass


def test_numbers_that_json_has_not_are_null(storage: Storage) -> None:
    value = {"a": math.nan, "b": [1.5, -math.inf, (2, math.inf)], "c": {"d": "NaN"}}
    (storage / "x.json").write_json(value)
    assert json.loads((storage / "x.json").read_bytes(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, [2, None]],
        "c": {"d": "NaN"},
    }


def test_where_the_system_has_no_locks_a_lease_is_used(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("foundation.lock.fcntl.flock", flock)
    with locked(storage), pytest.raises(LockedError, match="is writing"), locked(storage):
        pass
    with locked(storage):
        pass


def test_a_lease_that_another_has_taken_is_not_deleted(tmp_path: Path) -> None:
    remote = remote_in(tmp_path)
    with locked(remote, RUN_LOCK_FILE):
        other = {"owner": "process 1 on nowhere", "identity": "x", "until": time.time() + 60}
        (remote / RUN_LOCK_FILE).write_json(other)
    assert (remote / RUN_LOCK_FILE).read_json() == other
