"""Imports point downwards only, and importing does nothing."""

import ast
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fruits_assets

PACKAGE = "fruits_assets"
FOLDER = Path(fruits_assets.__file__).parent

ALLOWED = {
    "core": {"core"},
    "transforms": {"transforms", "core"},
    "lake": {"lake", "core"},
    "spark": {"spark", "lake", "transforms", "core"},
    "sample": {"sample", "core"},
    "deliverables": {"deliverables", "sample", "spark", "lake", "transforms", "core"},
    "reduction.py": {"lake", "core"},
}
"""Which layers each layer, a folder or a module, may import from."""
COMMANDS = {"__main__": {"settings"}}
"""A command composes: it may read the settings too."""
PIPES = {"__main__": {"dagster_pipes"}}
"""What a cluster runs reports by Pipes, one module without dependencies that is not Dagster."""


def _modules(layer: str) -> list[str]:
    """All modules of a layer, by name."""
    names = [module.name for module in pkgutil.walk_packages([str(FOLDER / layer)])]
    return [f"{PACKAGE}.{layer}", *(f"{PACKAGE}.{layer}.{name}" for name in names)]


def _files(layer: str) -> list[Path]:
    """All files of a layer."""
    place = FOLDER / layer
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert files
    return files


def _imported(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield node.module or ""
            if node.module == PACKAGE:
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)


def _run(program: str, **variables: str) -> str:
    """What a program prints in a new process."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")},
        "PYTHONPATH": str(FOLDER.parent),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BLOCKED = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Blocked())
for name in {modules!r}:
    importlib.import_module(name)
"""


@pytest.mark.parametrize(
    ("layer", "blocked"),
    [
        ("core", {"dagster", "dagster_pyspark", "pyspark", "pydantic_settings", "tensorflow"}),
        ("transforms", {"dagster", "dagster_pyspark", "pydantic_settings", "tensorflow"}),
        ("deliverables", {"dagster", "dagster_pyspark", "tensorflow", "papermill", "pptx"}),
    ],
)
def test_clusters_and_notebooks_need_no_dagster(layer: str, blocked: set[str]) -> None:
    modules = [name for name in _modules(layer) if not name.endswith(".__main__")]
    assert len(modules) > 3
    _run(BLOCKED.format(blocked=blocked, modules=modules))


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_downwards_only(layer: str) -> None:
    for file in _files(layer):
        allowed = ALLOWED[layer] | COMMANDS.get(file.stem, set())
        for name in _imported(file):
            root, _, rest = name.partition(".")
            if root == PACKAGE and rest:
                assert rest.partition(".")[0] in allowed, f"{file} imports {name}"


@pytest.mark.parametrize("layer", ["core", "transforms", "sample", "deliverables", "reduction.py"])
def test_logic_never_names_dagster(layer: str) -> None:
    for file in _files(layer):
        roots = {name.partition(".")[0] for name in _imported(file)}
        named = {root for root in roots if root.startswith("dagster")}
        assert named <= PIPES.get(file.stem, set()), file


def test_only_the_settings_read_the_environment_for_settings() -> None:
    for file in FOLDER.rglob("*.py"):
        if file.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith("FRUITS_") or " " in node.value, file


DEFINITIONS = """
import sys
import fruits_assets.definitions
import pyspark
from fruits_assets.settings import Settings

loaded = sorted({"tensorflow", "keras"} & set(sys.modules))
assert not loaded, loaded
assert pyspark.SparkContext._active_spark_context is None
try:
    Settings()
except ValueError:
    print("the settings are read later")
"""


def test_importing_the_definitions_does_nothing(tmp_path: Path) -> None:
    printed = _run(DEFINITIONS, FRUITS_SPARK="no such place", FRUITS_LAKE=str(tmp_path / "lake"))
    assert printed == "the settings are read later"
    assert list(tmp_path.iterdir()) == []
