"""Dependencies point in one direction, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "qad"
BASE = {
    *("errors", "results", "schema", "config", "settings", "workspace", "parallel", "__init__"),
    *("lines", "profiles", "iron", "cosmology"),
}
SHARED = BASE | {"storage", "work", "terminal"}
STAGES = {"fetching", "extraction", "gridding", "training", "scoring", "analysis", "matching", "inspection", "index"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "storage": BASE | {"storage"},
    "work": BASE | {"work", "storage"},
    "terminal": BASE | {"terminal", "storage"},
    "desi": SHARED | {"desi"},
    "models": SHARED | {"models"},
    "fetching": SHARED | {"fetching", "desi"},
    "extraction": SHARED | {"extraction", "desi"},
    "gridding": SHARED | {"gridding", "desi"},
    "matching": SHARED | {"matching", "desi"},
    "training": SHARED | {"training", "models"},
    "scoring": SHARED | {"scoring", "models"},
    "inspection": SHARED | {"inspection", "models"},
    "analysis": SHARED | {"analysis", "desi"},
    "publishing": SHARED | {"publishing", "inspection", "analysis"},
    "index": SHARED | {"index"},
    "simulation": SHARED | {"simulation", "desi"},
    # plants into extracted spectra and sends them through the stages that the user's own went through
    "evaluation": SHARED | {"evaluation", "simulation", "models", "desi", "extraction", "gridding", "scoring"},
    "status": SHARED,
    "api": SHARED | STAGES | {"simulation", "evaluation", "publishing"},
    "cli": SHARED | STAGES | {"cli", "publishing", "api", "status", "simulation", "evaluation"},
    "__main__": {"cli", "__init__"},
}
PROMISED_NAMES = {("models", "training"), ("__init__", "api")}
"""`qad.models.QSOAutoencoder`, as the project's first README promised it, trains: the one arrow against the rule."""

ONLY_IN = {
    "typer": {"cli"},
    "rich": {"cli", "terminal", "inspection"},
    "textual": {"inspection"},
    "matplotlib": {"inspection", "evaluation", "analysis"},
    "PIL": {"inspection"},
    "boto3": {"fetching"},
    "botocore": {"fetching"},
    "astropy": {"desi", "matching", "simulation", "inspection", "publishing"},
    "psycopg": {"index"},
    "pyvo": {"matching"},
    "requests": {"matching"},
    "distributed": {"work"},
    "dask": {"work"},
    "jax": {"models", "training", "scoring"},
    "flax": {"models", "training", "scoring"},
    "numba": {"work"},
    "cdspyreadme": {"publishing"},
    "optax": {"training"},
}
HEAVY = (
    "numpy",
    "polars",
    "pyarrow",
    "astropy",
    "boto3",
    "psycopg",
    "jax",
    "flax",
    "scipy",
    "numba",
    "rich",
    "textual",
    "matplotlib",
    "PIL",
    "distributed",
)
"""Not pydantic: Typer imports it by itself as soon as a command has options."""


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield top, path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "qad"}
    return names


def test_arrows_between_packages_point_one_way() -> None:
    wrong = []
    for top, path, tree in modules():
        for name in imported(tree):
            if not name.startswith("qad."):
                continue
            target = name.split(".")[1]
            target = target if (PACKAGE / target).exists() or (PACKAGE / f"{target}.py").exists() else "__init__"
            if target not in MAY_IMPORT[top] and (top, target) not in PROMISED_NAMES:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_library_is_known_to_its_package_only() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for top, path, tree in modules()
        for name in imported(tree)
        if top not in ONLY_IN.get(name.split(".")[0], {top})
    ]
    assert not wrong, "\n".join(wrong)


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys, json; print('\\n' + json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["inspect", "--help"]])
def test_help_imports_nothing_heavier_than_typer(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["qad", *{arguments!r}]
from qad.__main__ import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert loaded_by(code).isdisjoint(HEAVY)


def test_version_does_not_even_import_typer() -> None:
    code = "import sys; sys.argv = ['qad', '--version']; from qad.__main__ import main; main()"
    assert loaded_by(code).isdisjoint({*HEAVY, "typer"})


def test_import_qad_costs_nothing() -> None:
    assert loaded_by("import qad").isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["qad.inspection.stage", "qad.fetching.stage", "qad.matching.stage"])
def test_looking_never_waits_for_jax(module: str) -> None:
    assert loaded_by(f"import {module}").isdisjoint({"jax", "flax", "optax"})
