"""docs/configuration.md says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dev import settings_reference
from foundation.config import build
from ray_jobs.config import JobConfig
from tests.support import ROOT


def fields(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every field of every section, by the section's class and its name."""
    sections = {"JobConfig": schema} | schema["$defs"]
    return {
        f"{section}.{key}": field
        for section, content in sections.items()
        for key, field in content["properties"].items()
    }


def test_every_setting_says_what_it_means() -> None:
    schema = JobConfig.model_json_schema()
    silent = [
        name
        for name, field in fields(schema).items()
        # A section is described by its class.
        if not field.get("description") and "$ref" not in field
    ]
    assert silent == []
    assert [name for name, part in schema["$defs"].items() if not part.get("description")] == []


def test_the_page_is_that_of_this_code() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == settings_reference.reference(), "the settings have changed: run make docs"


@pytest.mark.parametrize(
    "line",
    [
        # By hand, from the classes.
        "| `split.test` | number, above 0, below 1 | `0.2` | Share of all rows",
        "| `train.loss` | `\"mse\"`, `\"l1\"`, `\"smooth_l1\"`, `\"nll\"` | `\"mse\"` |",
        "| `model.hidden_dims` | list of: whole number, at least 1 | `[64, 32]` |",
        "| `tmdb.enabled` | `\"auto\"`, `true`, `false` | `\"auto\"` |",
        "| `time_decay.reference` | date or `\"newest-training-rating\"` |",
        "| `tune.space` | table | below |",
        "| `cross_validate.folds.NAME.train` | one or more of: text | required |",
        "## `[data.synthetic]`",
        "## `[model.history]`",
    ],
)  # fmt: skip
def test_types_ranges_and_defaults_are_told(line: str) -> None:
    assert line in settings_reference.reference()


def test_the_default_search_space_on_the_page_is_valid_and_the_default() -> None:
    block = settings_reference.reference().partition("```toml\n")[2].partition("```")[0]
    assert build(JobConfig, tomllib.loads(block), "page").tune.space == JobConfig().tune.space


def test_the_page_is_written_to_a_file(tmp_path: Path) -> None:
    assert settings_reference.main(["--out", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == settings_reference.reference()


def test_a_page_that_cannot_be_written_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settings_reference.main(["--out", str(tmp_path / "absent" / "page.md")]) == 1
    assert re.search("cannot write .*page.md: No such file or directory", capsys.readouterr().err)
