"""Mutants: where they are drawn, and what a run says of those that tests notice or do not."""

import ast
import json
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

import psutil
import pytest
from cosmic_ray.mutating import mutate_code

from benchmarks import mutants
from benchmarks.mutants import CAUGHT, MODULES, SURVIVED, TIMED_OUT, Copy, Mutant, Verdict
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import eventually

MODULE = "toy/sums.py"
SOURCE = """
from __future__ import annotations


def twice(number: int | None) -> int | None:
    return number * 2


def tell(text: str) -> None:
    print(text)
"""
WEAK = """
from toy.sums import tell, twice


def test_twice():
    assert twice(3) == 6


def test_tell():
    tell("nobody looks at what is printed")
"""
"""Tests that notice every change of `twice`, and none of `tell`."""
ENDLESS = """
import subprocess
import sys


def test_endless():
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    print("child", child.pid, file=sys.__stdout__, flush=True)
    child.wait()
"""


def kinds(source: str) -> Counter[str]:
    return Counter(kind for _, _, kind in mutants.places(textwrap.dedent(source)))


def changed(source: str) -> list[str]:
    """The program without one of its calls, for each call that can be removed."""
    operator = mutants.operators()["RemoveStatement"]
    found = [mutate_code(source, operator, occurrence) for occurrence in range(5)]
    return [one for one in found if one is not None]


# ------------------------------------------------------------------------------ which mutants


def test_calls_whose_result_nobody_uses_are_removed():
    assert changed("if a:\n    # why\n    verify(x)\n") == ["if a:\n    # why\n    pass\n"]
    assert changed("self.a(1).b()\nif x: c()\n") == [
        "pass\nif x: c()\n",
        "self.a(1).b()\nif x: pass\n",
    ]


@pytest.mark.parametrize(
    "source", ['"""Text."""\n', "x = f()\n", "return f()\n", "x.y\n", "x[0]\n"]
)
def test_other_statements_stay(source: str):
    assert changed(source) == []


def test_a_place_counts_once_however_many_changes_it_allows():
    places = mutants.places("a = b + c\n")
    assert list(places) == [(1, 6, "ReplaceBinaryOperator")]
    assert len(places[1, 6, "ReplaceBinaryOperator"]) > 5


def test_what_is_never_evaluated_is_left_alone():
    source = '''
        """1 + 1."""
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            numbers(1 + 1)

        limit: int | None = 3


        def f(a: int | None, *b: list[1], c: str | None = "+") -> int | None:
            """True or False."""
            return a
    '''
    assert kinds(source) == {"NumberReplacer": 1}


def test_what_is_drawn_compiles_and_differs():
    source = "def f(a, *, b=1):\n    if a == 'x' and b:\n        return a | b\n    raise E\n"
    for seed in range(10):
        drawn = mutants.draw({"m.py": source}, count=100, seed=seed)
        assert len({(one.line, one.operator.partition("_")[0]) for one in drawn}) == len(drawn) > 4
        for one in drawn:
            assert ast.dump(ast.parse(one.source)) != ast.dump(ast.parse(source))
            assert "'x' is" not in one.source, "a warning of the compiler is no test's merit"
            assert one.diff.startswith("--- m.py\n+++ m.py\n@@")


