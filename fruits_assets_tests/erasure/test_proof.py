"""The search finds a path, a hash or a picture wherever it stands, and nothing that is like it."""

import hashlib

import pytest

from fruits_assets.erasure.plan import Plan
from fruits_assets.erasure.proof import Search

PATHS = ("a/1.jpg", "b c/1.jpg", "c/1.jpg", "été/1.jpg")
HASH = hashlib.sha256(b"a file").hexdigest()


@pytest.fixture
def search() -> Search:
    return Search(Plan(paths=frozenset(PATHS), sha256=frozenset({HASH})))


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg",
        "a/1.jpg at the beginning, or at the end: a/1.jpg",
        '["a/1.jpg"]',
        "not xa/1.jpg, but a/1.jpg",
        "not a/1.jpg2, but\0a/1.jpg\0",
        "ab c/1.jpg",  # its end is a path of its own
        "a/1.jpga/1.jpg\n(été/1.jpg)",
        f"x{HASH}x",
    ],
)
def test_what_was_to_go_is_found(search: Search, text: str) -> None:
    assert search.is_in(text.encode())


@pytest.mark.parametrize(
    "text",
    ["", "1.jpg", "aa/1.jpg", "/a/1.jpg", "a/1.jpg2", "a/1.jpg/", "a/1_jpg", "ac/1.jpg", HASH[1:]],
)
def test_what_is_like_it_is_not(search: Search, text: str) -> None:
    assert not search.is_in(text.encode())


def test_a_file_is_found_by_its_content(search: Search) -> None:
    assert search.is_in(b"a file")
    assert not search.is_in(b"a file of another content")


def test_nothing_is_found_of_no_plan() -> None:
    assert not Search(Plan()).is_in(b"a/1.jpg")
