"""What clusters run is what this package is: shipped once, and named after its content."""

import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fruits_assets.spark import code, environment
from fruits_assets.spark.account import Architecture
from fruits_assets.transforms.transform import Transform, transform_at
from fruits_assets_tests.places import Bucket

LAYERS = ("core", "sources", "storage", "transforms")
"""The packages that a cluster gets; `lake` needs Delta, which no cluster has."""
ABSENT = ("dagster", "deltalake", "keras", "pydantic_settings", "tensorflow")
IMPORTED = f"""
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ImportError(name + " is not installed on clusters")

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import fruits_assets

assert fruits_assets.__file__.startswith(sys.argv[1]), fruits_assets.__file__
for layer in {LAYERS}:
    package = importlib.import_module("fruits_assets." + layer)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        assert type(importlib.import_module(module.name).__loader__).__name__ == "zipimporter"
        print(module.name)
"""


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> object:
    """One kind of server: how S3 is spoken is tested elsewhere."""
    return request.getfixturevalue("_moto")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Architecture]:
    """The architectures that environments have been built for, in place of really building them."""
    built: list[Architecture] = []

    def archive(architecture: Architecture, folder: Path) -> Path:
        built.append(architecture)
        file = folder / environment.name(architecture)
        file.write_bytes(f"packages for {architecture}, build {len(built)}".encode())
        return file

    monkeypatch.setattr(environment, "archive", archive)
    return built


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this package's code, which may be changed."""
    copy = tmp_path / "fruits_assets"
    shutil.copytree(code.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", copy)
    monkeypatch.setattr(code, "ENTRY", copy / "transforms" / "__main__.py")
    return copy


def ship(bucket: Bucket, architecture: Architecture = "arm64") -> tuple[code.Code, list[str]]:
    """The URIs, and what was logged."""
    logged: list[str] = []
    return code.ship(bucket.opened, architecture, log=logged.append), logged


# --------------------------------------------------------------------------------------- packed


def test_the_package_holds_its_layers_and_nothing_else():
    root = code.ROOT.parent
    expected = {"fruits_assets/__init__.py"} | {
        file.relative_to(root).as_posix()
        for layer in LAYERS
        for file in (code.ROOT / layer).rglob("*.py")
    }
    with zipfile.ZipFile(io.BytesIO(code.packed())) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(expected)
        for name in expected:
            assert archive.read(name) == (root / name).read_bytes()


def test_the_same_code_has_the_same_bytes(source: Path, tmp_path: Path):
    first = code.packed()
    for file in source.rglob("*.py"):
        file.touch()
        file.chmod(0o600)
    (source / "core" / "__pycache__").mkdir()
    (source / "core" / "__pycache__" / "images.cpython-311.pyc").write_bytes(b"of this machine")
    assert code.packed() == first
    (source / "spark" / "emr.py").write_text("of no concern to clusters")
    assert code.packed() == first
    (source / "core" / "images.py").write_text("another")
    assert code.packed() != first


def test_the_package_is_imported_as_it_is_shipped(tmp_path: Path):
    file = tmp_path / "fruits.zip"
    file.write_bytes(code.packed())
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"fruits_assets.storage.s3", "fruits_assets.transforms.__main__"} <= set(
        done.stdout.split()
    )


# ----------------------------------------------------------------------------------------- ship


def test_everything_is_shipped_once(bucket: Bucket, built: list[Architecture]):
    first, logged = ship(bucket)
    assert logged == ["building the cluster's Python environment for arm64"]
    shipped = bucket.versions()
    archive = environment.name("arm64")
    names = {uri.removeprefix(f"{bucket.base}/") for uri in (first.package, first.entry)}
    assert set(shipped) == names | {archive}
    assert first.environment == f"{bucket.base}/{archive}"
    again, logged = ship(bucket)
    assert again == first
    assert logged == []
    assert bucket.versions() == shipped
    assert built == ["arm64"]


