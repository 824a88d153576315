"""The command that serves the UI."""

import socket
import sys
from pathlib import Path

import click
import pytest
import uvicorn

from fruits_assets.webserver import __main__ as webserver
from fruits_assets.webserver import compat
from fruits_assets_tests.emr import eventually


@pytest.fixture
def server() -> uvicorn.Server:
    """It serves nothing."""
    return uvicorn.Server(uvicorn.Config("nothing:nothing"))


def test_only_this_machine_reaches_it() -> None:
    with webserver._listening(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_reported_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = rf"port {port} of 127\.0\.0\.1 cannot be used \(.*\)\. .*make ui PORT="
        with pytest.raises(click.ClickException, match=said), webserver._listening(port):
            pass


def test_the_server_ends_with_its_daemon(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "DAEMON", (sys.executable, "-c", ""))
    with webserver._daemon(Path("workspace.yaml"), server):
        eventually(lambda: server.should_exit)


def test_the_daemon_ends_with_the_server(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "DAEMON", (sys.executable, "-c", "import signal; signal.pause()"))
    with webserver._daemon(Path("workspace.yaml"), server) as daemon:
        assert daemon.poll() is None
    assert daemon.poll() is not None
