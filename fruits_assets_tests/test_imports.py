"""Imports point downwards only, and importing does nothing."""

import ast
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import fruits_assets

PACKAGE = "fruits_assets"
FOLDER = Path(fruits_assets.__file__).parent

BASE = {"core", "storage"}
"""The lowest level: what photos, models and bytes are, with no notion of a lake or of Spark."""
LOWER = {"sample", "spark", "lake", "transforms", "sources", *BASE}
ALLOWED = {
    "storage": BASE,
    "core": BASE,
    "sources": {"sources", *BASE},
    "transforms": {"transforms", "sources", *BASE},
    "lake": {"lake", *BASE},
    "spark": {"spark", "lake", "transforms", "sources", *BASE},
    "sample": {"sample", "core"},
    "deliverables": {"deliverables", *LOWER},
    "reduction.py": {"lake", "sources", *BASE},
    "infrastructure": {"infrastructure", *BASE},
    "settings.py": {"spark", *BASE},
    "assets": {"assets", "deliverables", "settings", *LOWER},
    "checks.py": LOWER,
    "erasure": {"erasure", "assets", "deliverables", *LOWER},
    "webserver": {"webserver"},
}
"""Which layers each layer, a folder or a module, may import from."""
LOWEST = f"{PACKAGE}.core.errors"
"""All that storage, which is imported by everything else, imports of another layer."""
AWS = {"boto3", "botocore", "obstore", "s3transfer"}
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


@cache
def _nodes(file: Path) -> tuple[ast.AST, ...]:
    """All that a file says: several tests look at every file."""
    return tuple(ast.walk(ast.parse(file.read_bytes())))


def _imported(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file."""
    for node in _nodes(file):
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
        if name.partition(".")[0] in blocked:
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Blocked())
for blocked, modules in {steps!r}:
    for name in modules:
        importlib.import_module(name)
"""
"""Imports modules where others are not installed, in steps with fewer and fewer of these."""


DAGSTER = {"dagster", "dagster_pyspark", "tensorflow", "papermill", "pptx"}
"""Installed neither on clusters nor where a notebook runs."""
HOST = {*DAGSTER, "deltalake", "pydantic_settings"}
"""Installed where Dagster runs, and not on clusters."""
NEEDS_NONE_OF = {
    "storage": {*HOST, "pyspark", "py4j"},
    "core": {*HOST, "pyspark", "py4j"},
    "sources": {*HOST, "pyspark", "py4j"},
    "transforms": HOST,
    "deliverables": DAGSTER,
}


def test_clusters_and_notebooks_need_no_dagster() -> None:
    layers, blocked = list(NEEDS_NONE_OF), list(NEEDS_NONE_OF.values())
    assert all(before >= after for before, after in pairwise(blocked)), "one hides another"
    modules = [
        [name for name in _modules(layer) if not name.endswith(".__main__")] for layer in layers
    ]
    assert all(len(names) > 3 for names in modules)
    _run(BLOCKED.format(steps=list(zip(blocked, modules, strict=True))))


OF_FOLDERS = ("base", "folder", "parquet", "places", "region", "snapshot")
OPENED = """
from fruits_assets.storage.places import folder_at
folder_at({folder!r}).write("file", b"content")
print(folder_at({folder!r}).read("file").decode())
"""


def test_folders_need_nothing_of_aws(tmp_path: Path) -> None:
    modules = [f"{PACKAGE}.storage.{name}" for name in OF_FOLDERS]
    program = BLOCKED.format(steps=[(AWS, modules)]) + OPENED.format(folder=str(tmp_path))
    assert _run(program) == "content"


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_downwards_only(layer: str) -> None:
    for file in _files(layer):
        allowed = ALLOWED[layer] | COMMANDS.get(file.stem, set())
        for name in _imported(file):
            root, _, rest = name.partition(".")
            if root == PACKAGE and rest:
                assert rest.partition(".")[0] in allowed, f"{file} imports {name}"


def test_storage_imports_errors_only() -> None:
    for file in _files("storage"):
        own = {name for name in _imported(file) if name.startswith(f"{PACKAGE}.")}
        assert {it for it in own if not it.startswith(f"{PACKAGE}.storage")} <= {LOWEST}, file


def test_imports_run_in_no_circle() -> None:
    """Whichever module is imported first: lazy imports and those for types alone may."""
    graph = {_name(file): set(_first_imports(file)) for file in FOLDER.rglob("*.py")}
    assert f"{PACKAGE}.storage.base" in graph[f"{PACKAGE}.storage.folder"]
    assert f"{PACKAGE}.storage.s3" not in graph[f"{PACKAGE}.storage.places"], "see its comment"
    TopologicalSorter(graph).prepare()


def _name(file: Path) -> str:
    """Of a module."""
    return ".".join(file.relative_to(FOLDER.parent).with_suffix("").parts).removesuffix(".__init__")


def _first_imports(file: Path) -> Iterator[str]:
    """The modules of the package that are imported when a module is."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):  # what is not imported at once goes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(node):
            node.body = []  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (it.name for it in node.names if it.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if _is_module(name)]
            yield from modules or [node.module or ""]


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_module(name: str) -> bool:
    place = FOLDER.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def test_only_the_lake_knows_delta() -> None:
    for file in FOLDER.rglob("*.py"):
        roots = {name.partition(".")[0] for name in _imported(file)}
        assert "deltalake" not in roots or file.parent.name == "lake", file
    assert "deltalake" in set(_imported(FOLDER / "lake" / "table.py"))


def test_a_bucket_is_only_opened_after_it_was_asked_where_it_lies() -> None:
    """There is one way to a bucket: `folder_at`, which asks."""
    makers = {"S3Storage": "storage/places.py", "verified": "storage/places.py"}
    found = set()
    for file in FOLDER.rglob("*.py"):
        for node in _nodes(file):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in makers:
                    assert file.relative_to(FOLDER).as_posix() == makers[called], called
                    found.add(called)
    assert found == makers.keys()


def test_one_module_makes_the_clients_of_aws() -> None:
    """It holds them to their hosts; elsewhere, boto3 is known by its errors and settings only."""
    makers = {"boto3", "botocore.session"}
    for file in FOLDER.rglob("*.py"):
        own = file.relative_to(FOLDER).as_posix() == "storage/clients.py"
        assert (makers & set(_imported(file))) == (makers if own else set()), file


LOGIC = ("storage", "core", "sources", "transforms", "sample", "deliverables", "reduction.py")


@pytest.mark.parametrize("layer", LOGIC)
def test_logic_never_names_dagster(layer: str) -> None:
    for file in _files(layer):
        roots = {name.partition(".")[0] for name in _imported(file)}
        named = {root for root in roots if root.startswith("dagster")}
        assert named <= PIPES.get(file.stem, set()), file


def test_only_the_settings_read_the_environment_for_settings() -> None:
    for file in FOLDER.rglob("*.py"):
        if file.name == "settings.py":
            continue
        for node in _nodes(file):
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
