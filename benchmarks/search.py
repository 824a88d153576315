"""`python -m benchmarks.search`: the nearest of a million photos, on one core.

The library's search, exact and by cells, against FAISS and usearch where they can be imported (they
are no dependencies of the project: install them beside it). Each contender is a process of its own,
is given the same rows, and answers the same questions, one at a time. Rows are drawn: normal about
the means of some classes, with a spectrum that falls off as that of real components does. `--lake`
draws them about the classes of a lake instead, each spread as its photos are.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

from fruits_assets.core import inverted_file
from fruits_assets.core.inverted_file import InvertedFile

COUNT = 10
"""Neighbours that are asked for; the first of them is what a photo is recognised by."""
TARGET_RECALL, TARGET_MS = 0.99, 15.0
"""Targets of the project's cells: share of the nearest that are found, and p95 of the time."""
CONNECTIONS, EFFORT = 16, 64
"""Settings of graphs (HNSW): links of a row, and candidates of a search."""
NOISE = 0.1
"""Noise of rows like a lake's (standard deviations): few photos span few directions."""
BLOCK = 100_000
Search = Callable[[np.ndarray], np.ndarray]
"""(k,) row -> positions of the nearest `COUNT`, nearest first."""


@dataclass(frozen=True)
class Spec:
    """Rows to search, and how they were drawn.

    Attributes:
        rows: how many.
        components: how wide.
        queries: new rows that neighbours are asked of.
        classes: whose means they are drawn about.
        between: spread of the means, in that of a class.
        lake: base of the lake whose classes they are drawn after; empty for none.
    """

    rows: int
    components: int
    queries: int
    classes: int
    between: float
    lake: str

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, k) and (queries, k) float32."""
        rng = np.random.default_rng(0)
        draw = _like_lake(self.lake) if self.lake else self._drawn(rng)
        count = self.rows + self.queries
        blocks = [draw(rng, min(BLOCK, count - start)) for start in range(0, count, BLOCK)]
        everything = np.concatenate(blocks)
        return everything[: self.rows], everything[self.rows :].copy()

    def _drawn(self, rng: np.random.Generator) -> Callable[[np.random.Generator, int], np.ndarray]:
        spectrum = (1 / np.sqrt(np.arange(1, self.components + 1))).astype(np.float32)
        size = (self.classes, self.components)
        means = self.between * spectrum * rng.standard_normal(size, np.float32)

        def draw(rng: np.random.Generator, count: int) -> np.ndarray:
            noise = rng.standard_normal((count, self.components), np.float32)
            return means[rng.integers(self.classes, size=count)] + spectrum * noise

        return draw


def _like_lake(base: str) -> Callable[[np.random.Generator, int], np.ndarray]:
    from fruits_assets.lake.lake import Lake  # noqa: PLC0415 - FAISS may be where Delta is not

    frame = Lake.at(base).current("pca_features").pandas(["label", "components"])
    groups = [np.stack(list(one)) for _, one in frame.groupby("label")["components"]]
    spread = np.stack(frame["components"].tolist()).std(axis=0)

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        found, shares = [], [1 / len(groups)] * len(groups)
        for rows, size in zip(groups, rng.multinomial(count, shares), strict=True):
            mean, scale = rows.mean(axis=0), max(1, len(rows) - 1) ** 0.5
            weights = rng.standard_normal((size, len(rows)), np.float32) / np.float32(scale)
            noise = rng.standard_normal((size, rows.shape[1]), np.float32) * (NOISE * spread)
            found.append(mean + weights @ (rows - mean) + noise)
        return rng.permutation(np.concatenate(found)).astype(np.float32)

    return draw


def exact(rows: np.ndarray) -> Search:
    """The library's search of few photos."""
    return _project(rows, np.zeros(len(rows), np.uint16))


def cells(rows: np.ndarray) -> Search:
    """The library's search of many, and what the transform does for it."""
    count = inverted_file.cells_for(len(rows))
    size = min(inverted_file.ROWS_PER_CELL * count, inverted_file.MAX_SAMPLE)
    drawn = np.random.default_rng(1).choice(len(rows), size, replace=False)
    centroids = inverted_file.fit_centroids(rows[drawn], count)
    return _project(rows, inverted_file.nearest_centroids(rows, centroids))


def _project(rows: np.ndarray, cells: np.ndarray) -> Search:
    found = InvertedFile.filled(cells, rows.shape[1], [rows])
    return lambda row: found.nearest(row, COUNT)[0]


