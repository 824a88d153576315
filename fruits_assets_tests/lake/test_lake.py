"""Readers of the lake see the version before or the one after, whole, whatever happens."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from fruits_assets.core.dataset import MANIFEST, Dataset, Output, write_file
from fruits_assets.core.errors import DatasetError, LakeError
from fruits_assets.core.storage import LocalStorage
from fruits_assets.lake import lake as lake_module
from fruits_assets.lake.__main__ import main
from fruits_assets.lake.lake import ABANDONED_SECONDS, CURRENT, Lake, Recipe


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


def _recipe(asset: str, number: int, *inputs: Dataset) -> Recipe:
    return Recipe.of(f"make_{asset}", "1", inputs, params={"number": number})


def _draft(lake: Lake, asset: str, number: int, *inputs: Dataset) -> Dataset:
    """A version whose two files are written, as a run leaves it before it is published."""
    recipe = _recipe(asset, number, *inputs)
    folder = lake.folder(asset, recipe.version)
    files = tuple(write_file(folder, name, f"{asset} {number}".encode()) for name in ("a", "b"))
    return lake.draft(asset, recipe, Output(files), run="run", seconds=1.0)


def _publish(lake: Lake, asset: str, number: int, *inputs: Dataset) -> Dataset:
    dataset = _draft(lake, asset, number, *inputs)
    lake.publish(dataset)
    return dataset


def _versions(lake: Lake, asset: str) -> set[str]:
    return {path.name for path in Path(lake.base, asset).iterdir()} - {CURRENT}


def _content(lake: Lake, asset: str) -> set[bytes]:
    """What a reader sees, all files of the version."""
    dataset = lake.current(asset)
    return {dataset.read(file.name) for file in dataset.manifest.files}


class _Crash(BaseException):
    """The process dies: nothing may catch this and go on."""


class _FailingStorage(LocalStorage):
    """Raises an error at the nth file that it is to create, before or after it appears."""

    def __init__(self, nth: int, error: BaseException, *, after: bool = False) -> None:
        self.left = nth
        self.error = error
        self.after = after

    @contextlib.contextmanager
    def create(self, uri: str) -> Iterator[BinaryIO]:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise self.error
        with super().create(uri) as file:
            yield file
        if self.left == 0:
            raise self.error

    def delete(self, folder: str) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise self.error
        super().delete(folder)
        if self.left == 0:
            raise self.error


def _use(monkeypatch: pytest.MonkeyPatch, storage: LocalStorage) -> None:
    monkeypatch.setattr(lake_module, "storage_of", lambda _: storage)


RECIPE = Recipe("featurize", "1", {"size": 96, "alpha": 0.35}, {"raw_images": "a", "weights": "b"})


def test_the_same_recipe_has_the_same_address_everywhere() -> None:
    assert RECIPE.version == "76d83ecb1f346b9c"


@pytest.mark.parametrize(
    "other",
    [
        {"transform": "ingest"},
        {"code_version": "2"},
        {"params": {"size": 96, "alpha": 0.5}},
        {"params": {"size": 96}},
        {"params": {}},
        {"inputs": {"raw_images": "a", "weights": "c"}},
        {"inputs": {"raw_images": "b", "weights": "a"}},
        {"inputs": {"raw_images": "a"}},
        {"salt": "run"},
        {"params": RECIPE.inputs, "inputs": RECIPE.params},
    ],
)
def test_another_recipe_has_another_address(other: dict[str, Any]) -> None:
    assert replace(RECIPE, **other).version != RECIPE.version


def test_the_order_of_params_and_inputs_does_not_matter() -> None:
    params = {"nested": {"a": 1, "b": 2}, "size": 96}
    inputs = {"raw_images": "a", "weights": "b"}
    turned = {"size": 96, "nested": {"b": 2, "a": 1}}
    assert (
        Recipe("t", "1", params, inputs).version
        == Recipe("t", "1", turned, dict(reversed(inputs.items()))).version
    )


def test_a_recipe_holds_the_versions_of_its_inputs(lake: Lake) -> None:
    first, second = _draft(lake, "raw", 1), _draft(lake, "weights", 1)
    recipe = Recipe.of("featurize", "1", [first, second], params={"size": 96})
    assert recipe.inputs == {"raw": first.version, "weights": second.version}
    assert (
        recipe.version == Recipe.of("featurize", "1", [second, first], params=recipe.params).version
    )


def test_what_is_published_is_current(lake: Lake) -> None:
    published = _publish(lake, "raw", 1)
    assert lake.current("raw") == published
    assert _content(lake, "raw") == {b"raw 1"}
    assert lake.assets() == ["raw"]
    assert lake.finished("raw", published.version) == published
    newer = _publish(lake, "raw", 2)
    assert lake.current("raw") == newer
    lake.publish(published)
    assert lake.current("raw") == published


def test_the_manifest_says_how_the_version_came_to_be(lake: Lake) -> None:
    source = _publish(lake, "raw", 1)
    manifest = _publish(lake, "features", 7, source).manifest
    assert manifest.inputs == {"raw": source.version}
    assert (manifest.transform, manifest.code_version) == ("make_features", "1")
    assert manifest.params == {"number": 7}
    assert (manifest.run_id, manifest.seconds) == ("run", 1.0)
    assert manifest.created_at.endswith("+00:00")


def test_before_anything_is_published_there_is_no_current_version(lake: Lake) -> None:
    assert lake.assets() == []
    with pytest.raises(DatasetError) as told:
        lake.current("features")
    assert f"{lake.base} has no features yet. Materialise features first." in str(told.value)


def test_an_unfinished_version_is_never_current(lake: Lake) -> None:
    draft = _draft(lake, "raw", 1)
    assert lake.finished("raw", draft.version) is None
    with pytest.raises(DatasetError, match="no raw yet"):
        lake.current("raw")
    published = _publish(lake, "raw", 2)
    _draft(lake, "raw", 3)
    assert lake.current("raw") == published
    assert draft.version in _versions(lake, "raw")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / "a").write_bytes(b"x"),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_bytes(b"{"),
    ],
    ids=["a file is missing", "a file is short", "no manifest", "half a manifest"],
)
def test_a_damaged_version_is_not_finished_and_can_be_made_again(
    lake: Lake, damage: Callable[[Path], None]
) -> None:
    published = _publish(lake, "raw", 1)
    damage(Path(published.uri))
    assert lake.finished("raw", published.version) is None
    with pytest.raises(DatasetError, match=r"Materialise .* again"):
        lake.current("raw")
    assert _publish(lake, "raw", 1).version == published.version
    assert _content(lake, "raw") == {b"raw 1"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_a_damaged_pointer_is_told(lake: Lake, content: bytes) -> None:
    published = _publish(lake, "raw", 1)
    pointer = Path(lake.base, "raw", CURRENT)
    pointer.write_bytes(content)
    with pytest.raises(LakeError) as told:
        lake.current("raw")
    text = str(told.value)
    assert f"{pointer} cannot be read" in text
    assert "Delete that one file and materialise raw again" in text
    pointer.unlink()  # the advice helps
    assert lake.finished("raw", published.version) == published
    lake.publish(published)
    assert lake.current("raw") == published


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("keep_versions", [1, 3])
def test_after_a_crash_the_lake_reads_whole(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, nth: int, keep_versions: int, *, after: bool
) -> None:
    """Publishing creates the manifest, then the pointer; then it may delete an old version."""
    lake = replace(lake, keep_versions=keep_versions)
    old, new = _publish(lake, "raw", 1), _draft(lake, "raw", 2)
    crashes = nth < 3 or keep_versions == 1
    with monkeypatch.context() as patch:
        _use(patch, _FailingStorage(nth, _Crash(), after=after))
        with pytest.raises(_Crash) if crashes else contextlib.nullcontext():
            lake.publish(new)
    replaced = nth == 3 or (nth == 2 and after)
    assert lake.current("raw").version == (new if replaced else old).version
    assert _content(lake, "raw") == {b"raw 2" if replaced else b"raw 1"}
    lake.publish(_draft(lake, "raw", 2))
    assert _content(lake, "raw") == {b"raw 2"}


def test_a_publish_that_fails_keeps_the_version_before(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = _publish(lake, "raw", 1), _draft(lake, "raw", 2)
    with monkeypatch.context() as patch:
        _use(patch, _FailingStorage(2, LakeError("current.json cannot be written")))
        with pytest.raises(LakeError, match=r"current\.json cannot be written"):
            lake.publish(new)
    assert lake.current("raw") == old
    assert lake.finished("raw", new.version) == new


def test_a_pointer_that_is_no_file_is_told(lake: Lake) -> None:
    draft = _draft(lake, "raw", 1)
    Path(lake.base, "raw", CURRENT, "in the way").mkdir(parents=True)
    with pytest.raises(LakeError, match=r"raw/current\.json cannot be read"):
        lake.publish(draft)
    assert [path.name for path in Path(lake.base, "raw").glob(".*")] == []


def test_the_newest_versions_are_kept(lake: Lake) -> None:
    published = [_publish(lake, "raw", number) for number in range(5)]
    assert _versions(lake, "raw") == {dataset.version for dataset in published[-3:]}
    assert _content(lake, "raw") == {b"raw 4"}


def test_one_version_can_be_kept(lake: Lake) -> None:
    lake = replace(lake, keep_versions=1)
    published = [_publish(lake, "raw", number) for number in range(3)]
    assert _versions(lake, "raw") == {published[-1].version}
    lake.publish(published[-1])
    assert _content(lake, "raw") == {b"raw 2"}


def test_an_older_version_that_becomes_current_again_is_kept(lake: Lake) -> None:
    lake = replace(lake, keep_versions=2)
    oldest, _, _ = (_publish(replace(lake, keep_versions=9), "raw", number) for number in range(3))
    lake.publish(oldest)
    assert lake.current("raw") == oldest
    assert len(_versions(lake, "raw")) == 3
    newest = _publish(lake, "raw", 3)
    assert oldest.version not in _versions(lake, "raw")
    assert lake.current("raw") == newest


def test_what_a_current_version_was_made_from_is_kept(lake: Lake) -> None:
    lake = replace(lake, keep_versions=1)
    weights = _publish(lake, "weights", 0)
    raw = _publish(lake, "raw", 0)
    features = _publish(lake, "features", 0, raw, weights)
    pca = _publish(lake, "pca", 0, features)
    for number in (1, 2):
        newest_raw = _publish(lake, "raw", number)
        newest_features = _publish(lake, "features", number, newest_raw, weights)
        _publish(lake, "weights", number)
    lake.publish(newest_raw)
    assert _versions(lake, "raw") == {raw.version, newest_raw.version}
    assert _versions(lake, "features") == {features.version, newest_features.version}
    assert weights.version in _versions(lake, "weights")
    assert lake.current("pca") == pca
    _publish(lake, "pca", 1, newest_features)
    newest_raw = _publish(lake, "raw", 3)
    assert raw.version not in _versions(lake, "raw")


@pytest.mark.parametrize(("age", "kept"), [(0, True), (-60, True), (60, False)])
def test_only_unfinished_versions_that_are_abandoned_are_removed(
    lake: Lake, age: int, *, kept: bool
) -> None:
    unfinished = _draft(lake, "raw", 1)
    last_touched = time.time() - (ABANDONED_SECONDS + age if age else 0)
    os.utime(unfinished.uri, (last_touched, last_touched))
    _publish(lake, "raw", 2)
    assert (unfinished.version in _versions(lake, "raw")) == kept


def test_unfinished_versions_do_not_take_the_place_of_finished_ones(lake: Lake) -> None:
    published = [_publish(lake, "raw", number) for number in range(3)]
    for number in range(10, 20):
        _draft(lake, "raw", number)
    lake.publish(published[-1])
    assert {dataset.version for dataset in published} <= _versions(lake, "raw")


def test_files_of_others_in_the_lake_do_no_harm(lake: Lake) -> None:
    Path(lake.base, "raw", "notes").mkdir(parents=True)
    for name in (".DS_Store", "README.txt", "raw/.DS_Store", "raw/notes.txt", "raw/notes/a.txt"):
        Path(lake.base, name).write_bytes(b"mine")
    os.utime(Path(lake.base, "raw", "notes"), (0, 0))
    published = _publish(lake, "raw", 1)
    assert lake.current("raw") == published
    assert lake.assets() == ["raw"]
    assert Path(lake.base, "raw", "notes.txt").read_bytes() == b"mine"
    assert Path(lake.base, "raw", "notes", "a.txt").read_bytes() == b"mine"


def test_two_lakes_do_not_see_each_other(tmp_path: Path) -> None:
    first, second = (Lake.at(str(tmp_path / name)) for name in ("first", "second"))
    _publish(first, "raw", 1)
    assert second.assets() == []


def test_a_lake_lies_at_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Lake.at("lake").base == str(tmp_path / "lake")
    assert Lake.at("~/lake").base == str(tmp_path / "home" / "lake")
    assert not Path("lake").exists()


def test_a_lake_in_a_place_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(LakeError, match="ftp://host/lake"):
        Lake.at("ftp://host/lake")


def test_the_command_prints_what_the_lake_holds(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(lake.base).parent)
    monkeypatch.setenv("FRUITS_LAKE", lake.base)
    raw, features = _publish(lake, "raw", 1), _publish(lake, "features", 1)
    Path(features.uri, "a").unlink()
    broken = _publish(lake, "weights", 1)
    Path(lake.base, "weights", CURRENT).write_bytes(b"{")
    main()
    printed = capsys.readouterr().out.splitlines()
    assert f"The lake {lake.base} holds:" in printed
    (line,) = [line for line in printed if line.startswith("raw ")]
    assert line.split() == ["raw", raw.version, "0.0", "1.0", "s"]
    (line,) = [line for line in printed if line.startswith("features ")]
    assert "a is missing. Materialise features again" in line
    (line,) = [line for line in printed if line.startswith("weights ")]
    assert "Delete that one file" in line
    assert broken.version not in line
