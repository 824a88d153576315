"""A conversion that is kept between test runs equals the one that it stands for."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import astuple, replace
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest

from fruits_assets.core.mobilenet import ModelDescription
from fruits_assets.core.weights import ConvertedModel, Weights
from fruits_assets_tests.models import Conversions

PROBE = np.zeros((2, 4, 4, 3), np.uint8)


class Counted:
    """Stands in for a conversion; no two of its results are the same."""

    times = 0

    def __call__(self, *_: object) -> ConvertedModel:
        self.times += 1
        description = ModelDescription("MobileNetV2", 0.35, 96, 1280, "here", "f", 1e-7, "2")
        return ConvertedModel(bytes([self.times]), description, np.ones((2, 3), np.float32))


@pytest.fixture
def kept(tmp_path: Path) -> Conversions:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "weights.py").write_text("the code")
    return Conversions(tmp_path / "kept", Counted(), code=tmp_path / "core")


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    (tmp_path / "a.weights.h5").write_bytes(b"weights")
    return Weights(str(tmp_path / "a.weights.h5"), 0.35, 96)


def test_a_conversion_is_kept_as_it_was(kept: Conversions, weights: Weights) -> None:
    made, again = kept(weights, PROBE), kept(weights, PROBE)
    assert again.tflite == made.tflite
    assert astuple(again.description) == astuple(made.description)
    assert np.array_equal(again.expected, made.expected)
    assert len(list(kept.folder.iterdir())) == 1


def test_another_conversion_takes_its_place(kept: Conversions, weights: Weights) -> None:
    made = {alpha: kept(replace(weights, alpha=alpha), PROBE).tflite for alpha in (0.35, 0.5)}
    assert made[0.35] != made[0.5]
    assert len(list(kept.folder.iterdir())) == 1
    assert kept(replace(weights, alpha=0.5), PROBE).tflite == made[0.5]


def _code(kept: Conversions, _: pytest.MonkeyPatch) -> None:
    (kept.code / "weights.py").write_text("other code")


def _more_code(kept: Conversions, _: pytest.MonkeyPatch) -> None:
    (kept.code / "another.py").touch()


def _the_file(kept: Conversions, _: pytest.MonkeyPatch) -> None:
    (kept.code.parent / "a.weights.h5").write_bytes(b"Weights")


def _a_package(_: Conversions, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(importlib.metadata.distributions())[1:]

    def without_the_first() -> list[Distribution]:
        return found

    monkeypatch.setattr(importlib.metadata, "distributions", without_the_first)


@pytest.mark.parametrize("change", [_code, _more_code, _the_file, _a_package])
def test_it_is_converted_again_when_what_it_depends_on_changes(
    kept: Conversions,
    weights: Weights,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Conversions, pytest.MonkeyPatch], None],
) -> None:
    before = kept(weights, PROBE)
    change(kept, monkeypatch)
    assert kept(weights, PROBE).tflite != before.tflite


def test_other_probe_photos_are_another_conversion(kept: Conversions, weights: Weights) -> None:
    assert kept(weights, PROBE).tflite != kept(weights, PROBE + np.uint8(1)).tflite
