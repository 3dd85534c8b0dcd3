from __future__ import annotations

import pytest

from ingest.config import TmdbConfig


@pytest.mark.parametrize(
    ("base_url", "unencrypted"),
    [
        ("https://api.themoviedb.org/3", False),
        ("http://127.0.0.1:8008/3", False),
        ("http://[::1]:8008/3", False),
        ("http://localhost:8008/3", False),
        ("http://api.themoviedb.org/3", True),
        ("http://10.0.0.7/3", True),
    ],
)
def test_whether_the_token_would_travel_in_the_clear(base_url: str, unencrypted: bool) -> None:
    assert TmdbConfig(base_url=base_url).is_unencrypted is unencrypted
