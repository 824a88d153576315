"""`python -m benchmarks.mutants`: small faults in modules that keep promises: do tests notice?

A mutant changes one place of one module: an operator, a number, a condition, a loop, an exception
handler, a decorator or a call. The fast tests of the module run on it, in a copy of the repository.
A mutant that they do not notice survives: a test is missing, or the change makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Keyword

TESTS = "fruits_assets_tests"
INCREMENTS = f"{TESTS}/test_increments.py"
GROWN = f"{INCREMENTS}::test_photos_cost_only_what_is_new_of_them"
STORAGE, LAKE = f"{TESTS}/storage", f"{TESTS}/lake"
MODULES: Mapping[str, Sequence[str]] = {
    "fruits_assets/storage/region.py": (
        f"{STORAGE}/test_s3.py::test_of_all_regions_of_aws_six_pass",
        f"{STORAGE}/test_s3.py::test_what_is_not_quite_a_region_is_refused",
    ),
    "fruits_assets/storage/base.py": (f"{STORAGE}/test_storage.py",),
    "fruits_assets/storage/folder.py": (f"{STORAGE}/test_storage.py",),
    "fruits_assets/storage/places.py": (
        f"{TESTS}/transforms/test_arguments.py",
        f"{STORAGE}/test_storage.py",
    ),
    "fruits_assets/storage/s3.py": (f"{STORAGE}/test_storage.py", f"{STORAGE}/test_s3.py"),
    "fruits_assets/storage/parquet.py": (f"{STORAGE}/test_parquet.py",),
    "fruits_assets/storage/snapshot.py": (
        f"{STORAGE}/test_snapshot.py",
        f"{TESTS}/transforms/test_arguments.py",
    ),
    "fruits_assets/core/pca.py": (f"{TESTS}/core/test_pca.py",),
    "fruits_assets/sources/layout.py": (f"{TESTS}/sources/test_layout.py",),
    "fruits_assets/sources/leftovers.py": (f"{TESTS}/sources/test_leftovers.py",),
    "fruits_assets/sources/oddities.py": (f"{TESTS}/sources/test_oddities.py",),
    "fruits_assets/sources/archive.py": (f"{TESTS}/sources/test_archive.py",),
    "fruits_assets/sources/table.py": (f"{TESTS}/sources/test_table.py",),
    "fruits_assets/lake/lake.py": (f"{LAKE}/test_lake.py",),
    "fruits_assets/lake/table.py": (
        f"{LAKE}/test_table.py",
        f"{LAKE}/test_log.py",
        f"{LAKE}/test_lake.py",
    ),
    "fruits_assets/lake/recipe.py": (f"{LAKE}/test_lake.py",),
    "fruits_assets/lake/retention.py": (f"{LAKE}/test_retention.py", f"{LAKE}/test_log.py"),
    "fruits_assets/erasure/plan.py": (f"{TESTS}/erasure/test_plan.py",),
    "fruits_assets/erasure/proof.py": (
        f"{TESTS}/erasure/test_proof.py",
        f"{TESTS}/erasure/test_job.py",
    ),
    "fruits_assets/erasure/job.py": (f"{TESTS}/erasure/test_job.py",),
    "fruits_assets/transforms/arguments.py": (f"{TESTS}/transforms/test_arguments.py",),
    "fruits_assets/transforms/increment.py": (
        f"{TESTS}/transforms/test_increment.py",
        GROWN,
        f"{INCREMENTS}::test_parts_of_pruned_versions_stay",
    ),
    "fruits_assets/transforms/ingest.py": (
        f"{TESTS}/core/test_properties.py::test_every_file_ends_in_exactly_one_table",
        f"{TESTS}/transforms/test_ingest.py",
        GROWN,
        f"{INCREMENTS}::test_shards_are_cut_by_time_and_found_again",
        f"{INCREMENTS}::test_a_damaged_part_is_found_and_only_it_is_made_again",
        f"{INCREMENTS}::test_what_could_not_be_read_is_tried_again",
    ),
    "fruits_assets/transforms/pca.py": (
        f"{TESTS}/transforms/test_pca.py",
        GROWN,
        f"{INCREMENTS}::test_the_mean_shift_is_that_of_the_fitted_split",
    ),
    "fruits_assets/assets/pca.py": (INCREMENTS, "-k", "pca or fitted or nothing_new"),
    "fruits_assets/spark/clusters.py": (f"{TESTS}/spark/test_clusters.py",),
    "fruits_assets/spark/lifecycle.py": (f"{TESTS}/spark/test_lifecycle.py",),
}
"""Module -> pytest's arguments: its fast tests, quickest first, as the first failure ends a run."""
AT_LEAST = 5
"""Mutants of a module, if it has so many places."""
CAUGHT, SURVIVED, TIMED_OUT = OUTCOMES = "caught", "survived", "timed out"
PYTEST = (
    *("-m", "pytest", "-q", "-x", "-m", "not slow"),
    *("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "mutants_plugin"),
)
PLUGIN = """
import pytest

@pytest.fixture(scope="session")
def worker_id():
    return "mutants"

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "session" in item.fixturenames)
"""
"""Takes the place of pytest-xdist: what tests share between workers is kept between runs, so that
only the first one, of unchanged modules, converts the model. Tests that need Spark come last."""


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        module: path in the repository.
        source: of the whole module, changed.
        line: of the change, from 1.
        operator: that made it.
        diff: unified.
    """

    module: str
    source: str
    line: int = 0
    operator: str = ""
    diff: str = ""


@dataclass(frozen=True)
class Verdict:
    """The result of running the tests on a mutant.

    Attributes:
        mutant: that they ran on.
        outcome: one of `OUTCOMES`.
        seconds: wall time that they took.
        reason: the test that failed, else the last line that pytest printed.
    """

    mutant: Mutant
    outcome: str
    seconds: float
    reason: str

    def __str__(self) -> str:
        return f"{self.mutant.module}:{self.mutant.line} {self.mutant.operator}"


def main() -> None:
    """Tests mutants, printing progress and a summary, and writes a report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="of mutants")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other mutants")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tested side by side")
    parser.add_argument("--only", default="", help="only modules whose path holds this")
    parser.add_argument("--output", type=Path, default=Path("artifacts/mutants"))
    options = parser.parse_args()
    modules = {module: tests for module, tests in MODULES.items() if options.only in module}
    if not modules or min(options.count, options.jobs) < 1:
        parser.error(f"there is nothing to test. The modules are {', '.join(MODULES)}.")
    checkout = Path(__file__).parent.parent
    verdicts = run(checkout, modules, count=options.count, seed=options.seed, jobs=options.jobs)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "mutants.md").write_text(as_markdown(verdicts))
    (options.output / "mutants.json").write_text(as_json(verdicts, seed=options.seed))
    print(summary(verdicts))


