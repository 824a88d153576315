"""The private names of Dagster that the UI needs, in one place.

`dagster dev` starts a code server, the webserver and the daemon, but has no way to put middleware
into the webserver. `fruits_assets_tests/webserver/test_compat.py` fails when one of these goes.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import yaml
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.applications import Starlette

DAEMON = (sys.executable, "-m", "dagster._daemon", "run")
"""As `dagster dev` starts it."""
POLL_MILLISECONDS = 2000
"""How often the pages of the UI ask for news, as with `dagster dev`."""


@contextlib.contextmanager
def code_server(instance: dg.DagsterInstance, workspace: Path, folder: Path) -> Iterator[Path]:
    """A code server for all, on a socket of this user.

    Args:
        instance: Dagster's storage.
        workspace: file that names the code.
        folder: where to write.

    Yields:
        A file like `workspace`, which names that server.
    """
    target = WorkspaceFileTarget([str(workspace)])
    with ProxyServerManager(instance, target, code_server_log_level="WARNING") as servers:
        served = folder / "workspace.yaml"
        served.write_text(yaml.safe_dump({"load_from": servers.get_code_server_specs()}))
        yield served


@contextlib.contextmanager
def application(instance: dg.DagsterInstance, workspace: Path) -> Iterator[Starlette]:
    """Dagster's webserver, as an application that middleware can be added to."""
    with WorkspaceProcessContext(
        instance, WorkspaceFileTarget([str(workspace)]), version=__version__
    ) as context:
        yield create_app_from_workspace_process_context(
            context, live_data_poll_rate=POLL_MILLISECONDS
        )
