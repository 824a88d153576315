"""What the sample promises: the same photos everywhere, whole or not at all."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fruits_assets.sample import drawing
from fruits_assets.sample.drawing import CLASSES, SPLITS, draw_fruit, draw_photo, write_sample

# Means of 4 x 4 blocks of three photos, in grey levels. They change when the drawing does: then
# the embedded weights must be trained again as well.
REFERENCES = {
    ("Training", "Apple Red", 0): [
        [235, 179, 194, 250],
        [161, 146, 107, 145],
        [177, 121, 97, 141],
        [249, 196, 168, 247],
    ],
    ("Test", "Banana", 3): [
        [255, 255, 255, 255],
        [206, 239, 238, 202],
        [222, 173, 171, 221],
        [255, 255, 255, 255],
    ],
    ("Test", "Strawberry", 9): [
        [248, 167, 167, 246],
        [200, 108, 102, 197],
        [233, 84, 82, 232],
        [255, 188, 188, 255],
    ],
}
FEW = (2, 1)


def block_means(photo: np.ndarray) -> np.ndarray:
    return photo.reshape(4, 25, 4, 25, 3).mean((1, 3, 4))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    write_sample(folder, photos_per_class=FEW)
    return folder


@pytest.mark.parametrize("label", CLASSES)
def test_every_fruit_is_a_coloured_solid_on_white(label):
    for index in range(3):
        photo = draw_photo("Training", label, index)
        assert photo.shape == (100, 100, 3)
        assert photo.dtype == np.uint8
        corners = photo[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.min() >= 250
        fruit = photo.min(2) < 200
        assert 0.05 < fruit.mean() < 0.9
        assert photo[fruit].std() > 20


@pytest.mark.parametrize("size", [96, 100, 224])
def test_a_fruit_is_drawn_at_any_size(size):
    small, large = (
        draw_fruit("Pear", np.random.default_rng(3), size=pixels) for pixels in (100, size)
    )
    assert large.shape == (size, size, 3)
    shrunk = np.asarray(Image.fromarray(large).resize((100, 100)))
    # Outlines are softer by a fixed number of pixels.
    np.testing.assert_allclose(block_means(shrunk), block_means(small), atol=8)


def test_an_unknown_label_is_refused():
    with pytest.raises(KeyError, match="Durian"):
        draw_fruit("Durian", np.random.default_rng(0))


@pytest.mark.parametrize("photo", REFERENCES)
def test_photos_are_the_same_on_every_machine(photo):
    found = block_means(draw_photo(*photo))
    np.testing.assert_allclose(found, REFERENCES[photo], atol=3)


def test_a_photo_can_be_redrawn_alone(sample):
    for split, index in (("Training", 1), ("Test", 0)):
        written = np.asarray(Image.open(sample / split / "Orange" / f"{index}.jpg"))
        redrawn = draw_photo(split, "Orange", index)
        np.testing.assert_allclose(block_means(written), block_means(redrawn), atol=2)


def test_split_label_index_and_seed_each_draw_another_photo():
    photos = [
        draw_photo("Training", "Lemon", 0),
        draw_photo("Test", "Lemon", 0),
        draw_photo("Training", "Lemon", 1),
        draw_photo("Training", "Lime", 0),
        draw_photo("Training", "Lemon", 0, seed=7),
    ]
    for first, second in pairwise(photos):
        assert np.abs(first.astype(int) - second).mean() > 5
    assert np.array_equal(photos[0], draw_photo("Training", "Lemon", 0))


def test_the_sample_has_its_layout_and_no_photo_twice(sample):
    photos = contents(sample)
    expected = {
        f"{split}/{label}/{index}.jpg"
        for split, count in zip(SPLITS, FEW, strict=True)
        for label in CLASSES
        for index in range(count)
    }
    assert set(photos) == expected
    assert len(set(photos.values())) == len(photos)
    with Image.open(sample / "Test" / CLASSES[0] / "0.jpg") as photo:
        assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (100, 100))


def test_the_same_seed_writes_the_same_files(sample, tmp_path):
    write_sample(tmp_path / "same", photos_per_class=FEW)
    write_sample(tmp_path / "other", photos_per_class=FEW, seed=1)
    assert contents(tmp_path / "same") == contents(sample)
    assert not set(contents(tmp_path / "other").values()) & set(contents(sample).values())


def test_a_written_sample_is_left_as_it_is(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "sample"
    assert write_sample(folder, photos_per_class=FEW) == 3 * len(CLASSES)
    monkeypatch.setattr(drawing, "draw_photo", lambda *_, **__: pytest.fail("drawn again"))
    assert write_sample(folder, photos_per_class=FEW) == 3 * len(CLASSES)


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    photos = iter([draw_photo("Training", "Kiwi", 0)] * 5)
    monkeypatch.setattr(drawing, "draw_photo", lambda *_, **__: next(photos))
    with pytest.raises(StopIteration):
        write_sample(tmp_path / "sample", photos_per_class=FEW)
    assert not list(tmp_path.iterdir())


def test_of_two_writers_at_once_one_wins(tmp_path, monkeypatch):
    folder, photo = tmp_path / "sample", draw_photo("Training", "Kiwi", 0)

    def meanwhile(*_, **__):
        winner = folder / "Training" / "Kiwi" / "0.jpg"
        winner.parent.mkdir(parents=True, exist_ok=True)
        winner.write_bytes(b"of the other writer")
        return photo

    monkeypatch.setattr(drawing, "draw_photo", meanwhile)
    assert write_sample(folder, photos_per_class=(1, 0)) == 1
    assert contents(folder) == {"Training/Kiwi/0.jpg": b"of the other writer"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="sample"):
        write_sample(folder, photos_per_class=(1, 0))
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    assert list(tmp_path.iterdir()) == [folder]
