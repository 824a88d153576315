"""What the documentation says can be done is done here, or by another test that is named here.

Every command of a fenced block is one of these; a new one that is none of them fails:

- a block of docs/emr.md: `test_docs_emr.py` follows that page on an emulated account;
- below one of `MARKERS`, such as *Needs AWS.*: no test runs it, but what it names exists
  (`test_readers.py` runs the program for Spark);
- part of what `.ci/run` does, by the words of `make -n`;
- in `RUN_BY`, which names the test that runs it.

Programs of Python are run on a finished lake, and YAML is held against the jobs.
"""

import ast
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from fruits_assets.cli import main as fruits
from fruits_assets.definitions import compose
from fruits_assets.lake.lake import Lake
from fruits_assets.settings import Settings
from fruits_assets.spark.prices import Prices
from fruits_assets_tests import test_docs_emr
from fruits_assets_tests.conftest import REPOSITORY, Pipeline
from fruits_assets_tests.pages import (
    MARKERS,
    MEASUREMENT,
    PAGES,
    anchors,
    bare,
    blocks,
    links,
    prose,
    quoted,
    words,
)

README = REPOSITORY / "README.md"
AUTOMATION = REPOSITORY / "docs" / "automation.md"
COSTS = REPOSITORY / "docs" / "costs.md"
NOTICES = REPOSITORY / "THIRD_PARTY_NOTICES.md"
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
LANGUAGES = {"", "sh", "bash", "python", "yaml", "json", "sql"}
PYTHON = ".venv/bin/python"
DAGSTER = ".venv/bin/dagster"
FRUITS = ".venv/bin/fruits"
MODULE = "-m fruits_assets.definitions"
HERE = "test_docs.py::test_automation_is_switched_on_as_the_page_says"
ALL = [block for page in PAGES for block in blocks(page)]
PROGRAMS = [
    page
    for page in PAGES
    if page != test_docs_emr.PAGE and any(it.language == "python" for it in blocks(page))
]

RUN_BY = {
    "make test": "test_workflow.py::test_it_runs_what_must_pass_before_a_change_lands",
    "make ui": "test_definitions.py::test_the_ui_serves_the_workspace",
    "make repair": "test_increments.py::test_a_damaged_part_is_found_and_only_it_is_made_again",
    f"{DAGSTER} job execute {MODULE} -j fruits_job -c run.yaml": (
        "test_definitions.py::test_the_job_runs_from_the_command_line"
    ),
    f"{DAGSTER} asset materialize {MODULE} --select 'features*'": (
        "test_definitions.py::test_the_job_runs_from_the_command_line"
    ),
    f"{DAGSTER} asset materialize {MODULE} --select notebook": (
        "assets/test_notebook.py::test_nothing_is_executed_twice"
    ),
    f"{DAGSTER} job execute {MODULE} -j gdpr_erasure -c erase.yaml": (
        "test_s3_job.py::test_no_byte_of_an_erased_image_is_left_in_any_version"
    ),
    ".venv/bin/papermill fruits_assets/deliverables/notebook.ipynb notebook.ipynb "
    "-p source sample_photos -p lake lake": (
        "assets/test_notebook.py::test_parameters_are_those_of_the_run"
    ),
    f"{FRUITS} erase Apple/2024-05-01.jpg --dry-run": (
        "test_cli.py::test_a_dry_run_shows_what_would_go_and_changes_nothing"
    ),
    f'{FRUITS} erase Apple/2024-05-01.jpg --label "Jeanne\'s orchard"': (
        "test_cli.py::test_erase_leaves_nothing_and_names_nothing_to_dagster"
    ),
    f"{FRUITS} plan --cores 2": ("test_docs.py::test_the_forecast_is_what_the_command_prints"),
    f"{DAGSTER} sensor start new_photos -w workspace.yaml": HERE,
    f"{DAGSTER} schedule start daily -w workspace.yaml": HERE,
    f"{DAGSTER} sensor start follow_upstreams -w workspace.yaml": HERE,
}
"""Command -> the test that does what it does."""


def _dry(arguments: str) -> list[str]:
    """Commands that `make` would run; the arguments of an outer `make` do not count."""
    given = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "ARGS")
    done = subprocess.run(
        ["make", "-n", *words(arguments)],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name not in given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"make {arguments}: {done.stderr}"
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if not line.startswith("make[")]


@cache
def _ci() -> tuple[str, ...]:
    """What `.ci/run` does."""
    script = (REPOSITORY / ".ci" / "run").read_text()
    return tuple(
        line for it in re.findall(r"^make (.+)$", script, re.MULTILINE) for line in _dry(it)
    )


