"""Serves the emulator until it is told to end, or whoever started it has ended."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from fruits_assets_tests.emulator.api import Service
from fruits_assets_tests.emulator.processes import SESSIONS
from fruits_assets_tests.emulator.server import Application
from fruits_assets_tests.yarn import cluster

PARENT_SECONDS = 0.5
"""How often to look whether the process that started this one is still there."""


def main() -> None:
    """Serves on loopback; ends on SIGTERM, SIGINT, and with its parent, and all steps with it."""
    parser = argparse.ArgumentParser(prog="python -m fruits_assets_tests.emulator")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    wanted = parser.parse_args()
    os.environ["MOTO_PORT"] = str(wanted.port)  # where moto finds itself
    service = Service(f"http://127.0.0.1:{wanted.port}", wanted.folder.resolve())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    server = make_server(
        "127.0.0.1",
        wanted.port,
        Application(service),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
    try:
        server.serve_forever()
    finally:
        SESSIONS.close()
        cluster.stop_all()


def _leave(*_: object) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # told twice, it still ends its steps first
    sys.exit(0)


def _follow(parent: int) -> None:
    """Ends this process once its parent has ended, however that came about."""
    ended = threading.Event()
    while os.getppid() == parent:
        ended.wait(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
