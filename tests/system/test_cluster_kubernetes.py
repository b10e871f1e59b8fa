"""The Kubernetes manifests of the examples: valid by the API's own schemas, and their commands by qad's command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qad.config import load_config

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "kubernetes"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
OLDEST, NEWEST = "1.33", "1.37"
"""Versions of Kubernetes: ``backoffLimitPerIndex`` is stable from the first."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def everything() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in documents(path)]


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each workload and the specification of its pods."""
    for document in everything():
        if "template" in document.get("spec", {}):
            yield document, document["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for document, pod in pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{document['metadata']['name']}/{container['name']}", pod, container


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_is_valid(path: Path, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_commands_are_understood() -> None:
    import typer

    from qad.cli.main import app

    program = typer.main.get_command(app)
    stages = []
    for _, _, container in containers():
        words = container["command"]
        assert all(isinstance(word, str) for word in words)
        if words[0] == "qad":
            context = program.make_context("qad", words[1:2])
            program.get_command(context, words[1]).make_context(words[1], words[2:])  # type: ignore[attr-defined]
            stages.append(words[1])
    assert stages == ["build-grid", "train", "score", "inspect", "run", "fetch", "extract"]


def test_dask_commands_are_understood() -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    from distributed.cli import dask_scheduler, dask_worker

    programs = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    found = [container["command"] for _, _, container in containers() if container["command"][0] == "dask"]
    assert [words[1] for words in found] == ["scheduler", "worker"]
    for words in found:
        programs[words[1]].make_context(words[1], words[2:])
    assert found[1][found[1].index("--nthreads") + 1] == "1"


def test_every_index_is_a_shard() -> None:
    indexed = [(document, pod) for document, pod in pods() if document["spec"].get("completionMode") == "Indexed"]
    assert len(indexed) == 1
    for document, pod in indexed:
        for container in [*pod["initContainers"], *pod["containers"]]:
            values = {item["name"]: item.get("value") for item in container["env"]}
            assert values["QAD_SHARDS"] == str(document["spec"]["completions"])
            assert container["command"][-2:] != ["--shard"]
            assert "auto" in container["command"]


def test_nothing_runs_as_root_or_writes_to_its_image() -> None:
    for name, pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert not container["securityContext"]["allowPrivilegeEscalation"], name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert not pod["automountServiceAccountToken"], name
        assert container["resources"]["limits"]["memory"], name
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in pod["volumes"]}, name
        assert "tmp" in mounted, name


def test_names_refer_to_what_is_there(tmp_path: Path) -> None:
    named = {(document["kind"], document["metadata"]["name"]) for document in everything()}
    text = "".join(path.read_text() for path in MANIFESTS)
    for claim in re.findall(r"claimName: ([\w-]+)", text):
        assert ("PersistentVolumeClaim", claim) in named
    for host in re.findall(r"tcp://([\w-]+):8786", text):
        assert ("Service", host) in named
    for document in everything():
        if document["kind"] == "Service":
            labels = [item["spec"]["template"]["metadata"]["labels"] for item, _ in pods()]
            assert sum(document["spec"]["selector"].items() <= label.items() for label in labels) == 1
    (settings,) = [document for document in everything() if document["kind"] == "ConfigMap"]
    (tmp_path / "qad.toml").write_text(settings["data"]["qad.toml"])
    config = load_config(tmp_path / "qad.toml")
    for name, _, container in containers():
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        if container["command"][0] == "qad" or "worker" in name:
            assert mounts["work"] == str(config.root), name
        for item in container.get("env", []):
            if item["name"] == "QAD_CONFIG":
                assert item["value"] == f"{mounts['settings']}/qad.toml", name


def test_image_is_slim_and_not_root() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert lines[-1].startswith("CMD")
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert bases == ["python:3.12-slim"] * 2
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    users = {pod["securityContext"]["runAsUser"] for _, pod in pods()}
    assert users == {int(user.partition(":")[0])}
    copied = [word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]]
    assert all((FOLDER.parents[1] / word).exists() for word in copied)
    tags = {container["image"] for _, _, container in containers()}
    assert len(tags) == 1
    assert not tags.pop().endswith(":latest")


def test_no_secret_is_written_down() -> None:
    assert not [document for document in everything() if document["kind"] == "Secret"]
    for _, _, container in containers():
        for item in container.get("env", []):
            assert item["name"] != "QAD_INDEX__DSN" or "secretKeyRef" in item["valueFrom"]
