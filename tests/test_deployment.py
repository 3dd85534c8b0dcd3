"""``cluster.yaml`` against Ray's own schema, and what the repository promises its users."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from tests.support import ROOT

CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_the_cluster_file_fits_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())

    jsonschema.validate(CLUSTER, schema)


def test_trials_stay_off_the_head_and_there_are_cpu_and_gpu_workers() -> None:
    kinds = CLUSTER["available_node_types"]

    assert kinds[CLUSTER["head_node_type"]]["resources"]["CPU"] == 0
    workers = [kind for name, kind in kinds.items() if name != CLUSTER["head_node_type"]]
    assert any(kind["resources"].get("GPU", 0) > 0 for kind in workers)
    assert any("GPU" not in kind["resources"] for kind in workers)


def test_torch_is_pinned_in_the_lock_and_free_in_the_metadata() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    assert "torch==2.13.0" in lock
    assert "torch>=2.6" in metadata
    assert not [line for line in lock if "://" in line or line.startswith("-")]


@pytest.mark.parametrize("target", ["run", "test", "check", "bench"])
def test_every_target_makes_its_own_environment(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert f"{target}: $(READY)" in makefile
