"""`python -m benchmarks`: measures this project against what a user would pick instead."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import decoding, photos, report
from benchmarks.cluster import standalone
from benchmarks.contenders import FEW_OBJECTS, GETS, Spec
from benchmarks.core_seconds import CoreSeconds
from benchmarks.memory import PeakMemory
from benchmarks.store import DELAY_SECONDS, delayed
from benchmarks.weights import random_weights
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.parquet import File, Origin, address_of, vectors_array, write_part
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.featurize import FEATURES_SCHEMA

FEATURE_CONTENDERS = ("intern", "predict_batch", "project", "ceiling")
GET_CONTENDERS: tuple[str, ...] = ("get_boto3", "get_obstore", "get_pyarrow")
PCA_CONTENDERS = ("spark_ml_pca", "project_pca", "scikit_learn_pca")
CORES = os.cpu_count() or 1
SNAPSHOT = "snapshot.json"
"""What the features of an earlier sitting are, beside them."""


def main() -> None:
    """Runs the benchmark and prints the tables; exits with 1 where a target is missed."""
    arguments = _arguments()
    bench = Bench.of(arguments)
    results: list[report.Result] = []
    for size in arguments.photos:
        results += bench.compete(
            dict.fromkeys(FEATURE_CONTENDERS, size), bench.spec(size), arguments.repeat
        )
    for size in arguments.cold:
        results += bench.compete({"cold_job": size}, bench.spec(size), arguments.repeat)
    if arguments.rows:
        spec = replace(
            bench.spec(0),
            features=_random_features(bench.work, arguments.rows, width=arguments.width),
        )
        results += bench.compete(
            dict.fromkeys(PCA_CONTENDERS, arguments.rows), spec, arguments.repeat
        )
    for size in arguments.grow:
        results += bench.compete({"pipeline": size}, bench.spec(size), 1)
    for executors in range(1, CORES + 1) if arguments.grow else ():
        for size in arguments.grow:
            results += bench.on_cluster(executors, size)
    notes = []
    if arguments.objects:
        results += bench.on_s3(arguments.objects, arguments.repeat)
        notes.append(
            f"(f): every request to the store takes {DELAY_SECONDS * 1000:.0f} ms longer; "
            "binaryFile reads fewer photos, and images/s are compared; (g): without delay"
        )
    if arguments.large:
        spec = bench.large(arguments.large)
        (result,) = bench.compete({"pipeline": arguments.large}, spec, 1)
        results.append(replace(result, contender="large"))
        notes.append(str(decoding.measure(spec)))
    _tell(results, notes, Path(arguments.output), repeat=arguments.repeat)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--source", help="folder of JPEG photos (the embedded sample without)")
    add(
        "--weights", help="Keras weights of MobileNetV2 without its top, alpha 1.0 (random without)"
    )
    add("--photos", type=int, nargs="*", default=[], help="sizes at which all contenders run")
    add("--rows", type=int, default=0, help="rows of the PCA")
    add("--width", type=int, default=1280, help="columns of the PCA")
    add("--cold", type=int, nargs="*", default=[], help="sizes of the job from process start")
    add("--grow", type=int, nargs="*", default=[], help="sizes for memory and scaling")
    add("--large", type=int, default=0, help="number of photos of 12 megapixels")
    add("--objects", type=int, default=0, help="number of photos in a bucket")
    add("--repeat", type=int, default=3, help="runs, of which the median counts")
    add("--work", default="artifacts/benchmark", help="folder for what is made")
    add("--output", default="artifacts", help="folder for tables, JSON and plots")
    return parser.parse_args()


@dataclass(frozen=True)
class Bench:
    """What is the same for all measurements of a sitting.

    Attributes:
        work: folder for what is made.
        source: folder of photos, from which any number is made.
        weights: Keras weights file.
    """

    work: Path
    source: Path
    weights: Path

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Bench:
        """Draws photos and makes up weights where none are given."""
        work = Path(arguments.work).absolute()
        work.mkdir(parents=True, exist_ok=True)
        weights = Path(arguments.weights).absolute() if arguments.weights else random_weights(work)
        source = Path(arguments.source) if arguments.source else photos.drawn(work / "drawn")
        return cls(work, source, weights)

    def spec(self, size: int) -> Spec:
        """As many photos as this; in the lake too, once."""
        folder = self.work / f"photos-{size}"
        return self._ingested(
            photos.multiplied(self.source, folder, count=size) if size else self.source, size
        )

    def large(self, count: int) -> Spec:
        """As many photos of 12 megapixels, in the lake too."""
        folder = photos.large(self.source, self.work / f"large-{count}", count=count)
        return self._ingested(folder, count)

    def on_cluster(self, executors: int, size: int) -> list[report.Result]:
        """The features stage on executors that are processes of their own, one core each."""
        with standalone(executors, self.work / "cluster") as cluster:
            spec = replace(
                self.spec(size),
                master=cluster.master,
                cores=executors,
                environment=cluster.environment,
            )
            results = self.compete({"project": size}, spec, 1, others=cluster.pids)
        return [replace(result, executors=executors) for result in results]

    def on_s3(self, size: int, repeat: int) -> list[report.Result]:
        """Ingest of small objects from a store far away, and plain reading from one at hand."""
        folder = photos.multiplied(self.source, self.work / f"photos-{size}", count=size)
        few, gets = min(size, FEW_OBJECTS), min(size, GETS)
        with delayed(self.work) as store:
            spec = replace(
                self._on(folder),
                bucket=store.filled(folder, count=size),
                few=store.filled(folder, count=few),
                region=store.region,
                endpoint=store.server.endpoint,
            )
            ingests = {"ingest_folder": size, "ingest_bucket": size, "binary_file": few}
            reads = dict.fromkeys(GET_CONTENDERS, gets)
            return [
                *self.compete(ingests, spec, repeat, beside=store.pids),
                *self.compete(reads, spec, repeat, beside=store.pids),
            ]

    def compete(
        self,
        sizes: Mapping[str, int],
        spec: Spec,
        repeat: int,
        *,
        others: Sequence[int] = (),
        beside: Mapping[str, int] = MappingProxyType({}),
    ) -> list[report.Result]:
        """Starts all contenders, then lets them take turns.

        Args:
            sizes: name of each contender -> images or rows that it must treat.
            spec: their work.
            repeat: turns.
            others: processes that work for them and are not their children.
            beside: kind of process -> one whose CPU time is to be told apart.
        """
        path = spec.write(self.work / "spec.json")
        seconds: dict[str, list[float]] = {name: [] for name in sizes}
        peaks: dict[str, dict[str, int]] = {name: {} for name in sizes}
        spent: dict[str, list[Mapping[str, float]]] = {name: [] for name in sizes}
        with _contenders([*sizes], path, self.work) as contenders:
            for turn in range(repeat):
                for name, process in contenders.items():
                    size = sizes[name]
                    with (
                        CoreSeconds(process.pid, beside) as cpu,
                        PeakMemory(process.pid, others) as memory,
                    ):
                        answer = _ask(process)
                    if size and answer["images"] != size:
                        sys.exit(f"{name} treated {answer['images']} of {size}")
                    seconds[name].append(answer["seconds"])
                    spent[name].append(cpu.spent)
                    for kind, peak in memory.peaks.items():
                        peaks[name][kind] = max(peak, peaks[name].get(kind, 0))
                    print(
                        f"{time.strftime('%H:%M:%S')} {name}, {size}, run {turn + 1}: "
                        f"{answer['seconds']:.1f} s",
                        flush=True,
                    )
        return [
            report.Result(name, size, seconds[name], peaks[name], spent=spent[name])
            for name, size in sizes.items()
        ]

    def _on(self, folder: Path) -> Spec:
        return Spec(
            photos=str(folder),
            lake=str(self.work / f"lake-{folder.name}"),
            weights=str(self.weights),
            features={},
            scratch=str(self.work / "scratch"),
            master="local[*]",
            cores=CORES,
        )

    def _ingested(self, folder: Path, size: int) -> Spec:
        spec = self._on(folder)
        if size and "model_weights" not in Lake.at(spec.lake).tables():
            self.compete({"ingest": size}, spec, 1)
        return spec


@contextlib.contextmanager
def _contenders(
    names: Sequence[str], spec: Path, work: Path
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Starts them all at once, and waits until the last has its session up."""
    processes = {}
    try:
        for name in names:
            with (work / f"{name}.log").open("w") as log:
                processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.contenders", name, str(spec)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        for process in processes.values():
            _answer(process)
        yield processes
    finally:
        for process in processes.values():
            process.stdin.close()
        for process in processes.values():
            process.wait()


