"""The folder of the deliverables: plain files and a list of them, whatever interrupts a run."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fruits_assets.core.errors import ConflictError, DatasetError, LakeError
from fruits_assets.deliverables.folder import CHECKSUMS, Published, index_uri
from fruits_assets.storage.base import Folder
from fruits_assets.storage.places import folder_at
from fruits_assets_tests.places import Bucket, Place

FIRST, SECOND = "1" * 16, "2" * 16
OLD = {"index.html": b"page", "A_B_3_presentation_112026.pptx": b"slides", "sheet-007.jpg": b"old"}
NEW = {"index.html": b"another page", "A_C_3_presentation_122026.pptx": b"slides"}


def writing(contents: Mapping[str, bytes]) -> Callable[[Folder], dict[str, str]]:
    def write(folder: Folder) -> dict[str, str]:
        for name, content in contents.items():
            folder.write(name, content)
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}

    return write


def hand_over(lake: Folder, recipe: str, contents: Mapping[str, bytes]) -> Published:
    return Published.read(lake).replace(recipe, contents, writing(contents))


def names(place: Place) -> set[str]:
    return {name.removeprefix("deliverables/") for name in place.names("deliverables")}


def test_a_list_names_all_files_and_their_recipe(place: Place):
    published = hand_over(place.opened, FIRST, OLD)
    assert published == Published.read(place.opened)
    assert names(place) == {*OLD, CHECKSUMS}
    assert published.answers(FIRST)
    assert not published.answers(SECOND)
    lines = place.get(f"deliverables/{CHECKSUMS}").decode().splitlines()
    assert lines[0] == f"# recipe {FIRST}"
    assert sorted(lines[1:]) == sorted(
        f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in OLD.items()
    )


def test_what_only_the_old_list_names_is_removed_for_good(place: Place):
    hand_over(place.opened, FIRST, OLD)
    place.put("deliverables/note.txt", b"somebody else's")
    place.put("deliverables/a/sheet-007.jpg", b"somebody else's")
    assert hand_over(place.opened, SECOND, NEW).answers(SECOND)
    assert names(place) == {*NEW, CHECKSUMS, "note.txt", "a/sheet-007.jpg"}
    assert place.get("deliverables/index.html") == NEW["index.html"]
    if isinstance(place, Bucket):
        gone = set(OLD) - set(NEW)
        assert not {f"deliverables/{name}" for name in gone} & set(place.versions("deliverables"))


@pytest.mark.parametrize("change", ["gone", "shorter", "damaged"])
def test_a_file_that_is_not_what_was_written_is_noticed(place: Place, change: str):
    published = hand_over(place.opened, FIRST, OLD)
    name = "deliverables/sheet-007.jpg"
    place.remove(name) if change == "gone" else place.put(
        name, {"shorter": b"ol", "damaged": b"odl"}[change]
    )
    assert not published.is_whole()
    assert not Published.read(place.opened).answers(FIRST)


@pytest.mark.parametrize("then", ["another run", "removal"])
def test_files_of_a_run_that_was_interrupted_are_not_forgotten(place: Place, then: str):
    hand_over(place.opened, FIRST, OLD)

    def interrupted(folder: Folder) -> dict[str, str]:
        folder.write("sheet-008.jpg", b"begun")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Published.read(place.opened).replace(SECOND, ["sheet-008.jpg"], interrupted)
    left = Published.read(place.opened)
    assert left.names == {*OLD, "sheet-008.jpg"}
    assert not left.answers(FIRST)
    assert not left.answers(SECOND)
    assert "has not ended" in left.headline
    if then == "removal":
        left.remove()
        assert names(place) == set()
    else:
        assert hand_over(place.opened, SECOND, NEW).answers(SECOND)
        assert names(place) == {*NEW, CHECKSUMS}


def test_all_that_is_listed_can_be_removed(place: Place):
    hand_over(place.opened, FIRST, OLD)
    place.put("deliverables/note.txt", b"somebody else's")
    assert Published.read(place.opened).remove() >= len(OLD) + 1
    assert names(place) == {"note.txt"}
    if isinstance(place, Bucket):
        assert set(place.versions("deliverables")) == {"deliverables/note.txt"}
    assert Published.read(place.opened).remove() == 0


def test_two_runs_at_a_time_leave_the_files_of_one(place: Place):
    hand_over(place.opened, FIRST, OLD)

    def overtaken(folder: Folder) -> dict[str, str]:
        sums = writing({"sheet-009.jpg": b"the slower one's"})(folder)
        hand_over(place.opened, SECOND, NEW)
        return sums | writing({"sheet-010.jpg": b"the slower one's"})(folder)

    slower = Published.read(place.opened)
    with pytest.raises(ConflictError, match="Wait for its end, then materialise deliverables"):
        slower.replace("3" * 16, ["sheet-009.jpg", "sheet-010.jpg"], overtaken)
    assert Published.read(place.opened).answers(SECOND)
    assert names(place) == {*NEW, CHECKSUMS}
    with pytest.raises(ConflictError):
        slower.replace("3" * 16, [], lambda _: pytest.fail("it writes before it has the list"))


@pytest.mark.parametrize(
    "name", ["../fruits-lake.json", "..", ".", "a/b.jpg", "/etc/passwd", CHECKSUMS, "a\\b"]
)
def test_a_list_cannot_name_what_lies_elsewhere(place: Place, name: str):
    place.put("fruits-lake.json", b"{}")
    place.put("deliverables/a/b.jpg", b"somebody else's")
    hand_over(place.opened, FIRST, OLD)
    text = place.get(f"deliverables/{CHECKSUMS}").decode()
    place.put(f"deliverables/{CHECKSUMS}", f"{text}{'0' * 64}  {name}\n# writing {name}\n".encode())
    published = Published.read(place.opened)
    assert published.names == set(OLD)
    published.replace(SECOND, NEW, writing(NEW))
    assert names(place) == {*NEW, CHECKSUMS, "a/b.jpg"}
    Published.read(place.opened).remove()
    assert place.names() == {"fruits-lake.json", "deliverables/a/b.jpg"}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"# recipe x\n", b"{}", b"0" * 100])
def test_a_list_that_is_none_lists_nothing(place: Place, content: bytes):
    place.put(f"deliverables/{CHECKSUMS}", content)
    published = Published.read(place.opened)
    assert (published.names, published.recipe, published.is_whole()) == (set(), "", False)
    assert published.replace(FIRST, OLD, writing(OLD)).answers(FIRST)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "deliverables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="is a symbolic link"):
        Published.read(folder_at(str(tmp_path / "lake")))


def test_commands_say_where_the_page_is(place: Place):
    lake = place.opened
    with pytest.raises(DatasetError, match=rf"{re.escape(lake.uri)} has no deliverables yet"):
        index_uri(lake)
    published = hand_over(lake, FIRST, OLD)
    assert index_uri(lake) == place.uri("deliverables/index.html")
    assert published.headline == "1 file under its name, and a page"
    assert published.bytes == sum(map(len, OLD.values()))