def _is_run(command: str) -> bool:
    """Whether `.ci/run` does it, by way of other commands or under its own name."""
    if command.startswith("make "):
        return set(_dry(command.removeprefix("make "))) <= set(_ci())
    return any(line.startswith(command) for line in _ci())


@cache
def _followed() -> set[str]:
    """Commands that are typed on an emulated account."""
    return {command for block in test_docs_emr.blocks() for command in block.commands}


@cache
def _jobs() -> list[dg.JobDefinition]:
    jobs = compose(Settings()).resolve_all_job_defs()
    return [job for job in jobs if not job.name.startswith("__")]


def test_every_block_says_what_it_is() -> None:
    for block in ALL:
        assert block.language in LANGUAGES, block
        if not block.language:
            commands = [
                line for line in block.text.splitlines() if line.startswith(("make ", ".v"))
            ]
            assert not commands, f"{block}: commands in a block without a language"
    for page in PAGES:
        shown = [line for line in prose(page).splitlines() if line in MARKERS]
        assert not shown, f"{page.name}: {shown} without a block below"


def test_every_command_is_run_somewhere() -> None:
    unknown = [
        f"{block.page.name}: {command}"
        for block in ALL
        if block.page != test_docs_emr.PAGE and block.marker is None
        for command in block.commands
        if command not in RUN_BY and command not in _followed() and not _is_run(command)
    ]
    assert not unknown, "run them in a test and name it in RUN_BY, or say what they need"


def test_what_runs_them_exists() -> None:
    typed = {command for block in ALL for command in block.commands}
    for command, test in RUN_BY.items():
        assert command in typed, f"no page says {command}"
        file, _, name = test.partition("::")
        text = (REPOSITORY / "fruits_assets_tests" / file).read_text()
        assert f"def {name}(" in text, test


def _check_named(command: str) -> None:
    """That the target of `make`, the command of `fruits` or the module, and its options, exist."""
    if command.startswith("make "):
        _dry(re.sub(r"\.\.\.|>>.*", "", command.removeprefix("make ")))
        return
    if command.startswith(FRUITS):
        name, *arguments = words(command)[1:]
        assert name in fruits.commands, command
        known = {option for it in fruits.commands[name].params for option in it.opts}
        assert {it for it in arguments if it.startswith("-")} <= known | {"--help"}, command
        return
    module, *options = words(re.sub(r"\.\.\.|>>.*", "", command.partition(" -m ")[2]))
    spec = importlib.util.find_spec(module)
    assert spec, command
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec, command
    assert spec.origin, command
    source = Path(spec.origin).read_text()
    for option in options:
        if option.startswith("--"):
            assert f'"{option}"' in source, command


