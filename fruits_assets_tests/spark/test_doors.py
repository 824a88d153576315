"""Spark's ports: nothing listens beyond loopback, and nobody is answered without the key."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from pyspark.sql import SparkSession

from benchmarks import cluster
from fruits_assets.core.errors import SparkError
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark import doors
from fruits_assets.spark.local import LocalSpark
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import eventually
from fruits_assets_tests.listeners import Watch

CONTENT = b"personal" * 1000


def _environment(session: SparkSession) -> Any:
    """What a driver's JVM is made of (SparkEnv)."""
    jvm: Any = session.sparkContext._jvm
    return jvm.org.apache.spark.SparkEnv.get()


def _block_manager(session: SparkSession) -> int:
    return _environment(session).blockManager().blockManagerId().port()


def _driver(session: SparkSession) -> int:
    return int(session.sparkContext.getConf().get("spark.driver.port") or 0)


def _java(session: SparkSession) -> psutil.Process:
    jvm: Any = session.sparkContext._jvm
    return psutil.Process(jvm.ProcessHandle.current().pid())


def test_a_session_listens_on_loopback_only(session: SparkSession):
    with Watch(os.getpid()) as watch:
        session.range(0, 2, 1, 2).mapInArrow(lambda batches: batches, "id long").collect()
        both = {_driver(session), _block_manager(session)}
        eventually(lambda: both <= {port for _, _, port in watch.seen})
    assert watch.open == []


def _request(body: bytes) -> bytes:
    """A frame of Spark's protocol that asks for something (RpcRequest of TransportClient)."""
    frame = struct.pack(">BqI", 3, 1, len(body)) + body
    return struct.pack(">q", len(frame) + 8) + frame


def _strings(*texts: str) -> bytes:
    return b"".join(struct.pack(">I", len(text)) + text.encode() for text in texts)


def _open_blocks(blocks: Sequence[str]) -> bytes:
    """The question with which one block manager opens blocks of another (OpenBlocks)."""
    return b"\x00" + _strings("app", "1") + struct.pack(">I", len(blocks)) + _strings(*blocks)


def _answer(port: int, frame: bytes) -> bytes:
    """What a port answers first, before it hangs up or waits for more."""
    with socket.create_connection((doors.LOOPBACK, port), timeout=20) as client:
        client.sendall(frame)
        try:
            return client.recv(2**16)
        except ConnectionError:
            return b""


def test_who_has_no_key_is_given_no_block(session: SparkSession):
    context: Any = session.sparkContext._jsc
    broadcast = context.broadcast(bytearray(CONTENT))
    block = f"broadcast_{broadcast.id()}_piece0"
    answer = _answer(_block_manager(session), _request(_open_blocks([block])))
    # Type 4 is an answer (here: the handle of a stream of blocks), 5 a failure.
    assert answer[8:9] != b"\x04", "the block manager has opened the block"


def _serialized(name: str) -> bytes:
    """A Java object of a class, as a message to an endpoint of the driver carries it."""
    text = struct.pack(">H", len(name)) + name.encode()
    nobody_to_nobody = b"\x00\x00\x00\x00"  # no addresses, and an endpoint without a name
    return nobody_to_nobody + b"\xac\xed\x00\x05sr" + text + bytes(8) + b"\x02\x00\x00xp"


def test_nothing_is_deserialised_that_somebody_without_a_key_sends(session: SparkSession):
    answer = _answer(_driver(session), _request(_serialized("example.Gadget")))
    assert b"example.Gadget" not in answer, "the driver has looked for the class"


def test_the_key_is_on_no_command_line_and_in_no_setting(session: SparkSession):
    settings = dict(session.sparkContext.getConf().getAll())
    assert settings["spark.authenticate"] == settings["spark.network.crypto.enabled"] == "true"
    assert doors.SECRET not in settings
    java = _java(session)
    assert not [it for it in java.cmdline() if "secret" in it.lower()]
    key = _environment(session).securityManager().getSecretKey()
    assert len(key) >= 32
    assert key not in " ".join([*java.cmdline(), *java.environ().values(), *settings.values()])


@pytest.mark.parametrize(
    ("master", "here"),
    [
        ("local", True),
        ("local[*,4]", True),
        ("spark://127.0.0.1:7077", True),
        ("spark://localhost:7077", True),
        ("spark://[::1]:7077", True),
        ("spark://192.0.2.1:7077", False),
        ("spark://127.0.0.1:7077,192.0.2.1:7077", False),
        ("spark://127.0.0.1.example.com:7077", False),
        ("yarn", False),
    ],
)
def test_a_driver_listens_elsewhere_only_for_executors_that_are_elsewhere(master: str, here: bool):
    assert doors.is_here(master) is here
    settings = doors.closed(master)
    assert ("spark.driver.bindAddress" in settings) is here
    assert settings["spark.authenticate"] == "true"


@pytest.mark.parametrize("name", [*doors.PROTECTED, *doors.ON_LOOPBACK, doors.SECRET])
def test_no_config_of_a_run_opens_a_door(name: str):
    with pytest.raises(SparkError, match="spark_config may not hold"):
        LocalSpark(lake=LakeResource(base="unused"), spark_config={name: "false"})


def test_a_session_leaves_the_handler_of_ctrl_c_alone(session: SparkSession):
    assert session.sparkContext
    assert "SparkContext" not in repr(signal.getsignal(signal.SIGINT))


PROGRAM = """
import sys
from fruits_assets.core.errors import SparkError
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark.local import LocalSpark

target = LocalSpark(
    lake=LakeResource(base="unused"),
    master=sys.argv[1],
    spark_config={"spark.executor.memory": "512m", "spark.cores.max": "1"},
)
try:
    print(target.session().range(0, 10, 1, 2).mapInArrow(lambda rows: rows, "id long").count())
except SparkError as error:
    print(error)
"""


def _counted(master: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, master],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_cluster_listens_on_loopback_and_serves_who_knows_its_secret(tmp_path: Path):
    with cluster.standalone(1, tmp_path) as running, Watch(os.getpid()) as watch:
        program = _counted(running.master, **running.environment)
        assert program.communicate(timeout=300)[0].strip() == "10"
        assert {"java", "python"} <= {name for name, _, _ in watch.seen}
        assert watch.open == []
        without = _counted(running.master)
        assert "is only talked to with a secret" in without.communicate(timeout=300)[0]
        port = urlsplit(running.master).port or 0
        assert b"example.Gadget" not in _answer(port, _request(_serialized("example.Gadget")))
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.ZombieProcess):  # it has ended
                assert doors.SECRET not in " ".join(process.cmdline())
    settings = tmp_path / "conf" / "spark-defaults.conf"
    assert settings.stat().st_mode & 0o077 == settings.parent.stat().st_mode & 0o077 == 0
