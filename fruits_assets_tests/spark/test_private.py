"""Spark's blocks and broadcasts: nobody else may read them, and they do not stay."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from fruits_assets.spark import private
from fruits_assets.transforms.spread import broadcast, rows_of
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import eventually

SECRET = b"Training/Banana/1.jpg" * 10


def _holding(text: bytes, folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


def test_nobody_else_may_look_at_what_spark_keeps(session: SparkSession):
    folder = private.folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    jvm: Any = session.sparkContext._jvm
    kept = jvm.org.apache.spark.SparkEnv.get().blockManager().diskBlockManager().localDirsString()
    made = jvm.java.io.File.createTempFile("made", ".tmp").getPath()
    for one in [*kept, made, session.sparkContext._temp_dir]:
        assert Path(one).is_relative_to(folder)


def test_a_broadcast_is_on_no_disk_afterwards(session: SparkSession):
    kept = Path(session.sparkContext._temp_dir)
    before = set(kept.iterdir())
    with broadcast(session, SECRET) as everywhere:
        rows = session.range(0, 1, 1, 1).mapInArrow(
            lambda batches: batches if everywhere.value else iter(()), "id long"
        )
        assert rows.count() == 1
        assert set(kept.iterdir()) - before
        assert not _holding(SECRET, private.folder())
    assert eventually(lambda: not set(kept.iterdir()) - before)


def test_rows_that_are_shuffled_cannot_be_read_on_the_disk(session: SparkSession):
    secrets = [hashlib.sha256(bytes([i])).hexdigest() for i in range(100)]
    frame = rows_of(session, [(secret,) for secret in secrets], "sha256 string")
    assert frame.groupBy("sha256").count().count() == 100
    assert list(private.folder().rglob("shuffle_*.data"))
    assert not [one for one in secrets if _holding(one.encode(), private.folder())]


PROGRAM = """
import os, sys
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark import private
from fruits_assets.spark.local import LocalSpark

if sys.argv[1] == "with Spark":
    LocalSpark(lake=LakeResource(base="unused"), master="local[1]").session().range(1).count()
private.folder()
if os.fork() == 0:
    sys.exit()
os.wait()
assert private.folder().is_dir()
print(private.folder(), flush=True)
sys.stdin.read()
"""


def _started(how: str, temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout
    return program, Path(program.stdout.readline().strip())


@pytest.mark.parametrize("how", ["without", pytest.param("with Spark", marks=pytest.mark.slow)])
def test_nothing_is_left_of_a_process_that_ends(tmp_path: Path, how: str):
    program, folder = _started(how, tmp_path)
    found, jvms = list(folder.iterdir()), psutil.Process(program.pid).children()
    _, said = program.communicate()
    psutil.wait_procs(jvms, timeout=60)
    assert found
    assert len(jvms) == (how == "with Spark")
    assert (program.returncode, list(tmp_path.iterdir())) == (0, [])
    assert "Exception" not in said


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    killed, its_folder = _started("without", tmp_path)
    (its_folder / "blocks").mkdir()
    killed.kill()
    killed.communicate()
    assert its_folder.is_dir()
    alive, in_use = _started("without", tmp_path)
    assert not its_folder.exists()
    with alive:
        stay = [in_use, tmp_path / "fruits-spark-notes", tmp_path / "fruits-spark-noteboox"]
        for folder in stay[1:]:
            folder.mkdir()
        (stay[1] / private.LOCK).touch()
        target = tmp_path / "target"
        target.mkdir()
        (target / private.LOCK).touch()
        (tmp_path / "fruits-spark-12345678").symlink_to(target)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        private.sweep()
        assert [folder for folder in stay if not folder.is_dir()] == []
        assert (target / private.LOCK).exists()
        alive.send_signal(signal.SIGKILL)


def test_folders_of_other_users_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "fruits-spark-12345678"
    folder.mkdir()
    (folder / private.LOCK).touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    private.sweep()
    assert folder.is_dir()
    assert list(private.own(private.PREFIX)) == []
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private.sweep()
    assert not folder.exists()
