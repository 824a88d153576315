"""`python -m benchmarks`: measures this project against what a user would pick instead."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from benchmarks import photos, report
from benchmarks.contenders import Spec
from benchmarks.memory import PeakMemory
from fruits_assets.assets.places import Source, WeightsOrigin
from fruits_assets.core.dataset import (
    File,
    Manifest,
    schema_of,
    vectors_array,
    write_file,
    write_parquet,
)
from fruits_assets.definitions import ASSETS
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark.local import LocalSpark
from fruits_assets.transforms.featurize import FEATURES_SCHEMA

FEATURE_CONTENDERS = ("intern", "predict_batch", "project", "ceiling")
PCA_CONTENDERS = ("spark_ml_pca", "project_pca", "scikit_learn_pca")


def main() -> None:
    """Runs the benchmark and prints the table; exits with 1 where a target is missed."""
    arguments = _arguments()
    work = Path(arguments.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    weights = Path(arguments.weights).absolute() if arguments.weights else _random_weights(work)
    source = Path(arguments.source) if arguments.source else photos.drawn(work / "drawn")
    results = []
    for size in arguments.photos:
        spec = _prepared(work, source, weights, size=size, rows=0)
        results += _compete(FEATURE_CONTENDERS, spec, work, size=size, repeat=arguments.repeat)
    if arguments.rows:
        spec = _prepared(work, source, weights, size=arguments.photos[0], rows=arguments.rows)
        results += _compete(
            PCA_CONTENDERS, spec, work, size=arguments.rows, repeat=arguments.repeat
        )
    _tell(results, Path(arguments.output), repeat=arguments.repeat)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--source", help="folder of JPEG photos (the embedded sample without)")
    parser.add_argument(
        "--weights", help="Keras weights of MobileNetV2 without its top, alpha 1.0 (random without)"
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[240], help="sizes to run at")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the PCA, 0 for none")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", default="artifacts/benchmark", help="folder for what is made")
    parser.add_argument("--output", default="artifacts", help="folder for table, JSON and plot")
    return parser.parse_args()


def _random_weights(work: Path) -> Path:
    """Weights of the full-size network: how fast it runs does not depend on what it learnt."""
    path = work / "random.weights.h5"
    if not path.exists():
        import keras  # noqa: PLC0415 - seconds that other runs need not spend

        keras.utils.set_random_seed(0)
        nothing: Any = None  # Keras leaves out that None is a choice
        keras.applications.MobileNetV2(
            include_top=False, pooling="avg", weights=nothing, input_shape=(224, 224, 3)
        ).save_weights(path)
    return path


def _prepared(work: Path, source: Path, weights: Path, *, size: int, rows: int) -> Spec:
    """Photos, their raw_images and the converted model: what the features stage starts from."""
    folder = photos.multiplied(source, work / f"photos-{size}", count=size)
    lake = LakeResource(base=str(work / f"lake-{size}"))
    result = dg.materialize(
        list(ASSETS),
        selection=["raw_images", "rejected_images", "model_weights"],
        resources={
            "io_manager": LakeIOManager(lake=lake),
            "lake": lake,
            "spark": LocalSpark(lake=lake),
            "source": Source(place=str(folder)),
            "weights": WeightsOrigin(place=str(weights)),
        },
        instance=dg.DagsterInstance.ephemeral(),
    )
    if not result.success:
        sys.exit("the photos could not be ingested: see above")
    current = Lake.at(lake.base)
    return Spec(
        photos=str(folder),
        images=current.current("raw_images").uri,
        model=current.current("model_weights").uri,
        weights=str(weights),
        alpha=1.0,
        image_size=224,
        features=_random_features(work, rows) if rows else "",
        scratch=str(work / "scratch"),
        master="local[*]",
        cores=os.cpu_count() or 1,
    )


def _random_features(work: Path, rows: int, *, width: int = 1280, part: int = 4096) -> str:
    """A version of `features` whose spectrum falls off as that of real features does."""
    uri = str(work / f"features-{rows}")
    if Path(uri, "manifest.json").exists():
        return uri
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
        name = f"part-{start:09d}.parquet"
        files.append(write_parquet(uri, name, arrow, incompressible=["features"]))
    manifest = Manifest(
        asset="features",
        version="benchmark",
        transform="random",
        code_version="1",
        params={},
        inputs={},
        run_id="",
        created_at="",
        seconds=0.0,
        files=tuple(files),
        figures={"splits": [[None, rows]]},
        schema=schema_of(FEATURES_SCHEMA),
    )
    write_file(uri, "manifest.json", manifest.to_json())
    return uri


def _compete(
    names: Sequence[str], spec: Spec, work: Path, *, size: int, repeat: int
) -> list[report.Result]:
    """Starts all contenders, then lets them take turns."""
    path = spec.write(work / "spec.json")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, dict[str, int]] = {name: {} for name in names}
    with contextlib.ExitStack() as stack:
        contenders = {name: stack.enter_context(_contender(name, path, work)) for name in names}
        for turn in range(repeat):
            for name, process in contenders.items():
                with PeakMemory(process.pid) as memory:
                    answer = _ask(process)
                if answer["images"] != size:
                    sys.exit(f"{name} treated {answer['images']} of {size}")
                seconds[name].append(answer["seconds"])
                for kind, peak in memory.peaks.items():
                    peaks[name][kind] = max(peak, peaks[name].get(kind, 0))
                print(
                    f"{time.strftime('%H:%M:%S')} {name}, {size}, run {turn + 1}: "
                    f"{answer['seconds']:.1f} s",
                    flush=True,
                )
    return [report.Result(name, size, seconds[name], peaks[name]) for name in names]


@contextlib.contextmanager
def _contender(name: str, spec: Path, work: Path) -> Iterator[subprocess.Popen[str]]:
    with (work / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", name, str(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        _answer(process)
        yield process
    finally:
        process.communicate()


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


def _tell(results: Sequence[report.Result], output: Path, *, repeat: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    promises = report.targets(results)
    own = max((one for one in results if one.contender == "project"), key=lambda one: one.size)
    intern = next(one for one in results if (one.contender, one.size) == ("intern", own.size))
    cores = os.cpu_count() or 1
    costs = {one.contender: report.cost(one, cores=cores) for one in (intern, own)}
    text = "\n".join(
        [
            f"{cores} cores, median of {repeat}, contenders taking turns",
            "",
            report.table(results),
            "",
            *(promise.line() for promise in promises),
            "",
            *(
                f"{report.TITLES[name]}: {it['images_per_core_second']:.0f} images/core-second, "
                f"{it['core_hours_per_million']:.1f} core-hours per million; EUR per million "
                f"{it['eur_per_million_on_demand']:.2f} on demand, "
                f"{it['eur_per_million_spot']:.2f} on Spot"
                for name, it in costs.items()
            ),
        ]
    )
    print(f"\n{text}")
    (output / "benchmark.txt").write_text(f"{text}\n")
    (output / "benchmark.json").write_text(report.as_json(results, promises, cost=costs))
    report.plot_rates(results, output / "benchmark.png")
    if any(promise.promised and not promise.passed for promise in promises):
        sys.exit(1)


if __name__ == "__main__":
    main()
