"""The stage as the training jobs call it: what is skipped, kept, and reported."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import ConfigError, MovieRatingsError, StorageError
from foundation.storage import Storage
from ingest import dataset
from ingest.config import DataConfig, SyntheticConfig, TmdbConfig
from ingest.dataset import ingest
from ingest.errors import DatasetError, DownloadError
from ingest.raw_data import RawData
from ingest.tmdb.client import MAX_BODY

ENVIRON = {"TMDB_ACCESS_TOKEN": "token"}
NOWHERE = "http://127.0.0.1:1/movielens"


class Stage:
    """Runs the stage in one storage."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(
        self,
        path: Path | None = None,
        environ: dict[str, str] | None = None,
        tmdb: dict[str, Any] | None = None,
        force: bool = False,
        **data: Any,
    ) -> RawData:
        settings = {"download_url": NOWHERE, **({"path": str(path)} if path else {}), **data}
        return ingest(
            DataConfig(**settings),
            TmdbConfig(**{"requests_per_second": 1e6, **(tmdb or {})}),
            Storage.at(self.root),
            environ=environ or {},
            force=force,
        )

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.root / "raw" / name
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix != ".lock"}


@pytest.fixture
def run(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "artifacts")


@pytest.fixture
def own(dataset: Any) -> Path:
    folder: Path = dataset((1, "0000001", 100), (2, "0000002", 200))
    return folder


