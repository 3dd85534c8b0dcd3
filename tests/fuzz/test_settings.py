"""Damaged configuration files and overrides are read, or refused in a few lines."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from foundation.config import keys
from foundation.errors import ConfigError
from ray_jobs.cli import load_config
from ray_jobs.config import JobConfig
from tests.fuzz.mutation import Damage, damaged, damages
from tests.support import ROOT

CONFIG = (ROOT / "configs" / "quickstart.toml").read_bytes()
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=20),
    st.sampled_from(["inf", "-1", "[]", "{}", "true", '""', "1e999", "[[[", "{a=1}", "9" * 5000]),
)


def read(files: list[Path], overrides: list[str]) -> None:
    refusal = ""
    try:
        load_config([str(file) for file in files], overrides)
    except ConfigError as refused:
        refusal = str(refused)
    assert all(len(line) < 1_500 for line in refusal.splitlines())


@given(changes=damages())
def test_a_damaged_file(changes: list[Damage], tmp_path: Path) -> None:
    file = tmp_path / "fuzz.toml"
    file.write_bytes(damaged(CONFIG, changes))
    read([file], [])


@given(
    overrides=st.lists(
        st.one_of(
            st.builds("{}={}".format, st.sampled_from(sorted(keys(JobConfig))), VALUES),
            st.text(max_size=30),
        ),
        max_size=3,
    )
)
def test_any_overrides(overrides: list[str]) -> None:
    read([], overrides)