def _ask(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin  # noqa: S101 - opened as a pipe above
    process.stdin.write("run\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout  # noqa: S101 - opened as a pipe above
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{process.args} ended: see its log in the work folder")
    return json.loads(line)


def _random_features(work: Path, rows: int, *, width: int, part: int = 4096) -> Mapping[str, Any]:
    """A version of `features` whose spectrum falls off as that of real features does.

    Returns:
        What `Snapshot.to_dict` says of it; of an earlier sitting's, where there is one.
    """
    folder = folder_at(str(work / f"features-{rows}x{width}"))
    if SNAPSHOT in folder.sizes():
        return json.loads(folder.read(SNAPSHOT))
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(width, width)).astype(np.float32) / np.arange(1, width + 1)[:, None]
    files: list[File] = []
    for start in range(0, rows, part):
        count = min(part, rows - start)
        matrix = np.maximum(rng.normal(size=(count, width)).astype(np.float32) @ mixing, 0)
        names = [f"{start + row:08d}" for row in range(count)]
        nothing = [None] * count
        columns = [names, nothing, nothing, names]
        table = dict(zip(FEATURES_SCHEMA.names, [*columns, vectors_array(matrix)], strict=True))
        arrow = pa.Table.from_pydict(table, schema=FEATURES_SCHEMA)
        origin = Origin(address_of("random"), start, start + count)
        files.append(write_part(folder, origin, arrow, incompressible=["features"]))
    made = Snapshot.unpublished(folder, "features", FEATURES_SCHEMA, tuple(files))
    commit = replace(made.commit, figures={"splits": [[None, rows]]})
    described = replace(made, commit=commit).to_dict()
    folder.write(SNAPSHOT, json.dumps(described).encode())
    return described


def _tell(
    results: Sequence[report.Result], notes: Sequence[str], output: Path, *, repeat: int
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    promises = report.targets(results)
    costs = report.costs(results, cores=CORES)
    blocks = [
        [f"{CORES} cores, median of {repeat}, contenders taking turns"],
        [report.table(results)],
        [report.cpu_table(results)],
        [promise.line() for promise in promises],
        [f"{title}: {cost}" for title, cost in costs.items()],
        notes,
    ]
    text = "\n\n".join("\n".join(block) for block in blocks if any(block))
    print(f"\n{text}")
    (output / "benchmark.txt").write_text(f"{text}\n")
    (output / "benchmark.json").write_text(report.as_json(results, promises, costs))
    report.plot_rates(results, output / "benchmark.png")
    report.plot_growth(results, output / "growth.png")
    if any(promise.promised and not promise.passed for promise in promises):
        sys.exit(1)


if __name__ == "__main__":
    main()
