"""`python -m benchmarks.latency`: how long one photo takes on one core, once all is loaded.

The library (docs/library.md) against what people would write in its place: Keras, and the PCA and
the nearest neighbours of scikit-learn, asked for one photo at a time. Every contender is a process
of its own, all are pinned to the same core, and they take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks import photos
from benchmarks.weights import random_weights
from fruits_assets.core.mobilenet import DESCRIPTION, ModelDescription
from fruits_assets.core.weights import IMAGENET, Weights
from fruits_assets.lake.lake import Lake

STEPS = ("decode", "features", "PCA", "nearest")
TOGETHER = "together"
PERCENTILES = (50, 95, 100)
NEIGHBOURS = 5
WARM_UP = 10
"""Photos before the clock starts, in every turn."""
TARGET_MS = 15.0
"""Of the project, at the 95th percentile."""
TRAINING = "Training"


@dataclass(frozen=True)
class Spec:
    """What all contenders are given.

    Attributes:
        lake: of a finished run.
        weights: `imagenet`, `sample` or a Keras weights file: those that the run used.
        photos: paths of JPEG files.
    """

    lake: str
    weights: str
    photos: tuple[str, ...]


@dataclass(frozen=True)
class Contender:
    """Four steps, each of which takes what the one before gives.

    Attributes:
        decode: a file -> what the network sees.
        features: -> (d,) features.
        reduce: -> (k,) components.
        nearest: -> paths of the nearest Training photos, or their rows; nearest first.
    """

    decode: Callable[[bytes], np.ndarray]
    features: Callable[[np.ndarray], np.ndarray]
    reduce: Callable[[np.ndarray], np.ndarray]
    nearest: Callable[[np.ndarray], Sequence[str]]


def project(spec: Spec) -> Contender:
    """This project's library."""
    from fruits_assets.reduction import Reducer  # noqa: PLC0415 - counts in its memory only

    reducer = Reducer.load(spec.lake)
    return Contender(
        reducer.pixels,
        reducer.features,
        lambda features: reducer.pca.transform(features[np.newaxis])[0],
        lambda components: [one.path for one in reducer.nearest(components, NEIGHBOURS)],
    )


def keras_call(spec: Spec) -> Contender:
    """Keras, called as `model(photo)`, and scikit-learn."""
    return _keras(spec, lambda model: lambda batch: model(batch, training=False))


def keras_function(spec: Spec) -> Contender:
    """The same with the model compiled by `tf.function`, for those who know."""
    import tensorflow as tf  # noqa: PLC0415 - counts in its memory only

    return _keras(spec, lambda model: tf.function(lambda batch: model(batch, training=False)))


TITLES: Mapping[Callable[[Spec], Contender], str] = {
    project: "this project",
    keras_call: "Keras model(x), scikit-learn",
    keras_function: "tf.function, scikit-learn",
}


def _keras(spec: Spec, ready: Callable[[Any], Callable[[np.ndarray], Any]]) -> Contender:
    import keras  # noqa: PLC0415 - counts in its memory only
    from keras.applications.mobilenet_v2 import preprocess_input  # noqa: PLC0415
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

    lake = Lake.at(spec.lake)
    description = ModelDescription.from_json(lake.current("model_weights").read(DESCRIPTION))
    size = description.image_size
    origin: Any = IMAGENET if spec.weights == IMAGENET else None  # Keras leaves out the choice None
    model = keras.applications.MobileNetV2(
        input_shape=(size, size, 3),
        alpha=description.alpha,
        include_top=False,
        pooling="avg",
        weights=origin,
    )
    if origin is None:
        with Weights.of(spec.weights).file() as path:
            model.load_weights(path)
    infer = ready(model)
    paths, rows = _training(lake)
    pca = PCA(lake.current("pca_features").figures["components"], svd_solver="full")
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(pca.fit_transform(rows))

    def decode(photo: bytes) -> np.ndarray:
        picture = Image.open(io.BytesIO(photo)).convert("RGB").resize((size, size))
        return preprocess_input(np.asarray(picture, np.float32))[np.newaxis]

    return Contender(
        decode,
        lambda seen: np.asarray(infer(seen)),
        pca.transform,
        lambda found: [paths[i] for i in neighbours.kneighbors(found, return_distance=False)[0]],
    )


