"""The notebook, executed: its parameters set, its outputs kept, as a file and as a page of HTML."""

from __future__ import annotations

import hashlib
import html
import os
import re
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruits_assets.core.errors import FruitsError
from fruits_assets.core.interruptible import interruptible
from fruits_assets.deliverables.escaping import visible_lines

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

NOTEBOOK, STYLE = "notebook.ipynb", "notebook.css"
FIGURES = "figures"
"""Tag of the cell whose JSON output holds the figures that the notebook shows."""
HIDDEN = "remove-cell"
"""Tag of cells that the page leaves out."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page may load nothing and run nothing, whatever is in it."""
JSON = "application/json"
GIVEN = "injected-parameters"
"""papermill's tag of the cell that sets the parameters."""
SHOWN = ("region", "max_photos")
"""Parameters that are published with the notebook; the others are places and keys."""
UNSAID = "Ceux de cette exécution ; ses lieux et sa clé ne sont pas publiés."
"""First line of that cell."""


class NotebookError(FruitsError):
    """A cell of the notebook failed, or did not end."""


@dataclass(frozen=True)
class Executed:
    """The notebook with its outputs.

    Attributes:
        ipynb: as Jupyter opens it.
        page: one self-contained HTML file.
        figures: that it shows.
        cells: of code, how many were executed.
    """

    ipynb: bytes
    page: bytes
    figures: dict[str, Any]
    cells: int


def source() -> bytes:
    """The notebook as the package holds it, without outputs."""
    return _file(NOTEBOOK)


def digest(notebook: bytes) -> str:
    """Changes with the content of a notebook and its looks: 16 hexadecimal digits."""
    return hashlib.sha256(notebook + _file(STYLE)).hexdigest()[:16]


def execute(
    notebook: bytes,
    parameters: Mapping[str, Any],
    *,
    cell_minutes: float,
    log: Callable[[str], None],
) -> Executed:
    """Executes a notebook in a process of its own, by the interpreter that runs this.

    Args:
        notebook: to execute.
        parameters: JSON values in place of those of the cell tagged `parameters`.
        cell_minutes: that a cell may take.
        log: is given the stack of calls of a cell that fails for a reason not meant for people.

    Raises:
        NotebookError: a cell failed or took too long; the text names it and says why.
    """
    import nbformat  # noqa: PLC0415 - half a second that the definitions need not wait for
    from jupyter_core.utils import ensure_event_loop  # noqa: PLC0415
    from nbclient.exceptions import CellTimeoutError, DeadKernelError  # noqa: PLC0415
    from papermill import PapermillExecutionError, execute_notebook  # noqa: PLC0415

    plain = nbformat.reads(notebook.decode(), as_version=4)
    kernels: list[AsyncKernelManager] = []

    def work() -> NotebookNode:
        try:
            return execute_notebook(
                plain,
                None,
                dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                execution_timeout=max(1, round(60 * cell_minutes)),
                kernel_manager_class=_kernel_manager(Path(folder), kernels),
            )
        finally:
            ensure_event_loop().close()  # the one of this thread, which Jupyter made

    def stop() -> None:
        for kernel in kernels:
            # What it has started, its JVM for one, ends with it.
            os.kill(getattr(kernel.provisioner, "pid"), signal.SIGKILL)  # noqa: B009 - of local ones

    try:
        with tempfile.TemporaryDirectory(prefix="fruits-notebook-") as folder:
            # In the main thread, Jupyter would take Ctrl-C for the end of the kernel only.
            executed = interruptible(work, stop=stop)
    except PapermillExecutionError as error:
        if not _is_for_people(error.ename):
            log(_plain("\n".join(error.traceback)))
        title = _title(plain, error.source)
        raise NotebookError(f"the notebook failed in {title}: {_reason(error)}") from None
    except CellTimeoutError:
        raise NotebookError(
            f"a cell of the notebook did not end within {cell_minutes:g} minutes. Raise "
            "`cell_minutes`, or lower `max_photos`."
        ) from None
    except DeadKernelError:
        raise NotebookError(
            "the process that executed the notebook died; the system may have ended it for want of "
            "memory. Lower `max_photos`, and materialise it again."
        ) from None
    _tidy(executed, {name: parameters[name] for name in SHOWN if name in parameters})
    return Executed(
        nbformat.writes(executed).encode(),
        page(executed).encode(),
        _figures(executed),
        sum(cell.cell_type == "code" for cell in executed.cells),
    )


