"""The embedded weights load in Keras as they are, and tell the fruits apart."""

import numpy as np
import pytest
from PIL import Image

from fruits_assets.sample.drawing import CLASSES, draw_photo
from fruits_assets.sample.train import (
    ALPHA,
    IMAGE_SIZE,
    WEIGHTS_FILE,
    build,
    inferred,
    nearest_neighbour_accuracy,
    resized,
    save,
)

KNOWN = 8
"""Photos per class that new ones are compared with."""


def features_of(model, split: str, photos_per_class: int) -> np.ndarray:
    photos = [
        resized(Image.fromarray(draw_photo(split, label, index)))
        for label in CLASSES
        for index in range(photos_per_class)
    ]
    return inferred(model, np.stack(photos))


@pytest.fixture(scope="module")
def model():
    import keras

    model = keras.applications.MobileNetV2(
        input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
        alpha=ALPHA,
        include_top=False,
        pooling="avg",
        weights=None,  # pyright: ignore[reportArgumentType] - the annotation forgets None
    )
    model.load_weights(WEIGHTS_FILE)
    return model


@pytest.fixture(scope="module")
def known(model) -> np.ndarray:
    """The features of eight photos of each class."""
    return features_of(model, "Training", KNOWN)


def test_the_file_is_small():
    assert WEIGHTS_FILE.stat().st_size <= 2_000_000


# Keras writes TensorFlow's variables through an older NumPy protocol than NumPy 2 asks for.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_weights_load_back_and_are_compressed(model, tmp_path):
    saved, plain = tmp_path / "packed.weights.h5", tmp_path / "plain.weights.h5"
    save(model, saved)
    model.save_weights(plain)
    assert saved.stat().st_size < 0.8 * plain.stat().st_size
    other = build()
    other.load_weights(saved)
    for found, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_features_tell_fruits_apart(model, known: np.ndarray):
    asked, labels = features_of(model, "Test", 4), np.arange(len(CLASSES))
    accuracy = nearest_neighbour_accuracy(known, labels.repeat(KNOWN), asked, labels.repeat(4))
    assert known.shape == (KNOWN * len(CLASSES), 1280)
    assert accuracy >= 0.9


def test_the_features_are_alive(known: np.ndarray):
    assert (known.std(0) > 1e-3).mean() > 0.5
    # ReLU6 saturates at 6.
    assert (known > 5.5).mean() < 0.01


def test_nearest_neighbours_are_counted():
    known, asked = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[1.0, 1.0], [9.0, 2.0]])
    accuracy = nearest_neighbour_accuracy(known, np.array([3, 4]), asked, np.array([3, 3]))
    assert accuracy == 0.5
