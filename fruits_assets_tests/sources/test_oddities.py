"""What is odd about classes and folders is found, and what is not odd is not."""

import pytest

from fruits_assets.sources.oddities import Copy, copies, in_one_split, near_equal, strangers


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({"Training": {"a"}, "Test": {"b"}}, ["Test"]),
        ({"Training": {"a"}, "Test": {"a", "b"}}, []),
        ({"Training": {"a"}, "Test": {"a"}, "Validation": {"b"}}, ["Validation"]),
        ({"Test": {"b"}}, []),
        ({}, []),
    ],
)
def test_splits_without_a_class_of_training_are_found(
    classes: dict[str, set[str]], expected: list[str]
) -> None:
    assert strangers(classes) == expected


def test_classes_of_one_split_are_found() -> None:
    assert in_one_split({"Training": {"a", "b"}, "Test": {"b", "c"}}) == {
        "Training": ["a"],
        "Test": ["c"],
    }
    assert in_one_split({"Training": {"a", "b"}}) == {}


def test_names_that_differ_in_little_are_found() -> None:
    names = ["Apple Red", "apple_red", "Apple  Red", "Apple Red 1", "Pêche", "Peche", "Pecher"]
    assert near_equal(names) == [["Apple  Red", "Apple Red", "apple_red"], ["Peche", "Pêche"]]


def _photos(*folders: str) -> list[tuple[str, str]]:
    return [
        (f"{folder}Apple/{number}.jpg", str(number)) for folder in folders for number in range(20)
    ]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("", "photos/"), [Copy("", "photos", 20)]),
        (("a/photos/", "b/photos/"), [Copy("a", "b", 20)]),
        (("a/", "a/a/"), [Copy("", "a", 20)]),
        (("a/",), []),
    ],
)
def test_folders_that_are_there_twice_are_found(
    folders: tuple[str, ...], expected: list[Copy]
) -> None:
    assert copies(_photos(*folders)) == expected


def test_a_few_copies_make_no_folder_a_copy() -> None:
    photos = _photos("a/", "b/")
    some = [(path, path if int(digest) > 3 else digest) for path, digest in photos]
    beside = [("Apple/1.jpg", "x"), ("Apple/2.jpg", "x"), ("Apple/3.jpg", "y")]
    assert copies([*some, *beside]) == []
