"""Splits and labels are read from folders as people lay them out."""

from collections.abc import Mapping

import pytest

from fruits_assets.sources.layout import LABELS, Labels, Place, places, split_named


def _place(path: str, labels: Labels = "parent") -> Place:
    (place,) = places([path], labels)
    return place


@pytest.mark.parametrize(
    ("path", "split", "label"),
    [
        ("a.jpg", None, None),
        ("Apple/a.jpg", None, "Apple"),
        ("Training/Apple/a.jpg", "Training", "Apple"),
        ("Test/Apple/a.jpg", "Test", "Apple"),
        ("Validation/Apple/a.jpg", "Validation", "Apple"),
        ("train/Apple/a.jpg", "Training", "Apple"),
        ("test/Apple/a.jpg", "Test", "Apple"),
        ("val/Apple/a.jpg", "Validation", "Apple"),
        ("TRAINING/Apple/a.jpg", "Training", "Apple"),
        ("fruits-360/Training/Apple/Red/a.jpg", "Training", "Red"),
        ("Training/Test/Apple/a.jpg", "Training", "Apple"),
        ("Training/a.jpg", "Training", None),
        ("val/a.jpg", "Validation", None),
        ("Trainings/a.jpg", None, "Trainings"),
        ("training.jpg", None, None),
        ("Apple/test.jpg", None, "Apple"),
        ("Apple/test", None, "Apple"),
        ("Test/Apple Red 1/a.jpg", "Test", "Apple Red 1"),
        ("Test/Pêche/a.jpg", "Test", "Pêche"),
        ("Test/Pe\u0302che/a.jpg", "Test", "P\u00eache"),
        ("Test/🍓 fraise/a.jpg", "Test", "🍓 fraise"),
        ("Test/a, b; c/a.jpg", "Test", "a, b; c"),
        ('Test/l\'"oignon"/a.jpg', "Test", 'l\'"oignon"'),
        (f"Test/{'x' * 200}/a.jpg", "Test", "x" * 200),
        ("Test/a..b/a..jpg", "Test", "a..b"),
        ("Test/..b/a.jpg", "Test", "..b"),
        ("Test/ Apple /a.jpg", "Test", "Apple"),
        (" Test /\u00a0Apple/a.jpg", "Test", "Apple"),
        ("Test/ /a.jpg", "Test", None),
        ("/a.jpg", None, None),
        ("Test//Apple//a.jpg", "Test", "Apple"),
        ("Test/Apple/a.jpg/", "Test", "Apple"),
        ("Training\\Apple\\1.jpg", "Training", "Apple"),
        ("fruits\\Test/Apple/1.jpg", "Test", "Apple"),
    ],
)
def test_split_and_label_come_from_the_folders(
    path: str, split: str | None, label: str | None
) -> None:
    assert _place(path) == (split, label)


NAMES: Mapping[str, tuple[str, ...]] = {
    "Training": (
        *("train", "Train", "TRAINING", "Training Set", "training_set", "trainset", "TrainingSet"),
        *("train_images", "train-images", "images_train", "Train Data", "seg_train", "train2017"),
        *(" train ", "train_set_1", "Training (1)"),
    ),
    "Test": (
        *("test", "Test Set", "testing", "test-set", "testset", "TestImages", "test1", "data_test"),
        *("eval", "Evaluation"),
    ),
    "Validation": (
        *("val", "valid", "Valid", "dev", "validation set", "ValidationSet", "val2017", "dev_set"),
        *("valid_images", "VAL"),
    ),
}
NO_SPLITS = (
    *("Trainings", "test-multiple_fruits", "Test Apples", "trainval", "train_test", "train & test"),
    *("Valencia", "Valid Apples", "images", "data set", "2017", "", "contest", "Devon", "pretrain"),
)


@pytest.mark.parametrize(("split", "name"), [(it, name) for it in NAMES for name in NAMES[it]])
def test_folders_are_named_like_splits_in_many_ways(split: str, name: str) -> None:
    assert split_named(name) == split
    assert _place(f"{name}/Apple/1.jpg") == (split, "Apple")


@pytest.mark.parametrize("name", NO_SPLITS)
def test_names_that_only_begin_like_a_split_are_none(name: str) -> None:
    assert split_named(name) is None


NESTED = {
    "Training/Apple Red 1/1.jpg": ("Apple Red 1", "Apple Red 1", "Apple Red 1"),
    "Training/Tomato/Tomato 3/1.jpg": ("Tomato 3", "Tomato", "Tomato/Tomato 3"),
    "data/train/Fruit/Apple/Golden/1.jpg": ("Golden", "Fruit", "Fruit/Apple/Golden"),
    "seg_train/seg_train/buildings/1.jpg": ("buildings", "buildings", "buildings"),
    "Fruit/Apple/1.jpg": ("Apple", "Fruit", "Fruit/Apple"),
    "train\\Fruit\\Apple\\1.jpg": ("Apple", "Fruit", "Fruit/Apple"),
    "train/1.jpg": (None, None, None),
}


@pytest.mark.parametrize("path", NESTED)
def test_of_nested_classes_the_label_is_the_folder_that_is_asked_for(path: str) -> None:
    assert tuple(_place(path, labels)[1] for labels in LABELS) == NESTED[path]


def test_splits_may_lie_in_the_folders_of_the_classes() -> None:
    paths = ["fruit/Apple/train/1.jpg", "fruit/Apple/valid/2.jpg", "fruit/Pear/test/3.jpg"]
    expected = [("Training", "Apple"), ("Validation", "Apple"), ("Test", "Pear")]
    assert places(paths) == places(paths, "first") == places(paths, "path") == expected


def test_classes_that_hold_splits_may_be_nested() -> None:
    paths = ["Fruit/Apple/train/1.jpg", "Fruit/Pear/train/1.jpg", "Leek/test/1.jpg"]
    labels = {it: [label for _, label in places(paths, it)] for it in LABELS}
    assert labels == {
        "parent": ["Apple", "Pear", "Leek"],
        "first": ["Fruit", "Fruit", "Leek"],
        "path": ["Fruit/Apple", "Fruit/Pear", "Leek"],
    }


def test_photos_directly_in_the_splits_of_one_folder_have_no_class() -> None:
    """The folder is that of the data set."""
    paths = ["pets/train/cat.1.jpg", "pets/train/dog.1.jpg", "pets/test/1.jpg"]
    assert [label for _, label in places(paths)] == [None] * 3
    beside = places([*paths, "pets/train/Apple/1.jpg"])
    assert [label for _, label in beside] == [None, None, None, "Apple"]
