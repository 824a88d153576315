"""The notebook as it is committed, how notebooks are executed, and the page they become."""

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fruits_assets.assets import notebook as asset
from fruits_assets.assets.places import Source
from fruits_assets.deliverables import figures, language, notebook, showing
from fruits_assets.deliverables.notebook import NotebookError
from fruits_assets.lake.resource import LakeResource
from fruits_assets_tests.leaks import ACCOUNT, KEY, PERSON, leaks

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'; raise SystemExit # \\n {x} é"


class Tags(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_quiet(page: str) -> None:
    """A page that loads nothing and runs nothing."""
    tags = Tags(page).found
    assert {"script", "link", "iframe", "object", "embed"}.isdisjoint(tag for tag, _ in tags)
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:image/").startswith("data:image/"), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


def cells() -> list[Any]:
    """The cells of the committed notebook."""
    return nbformat.reads(notebook.source().decode(), as_version=4).cells


def small(*code: str, heading: str = "# A part") -> bytes:
    """A notebook with parameters, and with figures at its end."""
    head = new_code_cell("text, number = None, None", metadata={"tags": ["parameters"]})
    body = [new_code_cell(text) for text in code]
    body[-1].metadata["tags"] = [notebook.FIGURES]
    return nbformat.writes(new_notebook(cells=[new_markdown_cell(heading), head, *body])).encode()


def execute(
    content: bytes, parameters: Mapping[str, Any], *, minutes: float = 1, log: list[str]
) -> notebook.Executed:
    return notebook.execute(content, parameters, cell_minutes=minutes, log=log.append)


def test_it_is_committed_without_outputs() -> None:
    for cell in cells():
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_it_needs_no_dagster() -> None:
    code = "\n".join(cell.source for cell in cells() if cell.cell_type == "code")
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(code))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert "fruits_assets" in imported
    assert not {name for name in imported if name.startswith(("dagster", "tensorflow"))}


