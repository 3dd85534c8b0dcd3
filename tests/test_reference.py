"""The reference of the Python API is built without a warning, and has what it is for."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

from ncf.inference.recommender import Recommender
from tests.support import ROOT


def test_the_reference_is_built_and_names_every_method(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = {page.name: page.read_text() for page in tmp_path.glob("*.html")}
    methods = [
        name
        for name, member in inspect.getmembers(Recommender, inspect.isfunction)
        if not name.startswith("_") and name not in {"order_of", "predict_rows", "interval_rows"}
    ]
    assert len(methods) >= 10
    for name in methods:
        assert f'id="ncf.inference.recommender.Recommender.{name}"' in pages["index.html"], name
    assert "UnsupportedError" in pages["errors.html"]
    assert 'id="ncf.inference.results.Recommendations.to_pandas"' in pages["results.html"]
    # Nothing is loaded from other hosts.
    loaded = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]+)"', "".join(pages.values()))
    assert loaded == []
