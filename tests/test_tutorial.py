"""The tutorial runs as it is, and its committed outputs are complete."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from tests.support import ROOT

NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_committed_notebook_was_executed_and_has_no_paths_of_a_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(
        range(1, len(code(notebook)) + 1)
    )
    kinds = {output.output_type for cell in code(notebook) for output in cell.outputs}
    assert kinds == {"execute_result", "stream"}
    assert not re.search(r'["\s](/[a-z]+){2,}|[A-Z]:\\\\', NOTEBOOK.read_text())


@pytest.mark.system
@pytest.mark.ray(seconds=60)
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shutil.copy(ROOT / "examples" / "tutorial.toml", tmp_path)
    notebook = nbformat.read(NOTEBOOK, 4)
    committed = [cell.get("outputs") for cell in code(nbformat.read(NOTEBOOK, 4))]
    resources = {"metadata": {"path": str(tmp_path)}}

    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()

    run = tmp_path / "tutorial" / "runs" / "tutorial"
    rated = pd.read_parquet(tmp_path / "tutorial" / "raw" / "synthetic" / "ratings.parquet")
    by_42 = set(rated.loc[rated["user_id"] == 42, "movie_id"])
    best = pd.read_parquet(
        tmp_path / "tutorial" / "recommendations" / "tutorial" / "recommendations.parquet"
    )
    of_42 = best.loc[best["user_id"] == 42, "movie_id"].tolist()
    assert of_42
    assert not by_42 & set(of_42)
    # What the notebook shows is what the run has written, and what is committed.
    shown = [str(cell.outputs) for cell in code(notebook)]
    comparison = json.loads((run / "comparison.json").read_text())
    for entry in comparison["entries"]:
        rmse = np.mean([seed["rmse"] for seed in entry["test"]])
        assert f"{rmse:.4f}".rstrip("0") in shown[1]
    assert str(of_42[0]) in shown[4]
    kinds = [[output.output_type for output in outputs] for outputs in committed]
    assert [[output.output_type for output in cell.outputs] for cell in code(notebook)] == kinds
    # 1 to 10 are 0.5 to 5 stars.
    own = pd.read_parquet(tmp_path / "own" / "raw" / "orders" / "ratings.parquet")
    assert own["rating"].tolist() == [3.5, 5.0, 1.0, 4.0, 4.5, 0.5]