def test_its_contents_lead_to_its_headings() -> None:
    text = "\n".join(cell.source for cell in cells() if cell.cell_type == "markdown")
    headings = {line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")}
    links = {link.partition(")")[0] for link in text.split("](#")[1:]}
    assert len(links) == 9
    assert links == {heading.replace(" ", "-") for heading in headings}


def test_places_keys_and_what_cannot_be_seen_are_not_published() -> None:
    parameters = {
        "source": f"/home/{PERSON}/photos",
        "lake": f"s3://{PERSON}-{ACCOUNT}/lake",
        "region": "eu-west-3",
        "kms_key": KEY,
        "max_photos": 7,
        "work": f"/home/{PERSON}/work",
    }
    names = ", ".join(parameters)
    content = small(
        "from IPython.display import JSON",
        "print('gpj.' + chr(0x202e) + 'exe')\nprint(chr(27) + '[31mred')",
        f"JSON({{'seen': [len(str(it)) for it in ({names})]}})",
    )
    content = content.replace(b"text, number = None, None", f"{names} = {[None] * 6}".encode())
    log: list[str] = []
    executed = execute(content, parameters, log=log)
    assert executed.figures == {"seen": [len(str(it)) for it in parameters.values()]}
    published = {"ipynb": executed.ipynb, "html": executed.page}
    assert not leaks(published, "/home/", "s3://")
    for text in (executed.ipynb.decode(), executed.page.decode()):
        assert "max_photos" in text
        assert "eu-west-3" in text
        assert "gpj.\ufffdexe" in text
        assert not {"\u202e", "\x1b"} & set(text)


def test_another_content_is_another_version() -> None:
    assert notebook.digest(b"a") != notebook.digest(b"b")
    assert notebook.digest(b"a") == notebook.digest(b"a")


def test_this_interpreter_executes_it_whatever_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("raise SystemExit")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = set(tmp_path.rglob("*"))
    code = (
        "import sys\n"
        "from IPython.display import JSON, display\n"
        "display(JSON({'executable': sys.executable, 'text': text, 'number': number}))"
    )
    executed = execute(small(code), {"text": HOSTILE, "number": 3}, log=[])
    assert executed.figures == {"executable": sys.executable, "text": HOSTILE, "number": 3}
    assert executed.cells == 3
    assert set(tmp_path.rglob("*")) == before
    assert_quiet(executed.page.decode())
    assert HOSTILE not in executed.page.decode()


@pytest.mark.parametrize(
    ("code", "expected", "logged"),
    [
        (
            "from fruits_assets.core.errors import DatasetError\n"
            "from fruits_assets.deliverables import showing\n"
            "showing.errors_as_sentences()\n"
            "raise DatasetError('nothing is there. Make it.')",
            "the notebook failed in the part 'A part': nothing is there. Make it.",
            "",
        ),
        (
            "int('1\\n2')",
            "the notebook failed in the part 'A part': ValueError: invalid literal for int()",
            "ValueError",
        ),
        ("import os; os._exit(1)", "the process that executed the notebook died", ""),
    ],
)
def test_a_failed_cell_is_named_with_its_reason(code: str, expected: str, logged: str) -> None:
    log: list[str] = []
    with pytest.raises(NotebookError) as caught:
        execute(small("1", code), {}, log=log)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert logged in "".join(log)
    assert bool(log) is bool(logged)
    assert "\x1b" not in "".join(log)


@pytest.mark.parametrize(
    "end", ["display(JSON({}))", pytest.param("1 / 0", marks=pytest.mark.slow), "os._exit(1)"]
)
def test_no_temporary_file_is_left_however_it_ends(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scratch lake holds photos, and an erasure would not find it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code = (
        "import os, pathlib, tempfile\n"
        "from IPython.display import JSON, display\n"
        "folder = pathlib.Path(tempfile.mkdtemp(prefix='fruits-notebook-'))\n"
        "(folder / 'photo').write_text('x')\n"
        "assert folder.parent.name.startswith('fruits-notebook-')\n"
    )
    with contextlib.suppress(NotebookError):
        execute(small(code, end), {}, log=[])
    assert list(tmp_path.iterdir()) == []


def test_a_cell_without_the_figures_it_promises_is_refused() -> None:
    with pytest.raises(NotebookError, match="puts out no figures"):
        execute(small("1"), {}, log=[])


def test_a_cell_that_does_not_end_is_given_up() -> None:
    with pytest.raises(NotebookError, match=r"did not end within 0\.02 minutes"):
        execute(small("import threading; threading.Event().wait()"), {}, minutes=0.02, log=[])


def test_ctrl_c_ends_a_notebook_and_its_kernel(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, threading\n"
        f"pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "threading.Event().wait()"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(small(code), {}, log=[])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_ctrl_c_while_a_kernel_starts_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every new interpreter interrupts the one that starts it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, signal\n"
        f"pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(small("1"), {}, log=[])
    finally:
        signal.signal(signal.SIGINT, before)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_an_empty_lake_fails_with_a_sentence(photos: Path, tmp_path: Path) -> None:
    log: list[str] = []
    parameters = {"source": str(photos), "lake": str(tmp_path / "lake")}
    with pytest.raises(NotebookError) as caught:
        execute(notebook.source(), parameters, log=log)
    assert str(caught.value) == (
        f"the notebook failed in the part '1. Données': the lake {tmp_path}/lake has no pca_model "
        "yet. Materialise pca_model first."
    )
    assert log == []


@pytest.mark.parametrize("place", ["source", "lake"])
def test_it_holds_a_bucket_to_its_owner(place: str, photos: Path, tmp_path: Path) -> None:
    parameters = {"source": str(photos), "lake": str(tmp_path / "lake"), "region": "eu-west-3"}
    parameters |= {place: "s3://bucket/prefix", "bucket_owner": "nobody"}
    with pytest.raises(NotebookError, match=r"'1\. Données': .*FRUITS_BUCKET_OWNER"):
        execute(notebook.source(), parameters, log=[])


def test_it_is_given_all_by_which_the_run_reaches_its_places(photos: Path, tmp_path: Path) -> None:
    place: dict[str, Any] = {"region": "eu-west-3", "kms_key": KEY, "bucket_owner": ACCOUNT}
    lake = LakeResource(base=str(tmp_path), **place)
    source = Source(place=str(photos), follow_links=True, requester_pays=True, **place)
    given = asset._parameters(lake, source, max_photos=7)
    names = {"source": str(photos), "lake": str(tmp_path), "max_photos": 7}
    assert given == {**names, **place, "follow_links": True, "requester_pays": True}
    (declared,) = [cell.source for cell in cells() if "parameters" in cell.metadata.get("tags", ())]
    assert set(given) <= {line.partition(" ")[0] for line in declared.splitlines()}


def test_it_follows_links_out_of_its_source_as_it_is_asked_to() -> None:
    code = "\n".join(cell.source for cell in cells() if cell.cell_type == "code")
    (opened,) = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "folder_at"
    ]
    assert {"follow_links", "requester_pays"} <= {keyword.arg for keyword in opened.keywords}


def test_what_is_hostile_is_shown_as_text() -> None:
    shown = [
        showing.sentence(HOSTILE),
        showing.table([HOSTILE], [[HOSTILE]]),
        showing.facts({HOSTILE: HOSTILE}),
    ]
    outputs = [new_output("display_data", {"text/html": one._repr_html_()}) for one in shown]
    outputs.append(new_output("stream", name="stdout", text=HOSTILE))
    outputs.append(new_output("error", ename=HOSTILE, evalue=HOSTILE, traceback=[HOSTILE]))
    title = new_markdown_cell(f"# {HOSTILE}")
    title.source = title.source.replace("<", "&lt;")
    page = notebook.page(
        new_notebook(cells=[title, new_code_cell(f"x = {HOSTILE!r}", outputs=outputs)])
    )
    assert_quiet(page)
    assert page.count("alert(1)") >= 6


def test_a_page_keeps_its_pictures_and_hides_what_is_marked() -> None:
    png = figures.contact_sheet([])
    picture = showing.picture(png, 'A "sheet"')
    data, metadata = picture._repr_mimebundle_()
    shown = new_code_cell("shown", outputs=[new_output("display_data", data, metadata=metadata)])
    hidden = new_code_cell("hidden", metadata={"tags": [notebook.HIDDEN]})
    page = notebook.page(new_notebook(cells=[new_markdown_cell("# Title"), shown, hidden]))
    assert_quiet(page)
    (image,) = [attributes for tag, attributes in Tags(page).found if tag == "img"]
    assert image["alt"] == 'A "sheet"'
    assert "hidden" not in page
    assert "<title>Title</title>" in page
    assert notebook.POLICY in page


def test_numbers_are_french() -> None:
    assert showing.number(1234567) == "1\u202f234\u202f567"
    assert showing.number(1234.56, 1) == "1\u202f234,6"
    assert showing.percent(0.9556) == "95,6\u202f%"
    assert showing.power_of_ten(3.84e-7) == "3,8·10⁻⁷"
    assert showing.power_of_ten(0.0) == "0"
    plain = repr(showing.table(["a", "b"], [["x", 1000]]))
    assert plain == "a | b\nx | 1\u202f000"


def test_columns_of_numbers_are_aligned() -> None:
    markup = showing.table(["a", "b", "c"], [["x", 1, "2,5"], ["3", 10, "-"]])._repr_html_()
    assert markup.count('<td style="text-align: right">') == 4
    assert markup.count("<td>") == 2


def test_code_is_shown_without_its_docstrings() -> None:
    code = repr(showing.source_code(showing.table))
    assert code.startswith("def table(columns")
    assert '"""' not in code
    ast.parse(code)


def test_what_processes_say_goes_into_a_file(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with showing.stderr_into(tmp_path / "log"):
        subprocess.run(["sh", "-c", "echo said >&2"], check=True)
    subprocess.run(["sh", "-c", "echo after >&2"], check=True)
    assert (tmp_path / "log").read_text() == "said\n"
    assert capfd.readouterr().err == "after\n"


SHELL = """
from IPython.core.interactiveshell import InteractiveShell
from fruits_assets.deliverables.showing import errors_as_sentences

shell = InteractiveShell.instance()
errors_as_sentences()
shell.run_cell("from fruits_assets.core.errors import DatasetError")
shell.run_cell("raise DatasetError('nothing is there. Make it.')")
shell.run_cell("int('x')")
"""


def test_errors_for_people_are_shown_as_their_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SHELL], env=environment, capture_output=True, text=True, check=True
    )
    sentence, _, rest = done.stdout.partition("\n")
    assert sentence == "DatasetError: nothing is there. Make it."
    assert "Traceback (most recent call last)" in rest
    assert "DatasetError" not in rest


def test_figures_have_french_words_for_all_they_say() -> None:
    tree = ast.parse(Path(figures.__file__).read_bytes())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    said = [
        node.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "say"
        for node in ast.walk(call.args[0])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    phrases = [text for text in said if text != "s"]
    assert len(phrases) > 20
    assert set(phrases) <= set(language.FRENCH.phrases)
    nouns = [
        node.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "_plural"
        for node in call.args[1:]
        if isinstance(node, ast.Constant)
    ]
    assert len(nouns) > 5
    assert set(nouns) <= set(language.FRENCH.phrases)
    for english, french in language.FRENCH.phrases.items():
        assert english.count("{") == french.count("{"), english


def test_figures_speak_the_language_that_is_spoken() -> None:
    english = figures.class_bar_chart({"a": {None: 1234}})
    with language.speaking(language.FRENCH):
        french = figures.class_bar_chart({"a": {None: 1234}})
        assert language.say("{images} in {classes}", images="a", classes="b") == "a dans b"
        assert language.whole(1234) == "1\u202f234"
        assert language.percent(0.12345) == "12,3\u202f%"
    assert english != french
    assert figures.class_bar_chart({"a": {None: 1234}}) == english
    assert language.percent(0.12345) == "12.3%"