def test_unchanged_files_are_not_read_again(
    run: Stage, own: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    first = run(own)
    monkeypatch.setattr(dataset, "_write_tables", lambda *_: pytest.fail("read again"))
    second = run(own)
    assert second == first
    assert "unchanged" in logged[-1]


def test_changed_files_are_read_again(run: Stage, own: Path) -> None:
    first = run(own)
    with (own / "ratings.csv").open("a") as stream:
        stream.write("2,1,5.0,1000000000\n")
    second = run(own)
    assert (first.num_ratings, second.num_ratings) == (2, 3)
    assert first.fingerprint != second.fingerprint


def test_touched_files_have_the_same_fingerprint(run: Stage, own: Path) -> None:
    first = run(own)
    os.utime(own / "ratings.csv", (1, 1))
    assert run(own).fingerprint == first.fingerprint


@pytest.mark.parametrize("missing", ["ratings.parquet", "tables.json"])
def test_what_was_lost_is_made_again(run: Stage, own: Path, missing: str) -> None:
    first = run(own)
    (run.root / "raw" / "own" / missing).unlink()
    assert run(own).fingerprint == first.fingerprint


def test_tables_of_another_schema_version_are_made_again(run: Stage, own: Path) -> None:
    first = run(own)
    file = run.root / "raw" / "own" / "tables.json"
    file.write_text(file.read_text().replace('"schema_version": "1"', '"schema_version": "0"'))
    assert run(own).fingerprint == first.fingerprint
    assert '"schema_version": "1"' in file.read_text()


def test_a_failed_reading_leaves_the_older_result_alone(run: Stage, own: Path) -> None:
    run(own)
    before = run.files("own")
    with (own / "ratings.csv").open("a") as stream:
        stream.write("2,1,6.0,1000000000\n")
    with pytest.raises(DatasetError, match="line 4: rating is 6"):
        run(own)
    assert run.files("own") == before


def test_the_manifest_says_what_it_is(run: Stage, own: Path) -> None:
    raw = run(own)
    manifest = json.loads((raw.folder / "dataset.json").read_bytes())
    assert manifest["name"] == "own"
    assert manifest["num_ratings"] == 2
    assert manifest["fingerprint"] == raw.fingerprint
    assert manifest["tmdb_coverage"] == {}
    assert manifest["noise_floor_rmse"] is None
    assert manifest["attribution"] == []


@pytest.mark.parametrize("as_archive", [False, True])
def test_the_path_may_be_the_folder_its_parent_or_an_archive(
    run: Stage, ml_latest_small: Path, tmp_path: Path, as_archive: bool
) -> None:
    path = ml_latest_small.parent
    if as_archive:
        path = tmp_path / "download.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("ratings.csv", "movies.csv", "links.csv", "tags.csv"):
                archive.write(ml_latest_small / name, f"ml-latest-small/{name}")
    raw = run(path, source="ml-latest-small")
    assert (raw.name, raw.num_ratings, raw.num_users) == ("ml-latest-small", 100_836, 610)
    assert raw.fingerprint == run(ml_latest_small).fingerprint


def test_without_network_synthetic_data_take_the_place(run: Stage) -> None:
    raw = run(synthetic=SyntheticConfig(num_users=30, num_movies=40, num_ratings=600))
    assert (raw.name, raw.synthetic, raw.num_ratings) == ("synthetic", True, 600)
    assert "ml-latest-small is not available" in raw.notices[0]
    assert "THIS IS SYNTHETIC DATA" in raw.notices[1]
    assert raw.tmdb_coverage["ok"] > 0


def test_a_release_asked_for_by_name_is_not_replaced(run: Stage) -> None:
    with pytest.raises(DownloadError, match=r"download ml-25m.zip by hand .*--set data.path="):
        run(source="ml-25m")


def test_without_a_token_the_user_is_told_how_to_get_one(run: Stage, own: Path) -> None:
    raw = run(own)
    assert raw.tmdb_coverage == {}
    assert any("https://www.themoviedb.org/settings/api" in notice for notice in raw.notices)
    quiet = run(own, tmdb={"enabled": False})
    assert not any("settings/api" in notice for notice in quiet.notices)
    with pytest.raises(ConfigError, match=r"tmdb.enabled is true, but there is no TMDb token"):
        run(own, tmdb={"enabled": True})


def test_data_without_ids_do_not_use_tmdb(run: Stage, own: Path, fake_tmdb: Any) -> None:
    (own / "links.csv").unlink()
    raw = run(own, ENVIRON, {"base_url": fake_tmdb.url, "enabled": True})
    assert raw.notices == ("TMDb features are missing: own has no TMDb or IMDb ids.",)
    assert raw.tmdb_coverage == {}
    assert fake_tmdb.requests == []
    assert not (raw.folder / "tmdb.parquet").exists()


def test_records_are_fetched_and_belong_to_the_fingerprint(
    run: Stage, own: Path, fake_tmdb: Any
) -> None:
    fake_tmdb.movies = {100: {"id": 100, "budget": 5}, 200: {"id": 200}}
    tmdb = {"base_url": fake_tmdb.url}
    without = run(own, tmdb={"enabled": False})
    raw = run(own, ENVIRON, tmdb)
    assert raw.tmdb_coverage == {"ok": 2, "missing": 0, "failed": 0}
    assert any("not endorsed or certified by TMDB" in notice for notice in raw.notices)
    assert raw.fingerprint != without.fingerprint
    assert run(own, ENVIRON, tmdb).fingerprint == raw.fingerprint
    # Existing records are used without a token, and not used if TMDb is switched off.
    assert run(own).tmdb_coverage == raw.tmdb_coverage
    assert run(own, tmdb={"enabled": False}).fingerprint == without.fingerprint
    assert len(fake_tmdb.requests) == 2


def test_failed_records_are_told(run: Stage, own: Path, fake_tmdb: Any) -> None:
    fake_tmdb.movies = {100: {"id": 100, "pad": "x" * MAX_BODY}, 200: {"id": 200, "budget": "?"}}
    raw = run(own, ENVIRON, {"base_url": fake_tmdb.url})
    assert raw.tmdb_coverage == {"ok": 1, "missing": 0, "failed": 1}
    assert any("1 movies failed" in n and "HTTP 200 with more than 4 MB" in n for n in raw.notices)
    assert any(
        "1 records have values that cannot be right" in n and "movie 2 (budget: '?')" in n
        for n in raw.notices
    ), raw.notices


def test_movies_whose_ids_changed_are_fetched_again(
    run: Stage, own: Path, dataset: Any, fake_tmdb: Any
) -> None:
    fake_tmdb.movies = {n: {"id": n, "budget": 1000 * n} for n in (100, 200, 300)}
    tmdb = {"base_url": fake_tmdb.url}
    run(own, ENVIRON, tmdb)
    fake_tmdb.requests.clear()
    dataset((1, "0000001", 100), (2, "0000002", 300), (3, "0000003", 200))
    raw = run(own, ENVIRON, tmdb)
    assert sorted(fake_tmdb.requests) == ["movie/200", "movie/300"]
    budgets = (raw.folder / "tmdb.parquet").read_table()["budget"].to_pylist()
    assert budgets == [100_000, 300_000, 200_000]


def test_force_reads_the_files_again(
    run: Stage, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(own)
    monkeypatch.setattr(dataset, "_write_tables", lambda *_: pytest.fail("read again"))
    with pytest.raises(pytest.fail.Exception):
        run(own, force=True)


def test_a_place_that_cannot_be_written(own: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Name a writable place with --set storage="):
        Stage(tmp_path / "file")(own)


def test_it_works_where_a_loop_runs_already(run: Stage) -> None:
    """As in a notebook."""
    import asyncio

    async def cell() -> RawData:
        return run(source="synthetic")

    assert asyncio.run(cell()).tmdb_coverage["ok"] > 0


def test_every_error_has_one_root() -> None:
    for error in (ConfigError, DatasetError, DownloadError, StorageError):
        assert issubclass(error, MovieRatingsError)