# Which mutants


class RemoveStatement(Operator):
    """Replaces a statement that is only a call by `pass`."""

    def mutation_positions(self, node: Any) -> Any:
        """Start and end of the call, if the node is one."""
        alone = node.parent is not None and node.parent.type == "simple_stmt"
        if alone and node.type == "atom_expr" and node.get_last_leaf().value == ")":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002 - as all operators
        """The statement that stands there instead."""
        return Keyword("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> Any:
        """A call before and after."""
        return (Example("verify(x)", "pass"),)


@cache
def operators() -> dict[str, Any]:
    """Name -> operator: those of cosmic-ray that take no arguments, and `RemoveStatement`."""
    classes = {name.split("/")[1]: plugins.get_operator(name) for name in plugins.operator_names()}
    classes["RemoveStatement"] = RemoveStatement
    return {name: operator() for name, operator in classes.items() if not operator.arguments()}


def places(source: str) -> dict[tuple[int, int, str], list[tuple[str, int]]]:
    """Line, column and kind of operator -> operators, with the occurrence that the place is."""
    nodes, unused = list(ast_nodes(get_ast(source))), list(_never_evaluated(ast.parse(source)))
    found: dict[tuple[int, int, str], list[tuple[str, int]]] = defaultdict(list)
    for name, operator in operators().items():
        starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (line, column) in enumerate(starts):
            if not any(start <= (line, column) < end for start, end in unused):
                found[line, column, name.partition("_")[0]].append((name, occurrence))
    return found


def _never_evaluated(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end of annotations and of imports for types only; operators leave strings alone."""
    for node in ast.walk(tree):
        found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append(node)
        for it in filter(None, found):
            yield (it.lineno, it.col_offset), (it.end_lineno, it.end_col_offset)


def draw(sources: Mapping[str, str], *, count: int, seed: int) -> list[Mutant]:
    """Draws mutants, at most one of each place, in random order.

    Args:
        sources: by path of the module.
        count: of mutants, if there are so many places.
        seed: of the draw.
    """
    chance = random.Random(seed)  # noqa: S311 - reproducible, nothing to guess
    every = {module: _one_each(module, source, chance) for module, source in sources.items()}
    counts = shares({module: len(mutants) for module, mutants in every.items()}, count)
    drawn = [it for module, n in counts.items() for it in chance.sample(every[module], n)]
    return chance.sample(drawn, len(drawn))


def _one_each(module: str, source: str, chance: random.Random) -> list[Mutant]:
    """One mutant for each place, at random, where there is one that says something else."""
    mutants = []
    for (line, *_), changes in places(source).items():
        for operator, occurrence in chance.sample(changes, len(changes)):
            changed = mutate_code(source, operators()[operator], occurrence)
            if changed and _is_another(changed, source):
                lines = source.splitlines(), changed.splitlines()
                diff = difflib.unified_diff(*lines, module, module, lineterm="")
                mutants.append(Mutant(module, changed, line, operator, "\n".join(diff)))
                break
    return mutants


def _is_another(changed: str, source: str) -> bool:
    """Whether a changed program compiles, without a warning, and is not the same after all."""
    try:
        with warnings.catch_warnings(action="error"):
            compile(changed, "mutant", "exec")
    except SyntaxError:
        return False
    return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))


def shares(available: Mapping[str, int], count: int) -> dict[str, int]:
    """How many mutants of each module: in proportion to its places, but at least `AT_LEAST`."""
    total = sum(available.values())
    least = min(AT_LEAST, count // len(available))
    given = {module: min(least, places) for module, places in available.items()}
    while sum(given.values()) < min(count, total):
        rest = [module for module in available if given[module] < available[module]]
        given[max(rest, key=lambda it: count * available[it] / total - given[it])] += 1
    return given


# What tests make of them


@dataclass(frozen=True)
class Copy:
    """A copy of the repository, in which one mutant at a time is tested.

    Attributes:
        root: its folder; what tests write lies beside it.
        environment: of the tests.
    """

    root: Path
    environment: Mapping[str, str]

    @classmethod
    def of(cls, checkout: Path, root: Path) -> Copy:
        """Copies the tracked files as they are now. Tools in `.cache` are linked to."""
        listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=checkout, text=True)
        for path in map(Path, filter(None, listed.split("\0"))):
            if (checkout / path).exists():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / path, root / path)
        (root / ".cache").symlink_to(checkout / ".cache")
        (root.parent / "mutants_plugin.py").write_text(PLUGIN)
        data = checkout.parent / "shared" / "data"
        environment = {"FRUITS_SHARED_DATA": str(data)} if data.is_dir() else {}
        environment |= {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{root.parent}"
        # A mutant may be as old and as long as the one before: bytecode would be taken for its own.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return cls(root, environment)

    def check_import(self, package: str) -> None:
        """Exits where a package, and so its changes, would not come from this copy."""
        command = [sys.executable, "-P", "-c", f"import {package}; print({package}.__file__)"]
        found = subprocess.check_output(command, env=self.environment, text=True).strip()
        if not Path(found).is_relative_to(self.root):
            sys.exit(
                f"{package} is imported from {found}, but must come from the copy {self.root}."
            )

    def test(self, mutant: Mutant, tests: Sequence[str], *, timeout: float | None) -> Verdict:
        """Runs tests on a mutant."""
        module, log = self.root / mutant.module, self.root.with_suffix(".log")
        original, started = module.read_bytes(), time.monotonic()
        command = [sys.executable, *PYTEST, f"--basetemp={self.root}.tests", *tests]
        try:
            module.write_text(mutant.source)
            with log.open("wb") as output:
                outcome = self._outcome(command, output, timeout)
        finally:
            module.write_bytes(original)
        printed = log.read_text(errors="replace").splitlines() or [""]
        failed = [line.split()[1] for line in printed if re.match(r"(FAILED|ERROR) \S", line)]
        return Verdict(mutant, outcome, time.monotonic() - started, [*failed, printed[-1]][0])

    def _outcome(self, command: Sequence[str], output: IO[bytes], timeout: float | None) -> str:
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                return CAUGHT if process.wait(timeout) else SURVIVED
            except subprocess.TimeoutExpired:
                return TIMED_OUT
            finally:  # with Spark and servers that it started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def run(
    checkout: Path, modules: Mapping[str, Sequence[str]], *, count: int, seed: int, jobs: int
) -> list[Verdict]:
    """Draws mutants and tests them. Exits where tests fail without a mutant.

    Args:
        checkout: the repository; only copies of it are changed.
        modules: as `MODULES`.
        count: of mutants.
        seed: of the draw.
        jobs: how many mutants are tested side by side.
    """
    sources = {module: (checkout / module).read_text() for module in modules}
    mutants = draw(sources, count=count, seed=seed)
    pool, copies, verdicts = ThreadPoolExecutor(jobs), SimpleQueue[Copy](), []

    def tested(mutant: Mutant, timeout: float | None = None) -> Verdict:
        copy = copies.get()
        try:
            return copy.test(mutant, modules[mutant.module], timeout=timeout)
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory("-mutants", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # as that of a checkout: tests read it as another user
        for number in range(jobs):
            copy = Copy.of(checkout, Path(folder).resolve() / f"copy-{number}")
            for package in {module.partition("/")[0] for module in modules}:
                copy.check_import(package)
            copies.put(copy)
        try:
            timeouts = _timeouts(pool.map(tested, map(Mutant, sources, sources.values())))
            started = time.monotonic()
            futures = [pool.submit(tested, one, timeouts[one.module]) for one in mutants]
            for done, future in enumerate(as_completed(futures), start=1):
                verdicts.append(future.result())
                left = (time.monotonic() - started) / done * (len(mutants) - done)
                told = f"{verdicts[-1].outcome:<9} {verdicts[-1]}, {left / 60:.0f} minutes left"
                print(f"{done:>4} of {len(mutants)}: {told}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(verdicts, key=lambda it: (it.mutant.module, it.mutant.line, it.mutant.operator))


def _timeouts(unchanged: Iterable[Verdict]) -> dict[str, float]:
    """Module -> seconds after which tests of a mutant are given up."""
    timeouts = {}
    for verdict in unchanged:
        module, seconds = verdict.mutant.module, verdict.seconds
        if verdict.outcome != SURVIVED:
            sys.exit(f"the tests of {module} fail without a mutant: {verdict.reason}. Repair them.")
        print(f"unchanged: {module}, {seconds:.1f} s", flush=True)
        timeouts[module] = 3 * seconds + 30
    return timeouts


# What is reported


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many were caught, by a failure or a time-out, and how many survived."""
    survived = sum(verdict.outcome == SURVIVED for verdict in verdicts)
    caught, every = len(verdicts) - survived, len(verdicts)
    share = f"{100 * caught / every:.1f} %"
    return f"{caught} of {every} mutants were caught ({share}), {survived} survived"


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """The summary, a row for each module, and the survivors."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        counts[verdict.mutant.module][verdict.outcome] += 1
    lines = ["# Mutants", "", f"{summary(verdicts)}. A time-out counts as caught.", ""]
    lines += [f"| module | mutants | {' | '.join(OUTCOMES)} |", "|---|" + "---:|" * 4]
    for module, found in counts.items():
        cells = map(str, (found.total(), *(found[outcome] for outcome in OUTCOMES)))
        lines.append(f"| {module} | {' | '.join(cells)} |")
    for verdict in verdicts:
        if verdict.outcome == SURVIVED:
            lines += ["", f"## {verdict}", "", "```diff", verdict.mutant.diff, "```"]
    return "\n".join(lines) + "\n"


def as_json(verdicts: Sequence[Verdict], *, seed: int) -> str:
    """All verdicts, without the sources, which the diffs make again."""
    rows = [asdict(verdict) for verdict in verdicts]
    for row in rows:
        del row["mutant"]["source"]
    content = {"seed": seed, "summary": summary(verdicts), "verdicts": rows}
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    main()
