"""What the UI needs of Dagster beyond its public names is still there."""

from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import yaml
from dagster._daemon.cli import run_command

from fruits_assets.webserver import compat


def test_dagster_still_starts_a_code_server_for_all(tmp_path: Path) -> None:
    workspace = tmp_path / "own.yaml"
    workspace.write_text("load_from: [{grpc_server: {socket: /nowhere, location_name: a}}]")
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        compat.code_server(instance, workspace, tmp_path) as served,
    ):
        (found,) = yaml.safe_load(served.read_text())["load_from"]
    assert found["grpc_server"]["location_name"] == "a"


def test_dagster_still_has_a_daemon_for_a_workspace() -> None:
    assert compat.DAEMON[1:] == ("-m", "dagster._daemon", "run")
    assert find_spec("dagster._daemon.__main__")
    assert "--workspace" in {name for one in run_command.params for name in one.opts}
