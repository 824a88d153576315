"""The environment of clusters: the lock's packages, for both architectures, and nothing more."""

import ast
import importlib.metadata
import re
import sys
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyspark
import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import environment
from fruits_assets.spark.account import Architecture
from fruits_assets_tests import node

PACKAGE = Path(environment.__file__).parent.parent
PINS = re.compile(r"^([a-z0-9-]+)==(\S+)((?:[^\n]*\\\n\s+--hash=\S+)+)", re.MULTILINE)
NOT_ON_CLUSTERS = {"keras", "tensorflow"}
"""Imported only where a model is converted, which is on the Dagster host."""
SPARKS_OWN = {"py4j", "pyspark"}

MACHINES: dict[Architecture, bytes] = {"arm64": b"\xb7\x00", "x86_64": b"\x3e\x00"}
IMPORTS = """
import importlib, pkgutil, sys
import fruits_assets.core, fruits_assets.storage, fruits_assets.transforms

for package in (fruits_assets.core, fruits_assets.storage, fruits_assets.transforms):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
for absent in ("dagster", "deltalake", "tensorflow", "keras"):
    assert importlib.util.find_spec(absent) is None, absent
print("pyspark", sys.modules["pyspark"].__version__)
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built once lies below this folder of the test session."""
    return tmp_path_factory.getbasetemp()


def pins(lock: Path) -> dict[str, tuple[str, str]]:
    """Package -> its version and hashes."""
    return {name: (version, hashes) for name, version, hashes in PINS.findall(lock.read_text())}


def imported(folder: Path) -> set[str]:
    """Top-level modules that the files of a folder import, wherever in the file."""
    found = set()
    for file in folder.rglob("*.py"):
        for one in ast.walk(ast.parse(file.read_bytes())):
            names = [one.module or ""] if isinstance(one, ast.ImportFrom) else []
            names += [alias.name for alias in one.names] if isinstance(one, ast.Import) else []
            found |= {name.partition(".")[0] for name in names}
    return found - sys.stdlib_module_names - {PACKAGE.name}


def members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every file of an archive, and how it begins."""
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None, member.name
            yield member, content.read(20)


def packages(archive: Path) -> dict[str, str]:
    """Package -> version, as in the archive."""
    with tarfile.open(archive) as tar:
        folders = {name.partition("/")[0] for name in tar.getnames()}
    pairs = [one.removesuffix(".dist-info").split("-") for one in folders if "dist-info" in one]
    return {name.replace("_", "-"): version for name, version in pairs}


def test_every_pin_is_a_pin_of_the_whole_lock():
    whole, cluster = pins(node.REPOSITORY / "requirements.lock"), pins(environment.LOCK)
    assert len(cluster) > 15
    assert cluster.items() <= whole.items()
    assert len(cluster) == len(re.findall("^[a-z].*==", environment.LOCK.read_text(), re.MULTILINE))


def test_all_that_runs_on_clusters_finds_what_it_imports():
    layers = ("core", "sources", "storage", "transforms")
    roots = set().union(*(imported(PACKAGE / layer) for layer in layers))
    assert {"ai_edge_litert", "dagster_pipes", "pyspark"} <= roots
    distributions = importlib.metadata.packages_distributions()
    needed = {
        distributions[root][0].lower().replace("_", "-")
        for root in roots - NOT_ON_CLUSTERS - SPARKS_OWN
    }
    assert needed <= pins(environment.LOCK).keys()


def test_what_no_cluster_uses_is_not_there():
    not_there = {"dagster", "deltalake", "h5py", "pyspark", "tensorflow", "uv"}
    assert not pins(environment.LOCK).keys() & not_there


@pytest.mark.parametrize("architecture", MACHINES)
@pytest.mark.slow
def test_archives_fit_their_machines(architecture: Architecture, base: Path):
    archive = node.archive(architecture, base)
    assert archive.name == environment.name(architecture)
    assert archive.stat().st_size <= 150 * 10**6
    libraries = 0
    services: set[str] = set()
    for member, begin in members(archive):
        assert member.isfile(), member.name
        if service := re.fullmatch(r"botocore/data/([^/]+)/.+", member.name):
            services.add(service[1])
        assert (member.uid, member.gid, member.mode) == (0, 0, 0o644)
        assert not re.search(r"(^|/)(tests|include|__pycache__)/|\.(pyc|pyi|h|a)$", member.name)
        if begin.startswith(b"\x7fELF"):
            libraries += 1
            assert begin[18:20] == MACHINES[architecture], member.name
    assert libraries > 50
    assert services == {"s3", "sso", "sso-oidc", "sts"}
    found = packages(archive)
    locked = {name: version for name, (version, _) in pins(environment.LOCK).items()}
    assert found.items() <= locked.items()
    assert locked.keys() - found.keys() == {"colorama"}, "what only Windows needs"


@pytest.mark.slow
def test_the_same_lock_gives_the_same_bytes(base: Path):
    first = node.archive("x86_64", base)
    second = environment.archive("x86_64", base / "again")
    assert first.parent != second.parent
    assert sha256(first.read_bytes()).digest() == sha256(second.read_bytes()).digest()
    assert list(second.parent.iterdir()) == [second]


def test_the_name_changes_with_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [environment.name("arm64"), environment.name("x86_64")]
    assert re.fullmatch(r"environment-arm64-[0-9a-f]{16}\.tar\.gz", names[0])
    with monkeypatch.context() as patch:
        patch.setattr(environment, "FORMAT", environment.FORMAT + 1)
        names.append(environment.name("arm64"))
    lock = tmp_path / "cluster.lock"
    lock.write_text(environment.LOCK.read_text().replace("pillow==1", "pillow==2"))
    monkeypatch.setattr(environment, "LOCK", lock)
    names.append(environment.name("arm64"))
    assert len(set(names)) == 4


def test_libraries_of_another_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(architecture: Architecture, target: Path) -> None:
        (target / "wrong").mkdir(parents=True)
        (target / "wrong" / "library.so").write_bytes(b"\x7fELF".ljust(18, b"\0") + b"\x3e\x00")

    monkeypatch.setattr(environment, "_install", install)
    assert environment.archive("x86_64", tmp_path).is_file()
    with pytest.raises(SparkError, match=r"wrong/library\.so is for another machine than arm64"):
        environment.archive("arm64", tmp_path / "arm64")
    assert list((tmp_path / "arm64").iterdir()) == []


def test_what_is_not_what_was_pinned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = tmp_path / "cluster.lock"
    lock.write_text(f"six==1.17.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(environment, "LOCK", lock)
    with pytest.raises(SparkError, match="could not be fetched") as refused:
        environment.archive("arm64", tmp_path / "archive")
    node.skip_unless_fetched(str(refused.value))
    assert "0000" in str(refused.value)


@pytest.mark.slow
def test_a_node_imports_all_that_runs_on_clusters(base: Path):
    done = node.run(node.unpacked(base), pyspark.__version__, "-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    *modules, version = done.stdout.splitlines()
    assert version == f"pyspark {pyspark.__version__}"
    assert {"fruits_assets.storage.s3", "fruits_assets.transforms.featurize"} <= set(modules)
