"""Licence and attribution follow the data: everywhere that the ingester shows or writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foundation.storage import Storage
from ingest.__main__ import main
from ingest.config import DataConfig, TmdbConfig
from ingest.dataset import ingest
from ingest.manifest import TMDB_ATTRIBUTION
from ingest.raw_data import RawData
from ingest.registry import SOURCES
from ingest.releases import RELEASES, Size, recognise
from ingest.sources.base import source_class
from ingest.sources.folder import FolderSource
from ingest.sources.movielens import MOVIELENS_CITATION, MovieLensSource
from ingest.sources.netflix import NETFLIX_CITATION, NetflixPrizeSource
from ingest.sources.selection import name_of
from ingest.sources.synthetic import SyntheticSource

ENVIRON = {"TMDB_ACCESS_TOKEN": "token"}
OF_MOVIELENS = ("MovieLens Datasets", "GroupLens", "grouplens")
"""No output on other data holds any of these."""


@dataclass(frozen=True)
class Case:
    """A data set, with its licence and its attribution without TMDb."""

    settings: dict[str, Any]
    licence: str
    attribution: tuple[str, ...] = ()
    has_links: bool = True


Make = Callable[[Path], Case]


def write_own(folder: Path, name: str) -> Path:
    """Two movies with links, each rated once."""
    own = folder / name
    own.mkdir()
    (own / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3.5,9\n1,2,4,9\n")
    (own / "movies.csv").write_text("movieId,title,genres\n1,A (2000),Drama\n2,B (2001),Drama\n")
    (own / "links.csv").write_text("movieId,imdbId,tmdbId\n1,0000001,100\n2,0000002,200\n")
    return own


def own(folder: Path) -> Case:
    return Case({"source": "folder", "path": write_own(folder, "mine")}, FolderSource.licence)


def own_by_path_alone(folder: Path) -> Case:
    return Case({"path": write_own(folder, "mine")}, FolderSource.licence)


def own_with_the_name_of_a_release(folder: Path) -> Case:
    return Case({"path": write_own(folder, "ml-25m")}, FolderSource.licence)


def movielens(folder: Path) -> Case:
    settings = {"source": "ml-25m", "path": write_own(folder, "download")}
    return Case(settings, MovieLensSource.licence, (MOVIELENS_CITATION,))


def synthetic(folder: Path) -> Case:
    shape = {"num_users": 30, "num_movies": 40, "num_ratings": 600}
    settings = {"source": "synthetic", "synthetic": shape}
    return Case(settings, SyntheticSource.licence)


def netflix(folder: Path) -> Case:
    (folder / "movie_titles.csv").write_text("1,2003,A\n")
    (folder / "combined_data_1.txt").write_text("1:\n5,3,2005-09-06\n")
    settings = {"source": "netflix-prize", "path": folder}
    return Case(settings, NetflixPrizeSource.licence, (NETFLIX_CITATION,), has_links=False)


CASES = [own, own_by_path_alone, own_with_the_name_of_a_release, movielens, synthetic, netflix]


@pytest.mark.parametrize("with_tmdb", [False, True])
@pytest.mark.parametrize("make", CASES)
def test_terms_come_from_the_source(
    make: Make,
    with_tmdb: bool,
    tmp_path: Path,
    fake_tmdb: Any,
    logged: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_tmdb.movies = {100: {"id": 100}, 200: {"id": 200}}
    case = make(tmp_path)
    asked = with_tmdb and case.has_links and case.settings.get("source") != "synthetic"
    attribution = case.attribution + ((TMDB_ATTRIBUTION,) if asked else ())
    data = DataConfig.model_validate(case.settings | {"path": str(case.settings.get("path", ""))})
    tmdb = TmdbConfig(enabled=with_tmdb, base_url=fake_tmdb.url, requests_per_second=1e6)

    raw = ingest(data, tmdb, Storage.at(tmp_path / "out"), environ=ENVIRON)

    assert len(fake_tmdb.requests) == (2 if asked else 0)
    check(raw, case.licence, attribution)
    # The second time, tables are read from disk; the command must print the same.
    again = ingest(data, tmdb, Storage.at(tmp_path / "out"), environ=ENVIRON)
    check(again, case.licence, attribution)
    options = [f"--set=data.{key}={toml(value)}" for key, value in case.settings.items()]
    options += [f"--set=tmdb.enabled={str(with_tmdb).lower()}", f"--storage={tmp_path / 'out'}"]
    told = capsys.readouterr().out
    assert main(["ratings", *options, "--json"], {}) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["licence"], tuple(values["attribution"])) == (case.licence, attribution)
    assert main(["ratings", *options], {}) == 0
    shown = capsys.readouterr()
    for text in (case.licence, *attribution):
        assert text in shown.out
    if MOVIELENS_CITATION not in attribution:
        told = "\n".join([told, shown.out, shown.err, *logged, *raw.notices])
        assert not any(word in told for word in OF_MOVIELENS)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {number}" for key, number in value.items()) + "}"
    return str(value)


def check(raw: RawData, licence: str, attribution: tuple[str, ...]) -> None:
    """The returned value and the files on disk."""
    assert (raw.licence, raw.attribution) == (licence, attribution)
    assert raw.notices[len(raw.notices) - len(attribution) :] == attribution
    manifest = json.loads((raw.folder / "dataset.json").read_bytes())
    assert (manifest["licence"], tuple(manifest["attribution"])) == (licence, attribution)
    if MOVIELENS_CITATION not in attribution:
        for name in ("dataset.json", "tables.json"):
            text = (raw.folder / name).read_bytes().decode()
            assert not any(word in text for word in OF_MOVIELENS), name


@pytest.mark.parametrize("name", ["ml-latest-small", "my-ratings"])
def test_a_release_is_recognised_by_its_content(
    name: str, ml_latest_small: Path, tmp_path: Path
) -> None:
    """A byte for byte copy under any name, and the same data without one rating."""
    folder = tmp_path / name
    shutil.copytree(ml_latest_small, folder)
    data, off = DataConfig(path=str(folder)), TmdbConfig(enabled=False)
    raw = ingest(data, off, Storage.at(tmp_path / "out"), environ={})
    assert raw.name == name
    check(raw, MovieLensSource.licence, (MOVIELENS_CITATION,))

    text = (folder / "ratings.csv").read_text()
    (folder / "ratings.csv").write_text(text[: text.rstrip().rindex("\n") + 1])

    raw = ingest(data, off, Storage.at(tmp_path / "out"), environ={})
    assert raw.num_ratings == 100_835
    check(raw, FolderSource.licence, ())


def test_releases_are_told_apart_by_their_sizes() -> None:
    assert [recognise(release.size) for release in RELEASES.values()] == list(RELEASES)
    assert recognise(Size(100_836, 610, 9_743)) is None
    assert recognise(Size(2, 1, 2)) is None


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_terms_and_none_has_those_of_another(name: str) -> None:
    kind = source_class(name)
    assert kind.licence.endswith(".")
    is_movielens = name in RELEASES
    assert (kind.citation == MOVIELENS_CITATION) == is_movielens
    assert any(word in kind.licence for word in OF_MOVIELENS) == is_movielens


@pytest.mark.parametrize(
    ("name", "raw_name"),
    [("synthetic", "synthetic-folder"), ("netflix-prize", "netflix-prize-folder")],
)
def test_own_data_do_not_replace_those_of_another_source(
    name: str, raw_name: str, tmp_path: Path
) -> None:
    assert name_of(DataConfig(path=str(write_own(tmp_path, name)))) == raw_name
