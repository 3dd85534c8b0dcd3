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
        ("train.epochs=true", "epochs = true, expected a number"),
        ("compare.seeds=[true]", "expected a number"),
        ("train.epochs=3\nfoo=4", "train.epochs = '3\\nfoo=4'"),
        ("tune.choice=5", "tune.choice = 5: Input should be a valid dictionary"),
        ("data.path=~nosuchuser/x", "no file can have this path"),
        ("data.path=" + "x" * 5000, "no file can have this path: it is too long"),
        ("storage=a\0b", "it holds control characters"),
        ("storage=a\nb", "it holds control characters"),
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


def test_a_metric_of_rankings_and_a_wrong_table_are_told_together() -> None:
    assert "tune.choice = 5: Input should be a valid dictionary" in "".join(
        refused_all("tune.metric=ndcg@10", "tune.choice=5")
    )


def refused_all(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)
    return str(caught.value).splitlines()


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b"[train]\nepochs = 7\n")
    assert load_config([str(file)], []).train.epochs == 7


def test_files_that_extend_the_same_ones_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "0.toml").write_text("[train]\nepochs = 7\n")
    for number in range(1, 40):  # 2**39 reads otherwise
        bases = [f"{number - 1}.toml"] * 2
        (tmp_path / f"{number}.toml").write_text(f"extends = {bases}\n")
    assert load_config([str(tmp_path / "39.toml")], []).train.epochs == 7


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f"extends = '{'x' * 5000}'", "extends 'xxx.* but there is no such file in"),
        ("extends = 'a\\u0000b'", "but there is no such file"),
        ("extends = [1, 2]", r"extends = \[1, 2\], expected the path"),
        (".".join("a" * 3000) + " = 1", "nested too deeply|unknown key"),
        ("".join(f"k{number} = 1\n" for number in range(5000)), "and 4,980 more"),
    ],
)
def test_odd_files_are_refused_shortly(content: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=told) as caught:
        load_config([str(file)], [])
    assert len(str(caught.value)) < 25_000


@pytest.mark.parametrize(
    "setting",
    [
        "compare.seeds=[4294967295]",
        "train.seed=4294967295",
        "data.synthetic.seed=20240101123",
        "storage=/home/u/映画\u3000データ",
        "storage=داده\u200cها",
        "storage=Screenshot 9.41\u202fAM",
        "storage=s3://bucket/folder",
        "scaling.num_workers=1-8",
        "tmdb.enabled=true",
    ],
)
def test_what_is_large_or_unusual_but_possible_is_taken(setting: str) -> None:
    load_config([], [setting])
