"""Options for models and splits of other programs, refused before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from foundation.cli import main
from foundation.errors import ConfigError
from ray_jobs import compare, preprocess
from ray_jobs.config import JobConfig
from ray_jobs.stages.compared_predictions import given_models
from ray_jobs.stages.cross_validation import fold_config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--with", "absent.csv"], "predictions of 'absent': there is no file absent.csv"),
        (["--with", "=x.csv"], "expected FILE or NAME=FILE"),
        (["--with", "a=x.csv", "--with", "a=y.csv"], "names 'a' twice"),
        (["--with", "-a=x.csv"], "predictions"),
        (
            ["--set", "compare.score_test=false", "--with", "a=x.csv"],
            "predictions are for the test",
        ),
    ],
)
def test_predictions_that_cannot_be_meant_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(compare.command, ["--set", f"storage={tmp_path}", *options]) == 2
    assert message in capsys.readouterr().err
    assert not ray.is_initialized()


def test_splits_are_not_written_into_a_folder_with_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    options = ["--set", f"storage={tmp_path}", "--export-splits", str(tmp_path / "there")]
    assert main(preprocess.command, options) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(preprocess.command, ["--set", f"storage={tmp_path}", "--splits", "3"]) == 2
    assert "--splits is for --export-splits" in capsys.readouterr().err


def test_each_fold_has_a_file_of_its_own(tmp_path: Path) -> None:
    values = {
        "cross_validate": {"split_seeds": [7, 8]},
        "compare": {"predictions": {"mine": "out/{fold}.csv"}},
    }
    config = JobConfig.model_validate(values)
    assert fold_config(config, "seed-8").compare.predictions == {"mine": "out/seed-8.csv"}
    values["compare"] = {"predictions": {"mine": "out.csv"}}
    with pytest.raises(ConfigError, match="names one file for all splits"):
        fold_config(JobConfig.model_validate(values), "seed-8")
    with pytest.raises(ConfigError, match="expected the name of one file"):
        given_models({"mine": "out/{fold}.csv"})