def test_what_is_shipped_is_what_is_said(bucket: Bucket, built: list[Architecture]):
    shipped, _ = ship(bucket)

    def content(uri: str) -> bytes:
        return bucket.get(uri.removeprefix(f"{bucket.base}/"))

    assert content(shipped.package) == code.packed()
    assert content(shipped.entry) == code.ENTRY.read_bytes()
    assert content(shipped.environment) == b"packages for arm64, build 1"
    for uri in (shipped.package, shipped.entry):
        assert hashlib.sha256(content(uri)).hexdigest()[:16] in uri


def test_each_architecture_has_an_environment_of_its_own(bucket: Bucket, built: list[Architecture]):
    (arm, _), (intel, _) = ship(bucket), ship(bucket, "x86_64")
    assert built == ["arm64", "x86_64"]
    assert arm.environment != intel.environment
    assert (arm.package, arm.entry) == (intel.package, intel.entry)


def test_what_has_another_size_than_it_should_is_shipped_again(
    bucket: Bucket, built: list[Architecture]
):
    shipped, _ = ship(bucket)
    name = shipped.package.removeprefix(f"{bucket.base}/")
    bucket.put(name, b"cut")
    assert ship(bucket)[0] == shipped
    assert bucket.get(name) == code.packed()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("core/images.py", {"package"}),
        ("storage/s3.py", {"package"}),
        ("transforms/transform.py", {"package"}),
        ("transforms/__main__.py", {"package", "entry"}),
        ("spark/emr.py", set()),
    ],
)
def test_a_changed_file_changes_names_and_replaces_nothing(
    bucket: Bucket, built: list[Architecture], source: Path, file: str, changes: set[str]
):
    before, _ = ship(bucket)
    names = bucket.versions()
    with (source / file).open("a") as opened:
        opened.write("# changed\n")
    after, _ = ship(bucket)
    changed = {
        name
        for name in ("package", "entry", "environment")
        if getattr(before, name) != getattr(after, name)
    }
    assert changed == changes
    assert set(names) <= set(bucket.versions())
    assert len(bucket.versions()) == len(names) + len(changes)
    assert built == ["arm64"]


# --------------------------------------------------------------------------------- transform_at


@pytest.mark.parametrize(
    "address",
    [
        "fruits_assets.transforms.ingest:ingest",
        "fruits_assets.transforms.featurize:featurize",
        "fruits_assets.transforms.pca:fit_pca",
        "fruits_assets.transforms.pca:apply_pca",
    ],
)
def test_a_transform_is_found_at_its_address(address: str):
    found = transform_at(address)
    assert isinstance(found, Transform)
    assert found.address == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "os:system",
        "subprocess:run",
        "fruits_assets.erasure:erase",
        "fruits_assets.assets.raw_images:ingest",
        "fruits_assets.core.images:decode",
        "fruits_assets.transforms:ingest",
        "fruits_assets.transforms.ingest",
        "fruits_assets.transforms.ingest:",
        "fruits_assets.transforms.transform:_own_error",
        "fruits_assets.transforms.ingest:ingest.function",
        "fruits_assets.transforms.ingest:no_such",
        "fruits_assets.transforms.transform:for_each",
        "fruits_assets.transforms.transform:Transform",
        "fruits_assets.transforms.transform:json",
        "fruits_assets_tests.transforms.every_transform:ingest",
        "fruits_assets.transformsx:ingest",
    ],
)
def test_what_is_no_transform_of_this_package_is_refused(address: str):
    with pytest.raises(ValueError, match="there is no transform at"):
        transform_at(address)


def test_no_module_but_the_transforms_is_even_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ValueError, match="there is no transform at 'this:s'"):
        transform_at("this:s")
    assert "this" not in sys.modules


def test_a_module_that_there_is_not_is_named():
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        transform_at("fruits_assets.transforms.no_such:ingest")
