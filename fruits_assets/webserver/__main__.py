"""`python -m fruits_assets.webserver`: the Dagster UI and daemon, as `make ui` starts them."""

import contextlib
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import dagster as dg
import uvicorn

from fruits_assets.webserver import compat
from fruits_assets.webserver.origin import OwnOrigin

HOST = "127.0.0.1"
END_SECONDS = 10


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-p",
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port of 127.0.0.1 to serve the UI on.",
)
@click.option(
    "-w",
    "--workspace",
    default="workspace.yaml",
    show_default=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File that names the definitions to load.",
)
def main(port: int, workspace: Path) -> None:
    """Serve the Dagster UI to this machine, and run what automation starts.

    Only pages of the UI itself may use it: whatever another page sends is refused.
    """
    # Both end what this process has started, also where a shell has it ignore Ctrl-C.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listening(port))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        instance = stack.enter_context(dg.DagsterInstance.get())
        served = stack.enter_context(compat.code_server(instance, workspace, folder))
        app = stack.enter_context(compat.application(instance, served))
        app.add_middleware(OwnOrigin, port=port)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                proxy_headers=False,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )
        daemon = stack.enter_context(_daemon(served, server))
        click.echo(f"The UI is at http://localhost:{port} (Ctrl-C ends it).")
        server.run([listening])
        raise click.ClickException(
            f"the Dagster daemon has ended by itself (exit code {daemon.wait()}). No run starts "
            "without it, and so the UI has ended too. See what it printed above."
        )


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket that only this machine reaches; refused early where the port is taken."""
    try:
        found = socket.create_server((HOST, port), backlog=2048)
    except OSError as error:
        raise click.ClickException(
            f"port {port} of {HOST} cannot be used ({error.strerror}). Choose another one, as in "
            "`make ui PORT=3001`."
        ) from error
    with found:
        yield found


@contextlib.contextmanager
def _daemon(workspace: Path, server: uvicorn.Server) -> Iterator[subprocess.Popen[bytes]]:
    """The process that starts queued runs, sensors and schedules; the server ends with it."""
    process = subprocess.Popen([*compat.DAEMON, "--workspace", str(workspace)])  # noqa: S603

    def watch() -> None:
        process.wait()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