def test_a_seed_draws_the_same_again_and_another_one_others():
    source = "a = b + c - d * e\n"
    first, again, other = (mutants.draw({"m": source}, count=2, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_modules_share_mutants_by_their_places_but_none_is_left_out():
    exact = {"large": 200, "medium": 90, "small": 10}
    assert mutants.shares({module: 2 * n for module, n in exact.items()}, 300) == exact
    assert mutants.shares({"large": 500, "tiny": 3}, 300) == {"large": 297, "tiny": 3}
    assert mutants.shares({"large": 500, "small": 10}, 100)["small"] == 5
    assert mutants.shares({"a": 2, "b": 3}, 300) == {"a": 2, "b": 3}
    assert sum(mutants.shares({"a": 90, "b": 9, "c": 9}, 2).values()) == 2


def test_every_module_and_all_its_tests_are_there():
    for module, tests in MODULES.items():
        named = [it.partition("::") for it in tests if it.startswith("fruits_assets_tests/")]
        assert named
        assert (REPOSITORY / module).is_file()
        for path, _, name in named:
            assert f"def {name}" in (REPOSITORY / path).read_text()


# ------------------------------------------------------------------------ what tests say of them


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A small repository with one module, one test of it that is weak and one that never ends."""
    root = tmp_path / "toy-repository"
    contents = {
        "toy/__init__.py": "",
        MODULE: SOURCE,
        "test_weak.py": WEAK,
        "test_endless.py": ENDLESS,
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for command in (["git", "init", "--quiet"], ["git", "add", "."]):
        subprocess.run(command, cwd=root, check=True)
    return root


def alive(pid: str) -> bool:
    """Whether a process still runs or waits."""
    if not psutil.pid_exists(int(pid)):
        return False
    return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


def test_what_weak_tests_do_not_notice_survives(toy: Path, capfd: pytest.CaptureFixture[str]):
    found = mutants.run(toy, {MODULE: ["test_weak.py"]}, count=300, seed=0, jobs=2)
    assert [(str(one).partition("_")[0], one.outcome) for one in found] == [
        ("toy/sums.py:6 NumberReplacer", CAUGHT),
        ("toy/sums.py:6 ReplaceBinaryOperator", CAUGHT),
        ("toy/sums.py:10 RemoveStatement", SURVIVED),
    ]
    assert [one.reason for one in found[:2]] == ["test_weak.py::test_twice"] * 2
    assert "-    print(text)\n+    pass" in found[2].mutant.diff
    assert (toy / MODULE).read_text() == SOURCE
    assert "3 of 3: " in capfd.readouterr().out


def test_tests_that_fail_anyway_end_it(toy: Path):
    (toy / MODULE).write_text(SOURCE.replace("2", "3"))
    with pytest.raises(SystemExit, match=r"toy/sums\.py fail without .*test_weak\.py::test_twice"):
        mutants.run(toy, {MODULE: ["test_weak.py"]}, count=3, seed=0, jobs=1)


def test_tests_that_do_not_end_are_ended(toy: Path, tmp_path: Path):
    copy = Copy.of(toy, tmp_path / "copy")
    verdict = copy.test(Mutant(MODULE, "changed = 1"), ["test_endless.py", "-s"], timeout=2.5)
    assert verdict.outcome == TIMED_OUT
    assert eventually(lambda: not alive(verdict.reason.split()[-1]))
    assert (copy.root / MODULE).read_text() == SOURCE


def test_a_package_from_elsewhere_is_told(toy: Path, tmp_path: Path):
    copy = Copy.of(toy, tmp_path / "copy")
    copy.check_import("toy")
    with pytest.raises(SystemExit, match="must come from the copy"):
        copy.check_import("json")


# ------------------------------------------------------------------------------ what is reported


def verdicts() -> list[Verdict]:
    outcomes = {3: CAUGHT, 5: CAUGHT, 8: TIMED_OUT, 9: SURVIVED}
    return [
        Verdict(Mutant("a.py", "x = 2", line, "NumberReplacer", "-x = 1\n+x = 2"), outcome, 1.5, "")
        for line, outcome in outcomes.items()
    ]


def test_a_time_out_counts_as_caught():
    assert mutants.summary(verdicts()) == "3 of 4 mutants were caught (75.0 %), 1 survived"


def test_the_report_has_a_row_per_module_and_the_diff_of_each_survivor():
    text = mutants.as_markdown(verdicts())
    assert "| module | mutants | caught | survived | timed out |" in text
    assert "| a.py | 4 | 2 | 1 | 1 |" in text
    assert text.endswith("## a.py:9 NumberReplacer\n\n```diff\n-x = 1\n+x = 2\n```\n")
    assert text.count("```diff") == 1


def test_all_verdicts_are_kept_as_json():
    content = json.loads(mutants.as_json(verdicts(), seed=7))
    assert content["seed"] == 7
    assert [row["outcome"] for row in content["verdicts"]].count(CAUGHT) == 2
    assert content["verdicts"][3]["mutant"] == {
        "module": "a.py",
        "line": 9,
        "operator": "NumberReplacer",
        "diff": "-x = 1\n+x = 2",
    }