def faiss_cells(rows: np.ndarray) -> Search:
    """FAISS's inverted file with as many cells, of which as many are looked at."""
    import faiss  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - optional

    faiss.omp_set_num_threads(1)
    count = inverted_file.cells_for(len(rows))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(rows.shape[1]), rows.shape[1], count)
    index.train(rows[:: max(1, len(rows) // (inverted_file.ROWS_PER_CELL * count))])
    index.add(rows)
    index.nprobe = inverted_file.PROBED
    return lambda row: index.search(row[np.newaxis], COUNT)[1][0]


def faiss_graph(rows: np.ndarray) -> Search:
    """FAISS's graph (HNSW)."""
    import faiss  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - optional

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(rows.shape[1], CONNECTIONS)
    index.hnsw.efSearch = EFFORT
    index.add(rows)
    return lambda row: index.search(row[np.newaxis], COUNT)[1][0]


def usearch_graph(rows: np.ndarray) -> Search:
    """The graph of usearch (HNSW)."""
    from usearch.index import Index  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    index = Index(ndim=rows.shape[1], metric="l2sq", dtype="f32", connectivity=CONNECTIONS)
    index.expansion_search = EFFORT
    index.add(np.arange(len(rows)), rows, threads=1)
    return lambda row: index.search(row, COUNT, threads=1).keys


CONTENDERS: Mapping[Callable[[np.ndarray], Search], tuple[str, str]] = {
    exact: ("this project, exact", "numpy"),
    cells: ("this project, cells", "numpy"),
    faiss_cells: ("FAISS IVFFlat", "faiss"),
    faiss_graph: ("FAISS HNSW", "faiss"),
    usearch_graph: ("usearch HNSW", "usearch"),
}
"""Contender -> its name in the table, and the module that it needs."""
GRAPHS = (faiss_graph, usearch_graph)


@dataclass(frozen=True)
class Result:
    """Measurements of one contender.

    Attributes:
        title: what the table calls it.
        build_seconds: from the rows to the first question, CPU time.
        megabytes: resident set of its process, without the rows that it was given.
        milliseconds: 50th and 95th percentile of a question, wall clock.
        cpu_milliseconds: median CPU time: less where the core was not to be had.
        found: positions of the neighbours of each question.
    """

    title: str
    build_seconds: float
    megabytes: float
    milliseconds: tuple[float, float]
    cpu_milliseconds: float
    found: list[list[int]]


def measure(build: Callable[[np.ndarray], Search], spec: Spec) -> Result:
    """Builds, asks, and measures, on the core that this process is pinned to."""
    rows, queries = spec.draw()
    started = time.process_time()
    search = build(rows)
    seconds = time.process_time() - started
    del rows
    gc.collect()
    times, cpu_times, found = [], [], []
    for query in queries:
        wall, cpu = time.perf_counter(), time.process_time()
        nearest = search(query)
        times.append(1e3 * (time.perf_counter() - wall))
        cpu_times.append(1e3 * (time.process_time() - cpu))
        found.append([int(position) for position in nearest])
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    cpu_p50 = float(np.median(cpu_times))
    megabytes = psutil.Process().memory_info().rss / 1e6
    return Result(CONTENDERS[build][0], seconds, megabytes, (p50, p95), cpu_p50, found)


def _recall(found: list[list[int]], expected: list[list[int]], count: int) -> float:
    """Share of the nearest `count` rows that were found."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len({*a[:count]} & {*b[:count]}) / count for a, b in pairs]))


def main() -> None:
    """Prints the table, writes it, and ends with 1 where a target is missed."""
    arguments = _arguments()
    lake = str(Path(arguments.lake).absolute()) if arguments.lake else ""
    spec = Spec(
        arguments.rows,
        arguments.components,
        arguments.queries,
        arguments.classes,
        arguments.between,
        lake,
    )
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = []
    for build, (title, module) in CONTENDERS.items():
        if build in GRAPHS and not arguments.graphs:
            continue
        if not importlib.util.find_spec(module):
            print(f"{title}: left out, for {module} is not installed", flush=True)
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results.append(pool.submit(measure, build, spec).result())
        print(f"{time.strftime('%H:%M:%S')} {title}", flush=True)
    text, passed = _report(spec, results)
    print(f"\n{text}")
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "search.txt").write_text(f"{text}\n")
    described = [{key: it for key, it in asdict(one).items() if key != "found"} for one in results]
    (output / "search.json").write_text(json.dumps([asdict(spec), described], indent=2))
    if not passed:
        sys.exit(1)


def _report(spec: Spec, results: list[Result]) -> tuple[str, bool]:
    like = (
        "drawn after a lake" if spec.lake else f"{spec.components} wide, of {spec.classes} classes"
    )
    lines = [
        f"one core, {spec.rows} rows of components, {like}; {spec.queries} new ones asked one at a "
        "time",
        "",
        f"{'contender':<22}{'p50 ms':>8}{'p95 ms':>8}{'CPU ms':>8}{'recall@1':>10}{'recall@10':>11}"
        f"{'build s':>9}{'MB':>7}",
    ]
    expected, passed = results[0].found, True
    for one in results:
        first, all_ten = (_recall(one.found, expected, count) for count in (1, COUNT))
        lines.append(
            f"{one.title:<22}{one.milliseconds[0]:>8.2f}{one.milliseconds[1]:>8.2f}"
            f"{one.cpu_milliseconds:>8.2f}{first:>10.4f}{all_ten:>11.4f}{one.build_seconds:>9.1f}{one.megabytes:>7.0f}"
        )
        if one.title == CONTENDERS[cells][0]:
            passed = first >= TARGET_RECALL and one.milliseconds[1] <= TARGET_MS
    verdict = f"recall@1 >= {TARGET_RECALL}, p95 <= {TARGET_MS:g} ms"
    lines += ["", f"{'pass' if passed else 'FAIL'}  {CONTENDERS[cells][0]}: {verdict}"]
    return "\n".join(lines), passed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000, help="photos that are searched")
    add("--components", type=int, default=100, help="of each; with --lake, as many as it has")
    add("--queries", type=int, default=1000, help="photos that neighbours are asked of")
    add("--classes", type=int, default=200, help="1 for rows without any clusters")
    add("--between", type=float, default=1.0, help="spread of the classes, in that of each")
    add("--lake", default="", help="draw photos after the classes of this lake")
    add("--graphs", action="store_true", help="graphs (HNSW) too, which take many minutes to build")
    add("--output", default="artifacts/search", help="folder for the table and JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