def _training(lake: Lake) -> tuple[list[str], np.ndarray]:
    """Paths and (n, d) features of the Training photos; of all where there are none."""
    frame = lake.current("features").pandas(["path", "split", "features"])
    if (frame["split"] == TRAINING).any():
        frame = frame[frame["split"] == TRAINING]
    return frame["path"].tolist(), np.stack(frame["features"].tolist())


@dataclass(frozen=True)
class Turn:
    """What one contender did in one turn.

    Attributes:
        load_seconds: until it is ready for the first photo, imports included.
        megabytes: resident set of its process, afterwards.
        milliseconds: (photos, steps), wall clock.
        cpu_milliseconds: (photos, steps), CPU time: less where the core was not to be had.
        neighbours: of each photo.
    """

    load_seconds: float
    megabytes: float
    milliseconds: np.ndarray
    cpu_milliseconds: np.ndarray
    neighbours: list[Sequence[str]]


@cache
def _loaded(load: Callable[[Spec], Contender], spec: Spec) -> tuple[Contender, float]:
    """Once per process."""
    started = time.perf_counter()
    return load(spec), time.perf_counter() - started


def take_turn(load: Callable[[Spec], Contender], spec: Spec) -> Turn:
    """Gives a contender one photo after the other."""
    contender, seconds = _loaded(load, spec)
    contents = [Path(path).read_bytes() for path in spec.photos]
    for content in contents[:WARM_UP]:
        _asked(contender, content)
    asked = [_asked(contender, content) for content in contents]
    times = np.array([times for times, _ in asked])
    return Turn(
        seconds,
        psutil.Process().memory_info().rss / 1e6,
        times[:, :, 0],
        times[:, :, 1],
        [neighbours for _, neighbours in asked],
    )


def _asked(contender: Contender, photo: bytes) -> tuple[list[list[float]], Sequence[str]]:
    """Milliseconds of wall clock and of CPU time for each step, and the neighbours."""
    value: Any = photo
    times = []
    for step in (contender.decode, contender.features, contender.reduce, contender.nearest):
        wall, cpu = time.perf_counter(), time.process_time()
        value = step(value)
        spent = (time.perf_counter() - wall, time.process_time() - cpu)
        times.append([1e3 * seconds for seconds in spent])
    return times, value


@dataclass(frozen=True)
class Result:
    """What one contender did in all turns.

    Attributes:
        title: what the table calls it.
        load_seconds: until it is ready for the first photo, imports included.
        megabytes: resident set of its process, at the end.
        milliseconds: step -> `PERCENTILES` of the photos of all turns, wall clock.
        cpu_milliseconds: step -> median CPU time.
        agreement: share of the photos whose neighbours are those that the project finds.
    """

    title: str
    load_seconds: float
    megabytes: float
    milliseconds: Mapping[str, Sequence[float]]
    cpu_milliseconds: Mapping[str, float]
    agreement: float

    @classmethod
    def of(cls, title: str, turns: Sequence[Turn], expected: Sequence[Sequence[str]]) -> Result:
        """Puts the turns together."""
        wall = _by_step([turn.milliseconds for turn in turns])
        cpu = _by_step([turn.cpu_milliseconds for turn in turns])
        pairs = zip(turns[-1].neighbours, expected, strict=True)
        return cls(
            title,
            turns[0].load_seconds,
            turns[-1].megabytes,
            {step: np.percentile(times, PERCENTILES).tolist() for step, times in wall.items()},
            {step: float(np.median(times)) for step, times in cpu.items()},
            float(np.mean([list(found) == list(known) for found, known in pairs])),
        )


