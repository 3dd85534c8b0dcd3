"""Commands and Python code of the documents that need a trained model, run with a small one."""

from __future__ import annotations

import csv
import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

import ncf
from foundation.cli import main
from ncf.inference.export import export
from ncf.inference.recommender import Recommender
from tests.documents import blocks, commands, module_of
from tests.ray_jobs.conftest import Finished

pytestmark = pytest.mark.ray(seconds=10)

PURPOSES = ("ray_jobs.predict", "ray_jobs.recommend", "ray_jobs.doctor")
USING = [
    found
    for found in dict.fromkeys(map(module_of, commands()))
    if found and found[0] in PURPOSES and "--new-user" not in found[1]
]
"""Without those for a new user, which need a model with history: see test_using.py."""


def arguments(words: tuple[str, ...], finished: Finished, title: str, folder: Path) -> list[str]:
    """Those of a command, with the small run's configuration, titles and files."""
    others = {
        "lotr 2001": title,
        "pairs.csv": str(folder / "pairs.csv"),
        "predictions.csv": str(folder / "predictions.csv"),
    }
    result = [part for setting in finished.settings for part in ("--set", setting)]
    given = iter(words)
    for word in given:
        if word in ("--config", "--set"):
            next(given)
        else:
            result.append(others.get(word, word))
    return result


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(("module", "words"), USING)
def test_commands_that_use_a_model(
    module: str,
    words: tuple[str, ...],
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("TMDB_ACCESS_TOKEN", "TMDB_API_KEY", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    recommender = ncf.load(finished.run / "checkpoint")
    movie = int(recommender.checkpoint.preprocessor.movies.ids[3])
    (tmp_path / "pairs.csv").write_text(f"userId,movieId\n1,{movie}\n")
    given = arguments(words, finished, recommender.title(movie), tmp_path)

    assert main(importlib.import_module(module).command, given) == 0

    told = capsys.readouterr().out
    assert not ray.is_initialized()
    if module == "ray_jobs.predict":
        (row,) = csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines())
        assert float(row["prediction"]) == pytest.approx(
            recommender.predict(1, movie).item(), rel=1e-5
        )
    elif module == "ray_jobs.doctor":
        assert "FAILED" not in told
    elif "--movie" in words:
        assert recommender.similar(movie, 1).titles[0] in told
    elif "--user" in words:
        file = finished.storage / "recommendations" / "tiny" / "recommendations.parquet"
        user = int(words[words.index("--user") + 1])
        rows = pq.read_table(file, filters=[("user_id", "=", user)]).to_pylist()
        assert rows
        assert all(row["title"] in told for row in rows)
        assert ("adds" in told) == ("--reasons" in words)
    else:
        assert "recommendations.parquet" in "".join(told.split())


TRAIN = "userId,movieId,rating,timestamp\n1,1,4,0\n2,1,5,0\n1,2,3,0\n"
TEST = "userId,movieId,rating,timestamp\n2,2,3,0\n3,1,3,0\n3,9,3,0\n"


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python") if "splits/" in block.text],
    ids=lambda block: block.document,
)
def test_python_for_exported_splits_runs(
    block: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.csv").write_text(TRAIN)
    (tmp_path / "splits" / "test.csv").write_text(TEST)
    monkeypatch.chdir(tmp_path)

    exec(compile(block.text, block.document, "exec"), {})

    assert (tmp_path / "means.csv").read_text().splitlines() == [
        "userId,movieId,prediction",
        "2,2,3.0",
        "3,1,4.5",
        "3,9,4.0",
    ]


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python") if "exported/" in block.text],
    ids=lambda block: block.document,
)
def test_python_for_an_exported_network_runs(
    block: Any, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ncf.load(finished.run / "checkpoint")
    network = replace(model.checkpoint, blend=None)
    export(network, tmp_path / "exported", "onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    exec(compile(block.text, block.document, "exec"), names)

    ids = model.checkpoint.preprocessor.movies.ids[:10]
    expected = Recommender(network).predict(42, ids)
    np.testing.assert_allclose(names["stars"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python") if "/runs/" in block.text],
    ids=lambda block: block.document,
)
def test_python_in_the_documents_runs(block: Any, finished: Finished) -> None:
    ids = ncf.load(finished.run / "checkpoint").checkpoint.preprocessor.movies.ids
    code = re.sub(r"artifacts/runs/(gaussian-process|quickstart)", str(finished.run), block.text)
    code = code.replace("318", str(int(ids[3])))
    assert code != block.text
    names: dict[str, Any] = {}

    exec(compile(code, block.document, "exec"), names)

    if "study" in names:
        trials = pq.read_table(finished.run / "trials.parquet").to_pylist()
        told = {trial.user_attrs["trial"]: trial.value for trial in names["study"].get_trials()}
        assert told == {trial["trial"]: trial["best_validation_rmse"] for trial in trials}
        return
    stars = names["model"].predict(users=[1, 2], movies=[int(ids[3])] * 2)
    assert stars.shape == (2,)
    assert np.isfinite(stars).all()
    assert len(names["model"].recommend(user=42, n=10).movies) == 10