def _is_ours(command: str) -> bool:
    ours = rf"make [a-z]|({PYTHON}|python) -m (fruits_assets|benchmarks)|{FRUITS} [a-z]"
    return bool(re.match(ours, command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_and_marked_ones_exist(page: Path) -> None:
    marked = [command for it in blocks(page) if it.marker for command in it.commands]
    for command in [*map(bare, quoted(page)), *marked]:
        if _is_ours(command):
            _check_named(command)


def _help(module: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Help of a program, run in this process: a new one would import everything again."""
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    spec = importlib.util.find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations
    program = importlib.import_module(f"{module}.__main__" if is_package else module)
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0
    return printed.getvalue()


def test_measurements_take_the_options_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measurements = [it for block in ALL if block.marker == MEASUREMENT for it in block.commands]
    targets = [
        "bench",
        "bench-full",
        "bench-s3",
        "bench-latency",
        "bench-search",
        "bench-increments",
    ]
    given = "SOURCE=photos WEIGHTS=file LAKE=lake"
    lines = [line for it in measurements for line in _dry(it.removeprefix("make "))]
    lines += [line for target in targets for line in _dry(f"{target} {given}")]
    programs = [words(line)[2:] for line in lines if line.startswith(f"{PYTHON} -m benchmarks")]
    assert len(programs) == len(measurements) + len(targets)
    known = {module: _help(module, monkeypatch) for module in {module for module, *_ in programs}}
    for module, *arguments in programs:
        for option in [it for it in arguments if it.startswith("--")]:
            found = re.search(rf"^  {option}\b", known[module], re.MULTILINE)
            assert found, f"python -m {module} has no {option}"


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_programs_run(
    page: Path,
    finished: tuple[Pipeline, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As somebody reads the page: one program after the other, beside a lake."""
    pipeline, _ = finished
    shutil.copytree(pipeline.lake.base, tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRUITS_LAKE", raising=False)
    monkeypatch.setenv("FRUITS_SOURCE", str(pipeline.source))
    monkeypatch.setenv("FRUITS_WEIGHTS", "sample")
    photo = next(pipeline.source.rglob("*.jpg")).read_bytes()
    known: dict[str, Any] = {"photo": photo}
    for block in [it for it in blocks(page) if it.language == "python"]:
        program = ast.parse(block.text)
        if block.marker:  # at least what it imports is there
            program.body = [it for it in program.body if isinstance(it, ast.ImportFrom)]
        exec(compile(program, page.name, "exec"), known)  # noqa: S102 - our own page
    assert set(known) > {"photo"}
    if "reducer" in known:
        expected = Lake.at("lake").current("pca_features").figures["components"]
        assert known["reducer"].components(photo).shape == (expected,)


def test_config_files_fit_a_job() -> None:
    configs = [block for block in ALL if block.language == "yaml"]
    assert configs
    for block in configs:
        config = yaml.safe_load(block.text)
        reasons = [_misfit(job, config) for job in _jobs()]
        assert None in reasons, f"{block}: {reasons}"


def _misfit(job: dg.JobDefinition, config: Mapping[str, Any]) -> str | None:
    try:
        dg.validate_run_config(job, config)
    except dg.DagsterInvalidConfigError as error:
        return str(error)
    return None


def test_config_files_that_commands_name_are_shown() -> None:
    shown = {it.text.split()[1].rstrip(",:") for it in ALL if it.language == "yaml"}
    texts = [command for block in ALL for command in block.commands]
    for text in [*texts, *(it for page in PAGES for it in quoted(page))]:
        for file in re.findall(r"(?:-c |CONFIG=)(\w+\.yaml)", text):
            assert file in shown, text


def test_json_is_what_the_program_reads() -> None:
    (block,) = [block for block in ALL if block.language == "json"]
    assert Prices.load(json.loads(block.text)) != Prices.load()


def test_the_forecast_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the settings and the price table as they are shipped."""
    for name in [it for it in os.environ if it.startswith("FRUITS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # where no .env is
    typed, shown, *_ = blocks(COSTS)
    (command,) = typed.commands
    done = CliRunner().invoke(fruits, words(command)[1:])
    assert done.output.strip() == shown.text.strip(), "take over what the command prints"


@pytest.mark.slow
def test_automation_is_switched_on_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [it for it in blocks(AUTOMATION) if "sensor start" in it.text]
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("FRUITS_LAKE", str(tmp_path / "lake"))
    shutil.copy(REPOSITORY / "dagster-home.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.get() as instance:  # its tables are made before three ask for them
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(_typed, block.commands))
        assert all("Started" in printed for printed in done), done
        states = instance.all_instigator_state()
        on = {it.name for it in states if it.status.value == "RUNNING"}
    assert on == {"new_photos", "daily", "follow_upstreams"}


def _typed(command: str) -> str:
    """What a command prints."""
    program, *arguments = words(command)
    done = subprocess.run(
        [str(Path(sys.executable).with_name(Path(program).name)), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    assert set(PAGES) - {README} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    roots = [REPOSITORY, REPOSITORY / "fruits_assets"]
    folders = {one.name: root for root in reversed(roots) for one in root.iterdir() if one.is_dir()}
    for text in quoted(page):
        if re.fullmatch(r"[\w./-]+/[\w.-]*\.?\w+", text) and text.split("/")[0] in folders:
            root = folders[text.split("/")[0]]
            made = text.startswith(("artifacts/", "lake/"))
            assert made or (root / text).exists() or (REPOSITORY / text).exists(), text


def test_messages_name_pages_that_exist() -> None:
    for folder in ("fruits_assets", "benchmarks"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for name in re.findall(r"\bdocs/\w+\.md\b", file.read_text()):
                assert (REPOSITORY / name).is_file(), f"{file} names {name}"


def test_the_readme_has_a_row_for_every_variable() -> None:
    text = README.read_text()
    for name in Settings.model_fields:
        assert f"| `FRUITS_{name.upper()}` |" in text
    assert "| `FRUITS_EMR_*` |" in text


def _declared() -> set[str]:
    """Names of the direct dependencies."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return {re.split(r"[\[=]", pin)[0] for pin in pins}


def _rows(page: Path, heading: str) -> dict[str, str]:
    """First cell -> second cell of the table below a heading."""
    section = page.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE)[1:])


def test_every_dependency_has_a_reason() -> None:
    rows = _rows(ARCHITECTURE, "What each dependency is for")
    names = {name for cell in rows for name in cell.split(", ")} - {"---"}
    assert names == _declared()


def test_every_dependency_has_a_licence() -> None:
    rows = _rows(NOTICES, "Packages")
    assert set(rows) - {"---"} == _declared()
    for name in _declared():
        stated = importlib.metadata.metadata(name).json.get("license_expression")
        assert stated in {None, rows[name]}, name
