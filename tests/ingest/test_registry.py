"""Everything that lists data sources is derived from the registry."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from dev.settings_reference import reference
from foundation.errors import ConfigError
from foundation.registry import implementation
from ingest import __main__ as cli
from ingest.config import DataConfig, SourceName
from ingest.registry import SOURCES, meanings
from ingest.sources.base import Source, source_class
from ingest.sources.selection import name_of, selected_class


@pytest.mark.parametrize("name", SOURCES)
def test_every_name_leads_to_a_source(name: str) -> None:
    assert issubclass(source_class(name), Source)


def test_the_settings_accept_the_names_of_the_registry() -> None:
    assert get_args(SourceName) == ("auto", *SOURCES)
    for name, entry in SOURCES.items():
        assert DataConfig(source=name, path="folder").source == name
        if entry.path is None:
            assert DataConfig(source=name).path == ""
        else:
            with pytest.raises(ValueError, match=rf'source = "{name}" needs data.path, '):
                DataConfig(source=name)


def test_wrong_names_are_refused_with_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ratings", "--set", "data.source=netflix"], {}) == 2
    message = capsys.readouterr().err
    assert all(f"'{name}'" in message for name in SOURCES)


def test_help_and_reference_say_what_each_name_selects(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ratings", "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split())  # lines may break within names
    page = reference()
    assert "".join(meanings().replace("``", "").split()) in shown
    assert meanings().replace("``", "`") in page
    for name, entry in SOURCES.items():
        assert name in shown
        assert f'`"{name}"`' in page
        assert "".join(entry.meaning.replace("``", "").split()) in shown


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "ml-latest-small"),
        ({"source": "ml-1m"}, "ml-1m"),
        ({"source": "synthetic"}, "synthetic"),
        ({"source": "netflix-prize", "path": "nowhere"}, "netflix-prize"),
    ],
)
def test_names_of_raw_folders_need_no_network(settings: dict[str, Any], name: str) -> None:
    assert name_of(DataConfig(**settings)) == name


def test_a_source_without_records_says_so() -> None:
    kind = selected_class(DataConfig())
    assert not kind.has_tmdb_records
    with pytest.raises(NotImplementedError, match="has no TMDb records"):
        kind.tmdb_records(object.__new__(kind))


def test_an_implementation_is_imported_by_name() -> None:
    assert implementation("foundation.errors:ConfigError") is ConfigError
