"""Trains the embedded weights on drawn fruits: `python -m fruits_assets.sample.train`.

Needed again only when the drawing changes. The photos it learns from are drawn with another seed
than the sample's, so that the accuracies it reports are on fruits that it has not seen.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import h5py
import numpy as np
from PIL import Image

from fruits_assets.sample.drawing import CLASSES, SEED, SPLITS, draw_photo, write_sample

if TYPE_CHECKING:
    import keras

WEIGHTS_FILE: Final = Path(__file__).with_name("mobilenet_v2_035_96_sample.weights.h5")
ALPHA: Final = 0.35
IMAGE_SIZE: Final = 96
BATCH: Final = 32
LEARNING_RATE: Final = 2e-3
# Keras's 0.999 needs thousands of steps before inference sees the statistics of training.
BATCH_NORM_MOMENTUM: Final = 0.9
_COMPRESSED_ABOVE_BYTES = 8192

log = logging.getLogger(__name__)


def main() -> None:
    """Draws, trains, saves and reports."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # noqa: PLC0415 - takes seconds, and --help does not need it

    keras.utils.set_random_seed(SEED)
    photos, labels = drawn(arguments.photos_per_class, seed=SEED + 1)
    log.info("drew %d photos", len(photos))
    features = build()
    classifier = train(features, photos, labels, epochs=arguments.epochs)
    save(features, arguments.output)
    log.info("wrote %s, %d bytes", arguments.output, arguments.output.stat().st_size)
    _report(features, classifier)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains the embedded weights.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--photos-per-class", type=int, default=250)
    parser.add_argument("--output", type=Path, default=WEIGHTS_FILE)
    return parser.parse_args()


def drawn(photos_per_class: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Freshly drawn fruits.

    Returns:
        (n, 96, 96, 3) uint8 photos and (n,) int64 indices into `CLASSES`.
    """
    photos = [
        resized(Image.fromarray(draw_photo(SPLITS[0], label, index, seed=seed)))
        for label in CLASSES
        for index in range(photos_per_class)
    ]
    return np.stack(photos), np.repeat(np.arange(len(CLASSES)), photos_per_class)


def read(split: Path) -> tuple[np.ndarray, np.ndarray]:
    """The photos of one split of a written sample, as `drawn` returns them."""
    files = [
        (file, n) for n, label in enumerate(CLASSES) for file in sorted((split / label).iterdir())
    ]
    photos = [resized(Image.open(file)) for file, _ in files]
    return np.stack(photos), np.array([n for _, n in files])


def resized(photo: Image.Image) -> np.ndarray:
    """(96, 96, 3) uint8, as the pipeline resizes."""
    return np.asarray(photo.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def preprocessed(photos: np.ndarray) -> np.ndarray:
    """(n, size, size, 3) uint8 -> float32 in [-1, 1], as `mobilenet_v2.preprocess_input`."""
    return photos.astype(np.float32) / 127.5 - 1


def build() -> keras.Model:
    """MobileNetV2 without its top and with random weights."""
    import keras  # noqa: PLC0415 - see main

    model = keras.applications.MobileNetV2(
        input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
        alpha=ALPHA,
        include_top=False,
        pooling="avg",
        weights=None,  # pyright: ignore[reportArgumentType] - the annotation forgets None
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return model


def train(
    features: keras.Model, photos: np.ndarray, labels: np.ndarray, *, epochs: int
) -> keras.Model:
    """Trains `features` in place under a softmax head, and returns both together."""
    import keras  # noqa: PLC0415 - see main

    head = keras.layers.Dense(len(CLASSES), activation="softmax")
    classifier = keras.Model(features.input, head(features.output))
    classifier.compile(
        keras.optimizers.AdamW(LEARNING_RATE, weight_decay=1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # The rate falls to almost nothing, so that the last statistics are those of the final weights.
    falling = keras.callbacks.LearningRateScheduler(
        lambda epoch: LEARNING_RATE * (1 + math.cos(math.pi * epoch / epochs)) / 2
    )
    inputs = preprocessed(photos)
    classifier.fit(inputs, labels, batch_size=BATCH, epochs=epochs, callbacks=[falling])
    return classifier


def save(model: keras.Model, output: Path) -> None:
    """Writes the weights as Keras does, compressed by what HDF5 itself can read."""
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        plain, packed = Path(folder) / "plain.weights.h5", Path(folder) / output.name
        model.save_weights(plain)
        with h5py.File(plain) as source, h5py.File(packed, "w", libver="latest") as target:
            _pack(source, target)
        packed.replace(output)


def _pack(source: h5py.Group, target: h5py.Group) -> None:
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _pack(item, target.create_group(name))
        else:
            # A chunk has an index of its own, larger than what a short vector saves.
            options = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
            large = item.nbytes > _COMPRESSED_ABOVE_BYTES
            chunks = {"chunks": item.shape, **options} if large else {}
            target.create_dataset(name, data=item[()], **chunks).attrs.update(item.attrs)


def nearest_neighbour_accuracy(
    known: np.ndarray, known_labels: np.ndarray, asked: np.ndarray, asked_labels: np.ndarray
) -> float:
    """Share of `asked` (m, d) whose nearest of `known` (n, d) bears the same label."""
    distances = np.square(known).sum(1) - 2 * asked @ known.T
    return float(np.mean(known_labels[distances.argmin(1)] == asked_labels))


def inferred(model: keras.Model, photos: np.ndarray) -> np.ndarray:
    """What the model gives for (n, 96, 96, 3) uint8 photos."""
    batches = np.split(photos, range(BATCH, len(photos), BATCH))
    return np.concatenate([np.asarray(model(preprocessed(b), training=False)) for b in batches])


def _report(features: keras.Model, classifier: keras.Model) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        write_sample(sample)
        known, known_labels = read(sample / SPLITS[0])
        asked, asked_labels = read(sample / SPLITS[1])
    guesses = inferred(classifier, asked).argmax(1)
    log.info("accuracy on Test: %.3f", np.mean(guesses == asked_labels))
    near, far = inferred(features, known), inferred(features, asked)
    accuracy = nearest_neighbour_accuracy(near, known_labels, far, asked_labels)
    log.info("nearest neighbour, Training to Test: %.3f", accuracy)
    alive, mean, top = (near.std(0) > 1e-3).mean(), near.mean(), near.max()
    log.info("features: %.0f%% vary, mean %.2f, largest %.2f", 100 * alive, mean, top)


if __name__ == "__main__":
    main()
