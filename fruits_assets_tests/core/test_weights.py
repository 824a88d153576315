"""Keras weights become a model that workers run without TensorFlow, and the features stay."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fruits_assets.core.errors import WeightsError
from fruits_assets.core.mobilenet import FeatureExtractor, ModelDescription, relative_error
from fruits_assets.core.weights import (
    ALPHAS,
    IMAGE_SIZES,
    MAX_RELATIVE_ERROR,
    ConvertedModel,
    Weights,
    _fingerprint,
    _load,
    convert,
)
from fruits_assets.storage.places import folder_at
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.s3 import REGION

# Keras reads TensorFlow's variables through an older NumPy protocol than NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 96


def _keras_model(alpha: float) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3),
        alpha=alpha,
        include_top=False,
        pooling="avg",
        weights=None,  # pyright: ignore[reportArgumentType] - the annotation forgets None
    )


def _photos(count: int) -> np.ndarray:
    """(n, SIZE, SIZE, 3) uint8: coarse patches of colour, for noise looks all alike."""
    patches = np.random.default_rng(1).integers(0, 256, (count, 6, 6, 3), np.uint8)
    return patches.repeat(SIZE // 6, axis=1).repeat(SIZE // 6, axis=2)


def _scaled(photos: np.ndarray) -> Any:
    import keras

    return keras.applications.mobilenet_v2.preprocess_input(photos.astype(np.float32))


@pytest.fixture(scope="module")
def model() -> Any:
    """MobileNetV2 at alpha 0.35, seeded, with the batch statistics of some photos.

    Without them the signal of a random network dies out, and all photos have the same features;
    without the shift most of its activations are near zero, where rounding grows from block to
    block as it does in no trained network.
    """
    model = _keras_model(0.35)
    for layer in model.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = 0.0
            layer.beta.assign(layer.beta + 2.0)
    model(_scaled(_photos(16)), training=True)
    return model


@pytest.fixture(scope="module")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights. Do not change it."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet, été.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def converted(file: Path) -> ConvertedModel:
    return convert(Weights.of(str(file), alpha=0.35, image_size=SIZE), _photos(3))


def _copy(file: Path, folder: Path) -> Path:
    copy = folder / "copy.weights.h5"
    copy.write_bytes(file.read_bytes())
    return copy


def test_the_converted_model_has_the_features_of_keras(
    converted: ConvertedModel, model: Any
) -> None:
    photos = _photos(5)
    expected = np.asarray(model(_scaled(photos), training=False))
    extract = FeatureExtractor(converted.tflite)
    found = np.stack([extract(photo) for photo in photos])
    assert found.dtype == np.float32
    assert found.shape == (5, 1280)
    assert relative_error(found, expected) <= MAX_RELATIVE_ERROR
    assert relative_error(expected[1], expected[0]) > 0.03  # the photos differ
    np.testing.assert_allclose(converted.expected, expected[:3], rtol=1e-5, atol=1e-6)


def test_the_description_says_what_was_converted(converted: ConvertedModel, file: Path) -> None:
    description = converted.description
    assert description.architecture == "MobileNetV2"
    assert (description.alpha, description.image_size, description.features) == (0.35, SIZE, 1280)
    assert description.origin == str(file)
    assert len(description.fingerprint) == 64
    assert 0 <= description.relative_error <= MAX_RELATIVE_ERROR
    assert ModelDescription.from_json(description.to_json()) == description


def test_the_fingerprint_is_that_of_the_weights(
    converted: ConvertedModel, model: Any, file: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.weights.h5"
    model.save_weights(again)
    weights = model.get_weights()
    try:
        model.set_weights([weights[0] * 1.5, *weights[1:]])
        model.save_weights(tmp_path / "other.weights.h5")
    finally:
        model.set_weights(weights)
    same, other = (
        _fingerprint(_load(Weights.of(str(path), alpha=0.35, image_size=SIZE)))
        for path in (again, tmp_path / "other.weights.h5")
    )
    assert same == converted.description.fingerprint
    assert other != same


@pytest.mark.slow
def test_wider_models_have_more_features(tmp_path: Path) -> None:
    path = tmp_path / "wide.weights.h5"
    _keras_model(1.4).save_weights(path)
    wide = convert(Weights.of(str(path), alpha=1.4, image_size=SIZE), _photos(1))
    assert wide.description.features == 1792
    assert FeatureExtractor(wide.tflite)(_photos(1)[0]).shape == (1792,)


@pytest.mark.parametrize("alpha", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_weights_of_another_alpha_are_told(file: Path, alpha: float) -> None:
    with pytest.raises(WeightsError) as told:
        convert(Weights.of(str(file), alpha=alpha, image_size=SIZE), _photos(1))
    text = str(told.value)
    assert f"{file.name} does not hold the weights of MobileNetV2" in text
    assert f"at alpha {alpha:g} (" in text
    assert "`alpha` in the config of model_weights must be the one it was trained with" in text


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], marks=pytest.mark.slow),
        lambda content: content[:-1000],
        pytest.param(lambda content: content[:100], marks=pytest.mark.slow),
        lambda content: content[:0],
        lambda content: b"<html>404 Not Found</html>" + content,
    ],
    ids=["half", "without its end", "the beginning", "empty", "not HDF5"],
)
def test_a_damaged_file_is_told(
    file: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    copy = _copy(file, tmp_path)
    copy.write_bytes(damage(copy.read_bytes()))
    with pytest.raises(WeightsError, match=r"copy.weights.h5 does not hold the wei.*whole"):
        convert(Weights.of(str(copy), alpha=0.35, image_size=SIZE), _photos(1))


def test_a_file_of_another_kind_is_told(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(file.read_bytes())
    with pytest.raises(WeightsError, match=r"weights\.bin does not hold the weights"):
        convert(Weights.of(str(path), alpha=0.35, image_size=SIZE), _photos(1))


@pytest.mark.parametrize("origin", ["missing.weights.h5", "ImageNet", "Sample", "."])
def test_what_is_not_a_file_is_told(origin: str) -> None:
    weights = Weights.of(origin)
    for use in (lambda: weights.version, lambda: convert(weights, _photos(1))):
        with pytest.raises(WeightsError) as told:
            use()
        assert f"{origin!r} are not a file. Expected `imagenet`, `sample`, or" in str(told.value)
        assert ".weights.h5" in str(told.value)


@pytest.mark.parametrize(
    ("layer", "value"),
    [
        ("Conv1", np.nan),
        pytest.param("block_6_depthwise", np.inf, marks=pytest.mark.slow),
        pytest.param("block_9_expand_BN", np.nan, marks=pytest.mark.slow),
        ("Conv_1_bn", np.inf),
    ],
)
def test_weights_that_are_not_finite_are_told(
    model: Any, tmp_path: Path, layer: str, value: float
) -> None:
    path = tmp_path / "nan.weights.h5"
    weights = model.get_weights()
    arrays = [array.copy() for array in model.get_layer(layer).get_weights()]
    arrays[0].flat[0] = value
    try:
        model.get_layer(layer).set_weights(arrays)
        model.save_weights(path)
    finally:
        model.set_weights(weights)
    with pytest.raises(WeightsError, match=f"nan.weights.h5 holds NaN.*{layer}.*another file"):
        convert(Weights.of(str(path), alpha=0.35, image_size=SIZE), _photos(1))


@pytest.mark.parametrize("alpha", [0.0, 0.36, -1.0, 2.0, float("nan")])
def test_an_unknown_alpha_is_told(alpha: float) -> None:
    with pytest.raises(WeightsError) as told:
        Weights.of("imagenet", alpha=alpha)
    assert f"alpha is {alpha:g}" in str(told.value)
    assert "0.35, 0.5, 0.75, 1, 1.3, 1.4" in str(told.value)


@pytest.mark.parametrize("image_size", [0, 95, 225, -224])
def test_an_unknown_image_size_is_told(image_size: int) -> None:
    with pytest.raises(WeightsError) as told:
        Weights.of("imagenet", image_size=image_size)
    assert f"image_size {image_size}" in str(told.value)
    assert "96, 128, 160, 192, 224" in str(told.value)


def test_each_origin_has_the_shape_that_it_was_trained_with() -> None:
    assert Weights.of("imagenet") == Weights("imagenet", 1.0, 224)
    assert Weights.of("a.weights.h5") == Weights("a.weights.h5", 1.0, 224)
    assert Weights.of("sample") == Weights("sample", 0.35, 96)
    for alpha in ALPHAS:
        for image_size in IMAGE_SIZES:
            weights = Weights.of("imagenet", alpha=alpha, image_size=image_size)
            assert (weights.alpha, weights.image_size) == (alpha, image_size)


def test_imagenet_without_a_network_names_the_two_other_choices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable")

    import keras  # noqa: F401 - reads where its cache lies when it is imported

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    before = socket.getdefaulttimeout()
    with pytest.raises(WeightsError) as told:
        convert(Weights.of("imagenet", alpha=0.35, image_size=SIZE), _photos(1))
    text = str(told.value)
    assert "the ImageNet weights cannot be downloaded" in text
    assert "FRUITS_WEIGHTS the path of a Keras weights file" in text
    assert "`sample`" in text
    assert socket.getdefaulttimeout() == before


def test_the_version_changes_when_the_file_does(file: Path, tmp_path: Path) -> None:
    copy = _copy(file, tmp_path)
    original = Weights.of(str(file)).version
    assert Weights.of(str(copy)).version == original
    assert len(original) == 16
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    assert Weights.of(str(copy)).version != original
    assert Weights.of("imagenet").version not in (original, Weights.of(str(copy)).version)


def test_a_file_in_the_home_folder_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.weights.h5").write_bytes(b"weights")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Weights.of("~/mine.weights.h5").file() as path:
        assert path == tmp_path / "mine.weights.h5"


def test_weights_in_a_bucket_are_fetched_for_as_long_as_they_are_used(
    bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "mine.weights.h5").write_bytes(b"weights")
    bucket.put("mine.weights.h5", b"weights")
    uri = bucket.uri("mine.weights.h5")
    weights = Weights.of(uri, bucket=folder_at(uri, region=REGION))
    with weights.file() as path:
        assert (path.name, path.read_bytes()) == ("mine.weights.h5", b"weights")
    assert not path.exists()
    assert weights.version == Weights.of(str(tmp_path / "mine.weights.h5")).version
    bucket.remove("mine.weights.h5")
    with pytest.raises(WeightsError, match=r"are not a file\. Expected `imagenet`, `sample`, or"):
        assert weights.version