def _by_step(times: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
    """Step -> times of all photos; the steps together last."""
    steps = np.concatenate(times)
    return {**dict(zip(STEPS, steps.T, strict=True)), TOGETHER: steps.sum(axis=1)}


def compete(spec: Spec, *, turns: int) -> list[Result]:
    """Lets all contenders take turns on one core, each in a process that inherits it."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    taken: dict[Callable[[Spec], Contender], list[Turn]] = {load: [] for load in TITLES}
    with contextlib.ExitStack() as stack:
        pools = {
            load: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for load in TITLES
        }
        for turn in range(turns):
            for load, pool in pools.items():
                taken[load].append(pool.submit(take_turn, load, spec).result())
                median = np.median(taken[load][-1].milliseconds.sum(axis=1))
                print(
                    f"{time.strftime('%H:%M:%S')} {TITLES[load]}, turn {turn + 1}: {median:.1f} ms"
                )
    expected = taken[project][-1].neighbours
    return [Result.of(TITLES[load], mine, expected) for load, mine in taken.items()]


def main() -> None:
    """Measures and prints the table; exits with 1 where the target is missed."""
    options = _arguments()
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    source = Path(options.source).absolute() if options.source else photos.drawn(work / "drawn")
    if options.lake:
        model = Lake.at(options.lake).current("model_weights")
        origin = ModelDescription.from_json(model.read(DESCRIPTION)).origin
        spec = Spec(str(Path(options.lake).absolute()), options.weights or origin, ())
    else:
        weights = options.weights or str(random_weights(work))
        spec = Spec(_lake_of(source, weights, work), weights, ())
    spec = replace(spec, photos=_some(source, options.photos))
    _tell(compete(spec, turns=options.turns), spec, work)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    add = parser.add_argument
    add("--lake", help="of a finished run (one is made of the source without)")
    add("--weights", help="Keras weights of that run, alpha 1.0 (those it names, or random ones)")
    add("--source", help="folder of JPEG photos (the embedded sample without)")
    add("--photos", type=int, default=200, help="how many of them, evenly chosen")
    add("--turns", type=int, default=3, help="of each contender")
    add("--work", default="artifacts/latency", help="folder for what is made, and for the results")
    return parser.parse_args()


def _lake_of(source: Path, weights: str, work: Path) -> str:
    """The whole pipeline on a source, as a person runs it; nothing is computed twice."""
    lake, log = str(work / "lake"), work / "run.log"
    command = ["dagster", "job", "execute", "-m", "fruits_assets.definitions", "-j", "fruits_job"]
    given = {"FRUITS_SOURCE": str(source), "FRUITS_LAKE": lake, "FRUITS_WEIGHTS": weights}
    print(f"{time.strftime('%H:%M:%S')} the pipeline on {source}: see {log}")
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, **given, "FRUITS_SPARK": "local"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=False,
        )
    if done.returncode:
        sys.exit(f"the pipeline failed: see {log}")
    return lake


def _some(source: Path, count: int) -> tuple[str, ...]:
    paths = sorted(str(path) for path in source.rglob("*") if path.suffix.lower() in photos.JPEG)
    if not paths:
        sys.exit(f"{source} has no JPEG photos: give --source a folder that has some.")
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return tuple(paths[i] for i in chosen)


def table(results: Sequence[Result]) -> str:
    """A line per contender and step."""
    columns = f"{'p50 ms':>8} {'p95 ms':>8} {'max ms':>8} {'CPU ms':>8}"
    lines = [f"{'contender':<30} {'step':<10} {columns}"]
    for result in results:
        for step, wall in result.milliseconds.items():
            times = " ".join(f"{one:>8.2f}" for one in (*wall, result.cpu_milliseconds[step]))
            lines.append(f"{result.title:<30} {step:<10} {times}")
    return "\n".join(lines)


def _tell(results: Sequence[Result], spec: Spec, work: Path) -> None:
    # It brings Matplotlib, which would count in the memory of all contenders if it stood above.
    from benchmarks.report import Target  # noqa: PLC0415

    lake = Lake.at(spec.lake)
    figures = lake.current("pca_features").figures
    size = lake.current("model_weights").figures["image_size"]
    latency = results[0].milliseconds[TOGETHER][1]
    target = Target("one photo, p95: ms", latency, TARGET_MS, at_least=False)
    blocks = [
        f"one core, {len(spec.photos)} photos, one at a time; network of {size} pixels, "
        f"{figures['components']} components, a lake of {figures['images']} photos",
        table(results),
        "\n".join(
            f"{one.title}: ready after {one.load_seconds:.1f} s, {one.megabytes:.0f} MB; the same "
            f"{NEIGHBOURS} neighbours for {one.agreement:.1%} of the photos"
            for one in results
        ),
        target.line(),
    ]
    text = "\n\n".join(blocks)
    print(f"\n{text}")
    (work / "latency.txt").write_text(f"{text}\n")
    found = {
        "photos": len(spec.photos),
        "in_lake": figures,
        "image_size": size,
        "percentiles": PERCENTILES,
        "results": [vars(one) for one in results],
        "targets": [{**vars(target), "passed": target.passed}],
    }
    (work / "latency.json").write_text(json.dumps(found, indent=2))
    if not target.passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
