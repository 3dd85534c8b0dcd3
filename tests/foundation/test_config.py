from __future__ import annotations

import pytest
from pydantic import ValidationError

from ingest.config import DataConfig, TmdbConfig


@pytest.mark.parametrize(
    ("base_url", "unencrypted"),
    [
        ("https://api.themoviedb.org/3", False),
        ("http://127.0.0.1:8008/3", False),
        ("http://[::1]:8008/3", False),
        ("http://localhost:8008/3", False),
        ("http://api.themoviedb.org/3", True),
        ("http://10.0.0.7/3", True),
        ("http://127.0.0.1.example.org/3", True),
    ],
)
def test_a_token_is_sent_to_another_machine_only_encrypted(
    base_url: str, unencrypted: bool
) -> None:
    TmdbConfig(base_url=base_url, allow_unencrypted=True)
    if unencrypted:
        with pytest.raises(ValidationError, match=r"not encrypted.*use https"):
            TmdbConfig(base_url=base_url)
    else:
        TmdbConfig(base_url=base_url)


@pytest.mark.parametrize(
    "url",
    [
        "api.themoviedb.org/3",
        "ftp://example.org/3",
        "http:///3",
        "http://[::1/3",
        "",
        "https://a:b/",
        "https://a..b/",
        "https://.com/",
        f"https://{'a' * 64}.org/",
        "https://a\\b/",
        "https://\u202ehost/",
        "https://xn--/",
        "https://localhost@example.org/3",
        "https://me:secret@example.org/3",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url") as refused:
        TmdbConfig(base_url=url)
    assert "secret" not in refused.value.errors()[0]["msg"]
    with pytest.raises(ValidationError, match="download_url"):
        DataConfig(download_url=url)