def page(notebook: NotebookNode) -> str:
    """An executed notebook as one HTML file that loads nothing from anywhere."""
    from nbconvert import HTMLExporter  # noqa: PLC0415 - slow to import
    from pygments.formatters import HtmlFormatter  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    settings = {
        "HTMLExporter": {"exclude_anchor_links": True},
        "TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": [HIDDEN]},
        "TemplateExporter": {"exclude_input_prompt": True, "exclude_output_prompt": True},
    }
    exporter = HTMLExporter(config=Config(settings), template_name="basic")
    body, _ = exporter.from_notebook_node(notebook)
    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    return (
        '<!DOCTYPE html>\n<html lang="fr">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(_heading(notebook.cells[0].source))}</title>\n"
        f"<style>\n{colours}\n{_file(STYLE).decode()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _file(name: str) -> bytes:
    return (resources.files("fruits_assets.deliverables") / name).read_bytes()


def _kernel_manager(folder: Path, started: list[AsyncKernelManager]) -> type[AsyncKernelManager]:
    """Starts the running interpreter, whatever kernels are registered; its files go to a folder.

    Args:
        folder: that is removed once the kernel has ended.
        started: is given the managers that are made.
    """
    from ipykernel.kernelspec import get_kernel_dict  # noqa: PLC0415 - slow to import
    from jupyter_client.kernelspec import KernelSpec  # noqa: PLC0415 - slow to import
    from jupyter_client.manager import AsyncKernelManager  # noqa: PLC0415

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **settings: Any) -> None:
            file = str(folder / "connection.json")
            super().__init__(connection_file=file, transport_encryption="auto", **settings)
            started.append(self)

        @property
        def kernel_spec(self) -> KernelSpec:
            # What the user's own IPython does at its start is no part of the notebook. What the
            # notebook leaves in its temporary folder, photos among it, goes however it ends.
            own = {"IPYTHONDIR": str(folder), "TMPDIR": str(folder)}
            return KernelSpec(**get_kernel_dict(), env=own)

    return ThisInterpreter


def _is_for_people(name: str) -> bool:
    from fruits_assets.core import errors  # noqa: PLC0415

    kind = getattr(errors, name, None)
    return isinstance(kind, type) and issubclass(kind, FruitsError)


def _reason(error: Any) -> str:
    """The sentence of an error that is meant for people, else its kind and its first line."""
    if _is_for_people(error.ename):
        return error.evalue
    first = _plain(error.evalue).strip().partition("\n")[0]
    return f"{error.ename}: {first}. The log of this run has all of it."


def _title(notebook: NotebookNode, source: str) -> str:
    """The heading that a cell stands under, in quotes."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = _heading(cell.source) or heading
        elif cell.source == source:
            break
    return f"the part {heading!r}"


def _heading(markdown: str) -> str:
    """The last heading in a cell of text; empty where there is none."""
    found = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return found[-1].replace("\u00a0", " ") if found else ""


def _plain(text: str) -> str:
    """Without the escape sequences that colour a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _tidy(notebook: NotebookNode, shown: Mapping[str, Any]) -> None:
    """Leaves out when, where and on what it was executed, and what only seems to be text.

    Places name users and accounts, and the notebook is sent to people who have neither.
    """
    from papermill.translators import PythonTranslator  # noqa: PLC0415 - slow to import

    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if GIVEN in cell.metadata.get("tags", ()):
            cell.source = PythonTranslator.codify(dict(shown), comment=UNSAID).rstrip()
        for output in cell.get("outputs", ()):
            _make_visible(output)


def _make_visible(output: NotebookNode) -> None:
    """Makes hidden characters visible: Spark prints labels and paths as they are."""
    if "text" in output:
        output.text = visible_lines(output.text)
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = visible_lines(data)


def _figures(notebook: NotebookNode) -> dict[str, Any]:
    """The output of the cell with the figures. Raises NotebookError."""
    for cell in notebook.cells:
        if FIGURES in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                if JSON in output.get("data", {}):
                    return dict(output.data[JSON])
    raise NotebookError(
        f"no cell of the notebook is tagged {FIGURES!r}, or it puts out no figures."
    )
