"""Settings that cannot be meant, and files that are no configuration."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from foundation.errors import ConfigError
from ray_jobs.cli import load_config


def refused(*overrides: str) -> str:
    """What is said of settings that are refused."""
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("train.learning_rate=inf", "train.learning_rate = inf: Input should be a finite number"),
        ("train.learning_rate=nan", "finite number"),
        ("tmdb.timeout_s=1e400", "tmdb.timeout_s = inf: Input should be a finite number"),
        ("tmdb.timeout_s=1e9", "less than or equal to 3600"),
        ("tmdb.requests_per_second=1e30", "less than or equal to 1000000"),
        ("tmdb.max_age_days=nan", "greater than 0"),
        ("train.epochs=1000000000000", "epochs = 1000000000000, expected at most 1,000,000,000"),
        ("model.hidden_dims=[64, 99999999999]", "hidden_dims = 99999999999, expected at most"),
        (f"data.synthetic.num_ratings={10**16}", "less than or equal to 1000000000000000"),
        ("train.epochs=" + "9" * 5000, "train.epochs = '999"),
        ("train.epochs=" + "[" * 5000, "train.epochs = '[[["),
        ("tmdb.base_url=http://x.org/" + "x" * 5000, "is not encrypted"),
        ("tmdb.base_url=ftp://me:hidden@x.org/", r"'ftp://***@x.org/' is not a URL"),
        ("x" * 5000, "is not of the form section.key=value"),
        ("name=" + "x" * 5000, "at most 100 characters"),
    ],
)
def test_absurd_settings_are_refused_shortly(setting: str, told: str) -> None:
    text = refused(setting)
    assert told in text
    assert "hidden" not in text.replace("hidden_dims", "")
    assert len(text) < 600


def test_records_of_tmdb_may_never_become_too_old() -> None:
    assert load_config([], ["tmdb.max_age_days=inf"]).tmdb.max_age_days == math.inf


@pytest.mark.parametrize(
    "content", ["train.epochs = " + "9" * 5000, "x = " + "[" * 100_000, "a = 1e", "\x00", "a = 'x"]
)
def test_a_file_that_is_no_toml_is_told_so(content: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"a\.toml is not valid TOML"):
        load_config([str(file)], [])
