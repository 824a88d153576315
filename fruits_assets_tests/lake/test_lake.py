"""Readers of the lake see the version before or the one after, whole, whatever happens."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import dagster as dg
import pytest

from fruits_assets.core.dataset import MANIFEST, Dataset, Output, write_file
from fruits_assets.core.errors import ConflictError, DatasetError, LakeError, S3Error
from fruits_assets.core.s3 import S3Storage, client_of
from fruits_assets.core.storage import LocalStorage, storage_of
from fruits_assets.lake import lake as lake_module
from fruits_assets.lake.__main__ import main
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.lake import ABANDONED_SECONDS, CURRENT, Lake, Recipe
from fruits_assets.lake.resource import LakeResource
from fruits_assets_tests.conftest import failure
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import REGION, Answer, Gate, Request, refusal


@pytest.fixture
def lake(place: Place) -> Lake:
    return Lake.at(place.base, region=REGION)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
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


def _versions(place: Place, asset: str) -> set[str]:
    return {name.split("/")[1] for name in place.names(asset)} - {CURRENT}


def _content(lake: Lake, asset: str) -> set[bytes]:
    """What a reader sees, all files of the version."""
    dataset = lake.current(asset)
    return {dataset.read(file.name) for file in dataset.manifest.files}


def _version(lake: Lake) -> str:
    return lake.current("raw").version


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

    def delete(self, folder: str, *, keep: Collection[str] = ()) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise self.error
        super().delete(folder, keep=keep)
        if self.left == 0:
            raise self.error


def _use(monkeypatch: pytest.MonkeyPatch, storage: LocalStorage) -> None:
    monkeypatch.setattr(lake_module, "storage_of", lambda _: storage)


RECIPE = Recipe("featurize", "1", {"size": 96, "alpha": 0.35}, {"raw_images": "a", "weights": "b"})


def test_a_version_that_is_forced_takes_nothing_over(folder_lake: Lake) -> None:
    dataset = _publish(folder_lake, "raw", 1)
    recipe = _recipe("raw", 1)
    assert folder_lake.earlier(recipe, ["raw"], grown="source") == {"raw": dataset.uri}
    assert folder_lake.earlier(replace(recipe, salt="run"), ["raw"], grown="source") is None


@pytest.mark.parametrize("field", ["name", "version"])
def test_repair_deletes_nothing_outside_the_lake(
    folder_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Whoever can write a manifest can name any file in it."""
    victim = tmp_path / "victim"
    victim.write_text("not of the lake")
    dataset = _publish(folder_lake, "raw", 1)
    outside = {"name": "../../../victim", "version": "../.."}[field]
    (first, *others) = dataset.manifest.files
    file = replace(first, **{"name": "victim", field: outside, "bytes": 15, "sha256": "0" * 64})
    forged = replace(dataset.manifest, files=(file, *others))
    Path(dataset.uri, MANIFEST).write_bytes(forged.to_json())
    monkeypatch.setenv("FRUITS_LAKE", folder_lake.base)
    assert main(["repair"]) == 1
    assert victim.read_text() == "not of the lake"


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"cut")])
def test_a_version_with_a_missing_or_shorter_file_is_not_published(
    folder_lake: Lake, harm: Callable[[Path], Any]
) -> None:
    before = _publish(folder_lake, "raw", 1)
    dataset = _draft(folder_lake, "raw", 2)
    harm(Path(dataset.uri, "b"))
    with pytest.raises(DatasetError, match=r"b is missing|b has 3 bytes"):
        folder_lake.publish(dataset)
    assert folder_lake.current("raw") == before


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


def test_an_unfinished_version_is_never_current(place: Place, lake: Lake) -> None:
    draft = _draft(lake, "raw", 1)
    assert lake.finished("raw", draft.version) is None
    with pytest.raises(DatasetError, match="no raw yet"):
        lake.current("raw")
    published = _publish(lake, "raw", 2)
    _draft(lake, "raw", 3)
    assert lake.current("raw") == published
    assert draft.version in _versions(place, "raw")


@pytest.mark.parametrize(
    "damage",
    [
        lambda place, folder: place.remove(f"{folder}/a"),
        lambda place, folder: place.put(f"{folder}/a", b"x"),
        lambda place, folder: place.remove(f"{folder}/{MANIFEST}"),
        lambda place, folder: place.put(f"{folder}/{MANIFEST}", b"{"),
    ],
    ids=["a file is missing", "a file is short", "no manifest", "half a manifest"],
)
def test_a_damaged_version_is_not_finished_and_can_be_made_again(
    place: Place, lake: Lake, damage: Callable[[Place, str], None]
) -> None:
    published = _publish(lake, "raw", 1)
    damage(place, f"raw/{published.version}")
    assert lake.finished("raw", published.version) is None
    with pytest.raises(DatasetError, match=r"make repair|Materialise the asset again"):
        lake.current("raw")
    assert _publish(lake, "raw", 1).version == published.version
    assert _content(lake, "raw") == {b"raw 1"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_a_damaged_pointer_is_told(place: Place, lake: Lake, content: bytes) -> None:
    published = _publish(lake, "raw", 1)
    place.put(f"raw/{CURRENT}", content)
    with pytest.raises(LakeError) as told:
        lake.current("raw")
    text = str(told.value)
    assert f"{place.uri('raw')}/{CURRENT} cannot be read" in text
    assert "Delete that one file and materialise raw again" in text
    place.remove(f"raw/{CURRENT}")  # the advice helps
    assert lake.finished("raw", published.version) == published
    lake.publish(published)
    assert lake.current("raw") == published


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("keep_versions", [1, 3])
def test_after_a_crash_the_lake_reads_whole(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch, nth: int, keep_versions: int, *, after: bool
) -> None:
    """Publishing creates the manifest, then the pointer; then it may delete an old version."""
    lake = replace(folder_lake, keep_versions=keep_versions)
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


@contextlib.contextmanager
def _killed_at(lake: Lake, nth: int, *, after: bool) -> Iterator[list[str]]:
    """Kills the process at its nth request to change or look at the bucket.

    Yields the requests that reached the server. Those of obstore do not count: they change nothing.
    """
    storage = storage_of(lake.base)
    assert isinstance(storage, S3Storage)
    events = client_of(storage.bucket).meta.events
    left, reached = itertools.count(1 - nth), []

    def before_send(request: Any, **_: object) -> None:
        if next(left) == 0 and not after:
            raise _Crash
        reached.append(f"{request.method} {urlsplit(request.url).path}")

    def received(**_: object) -> None:
        if after and len(reached) == nth:
            raise _Crash

    handlers = {"before-send.s3": before_send, "response-received.s3": received}
    for name, handler in handlers.items():
        events.register_first(name, handler)
    try:
        yield reached
    finally:
        for name, handler in handlers.items():
            events.unregister(name, handler)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("keep_versions", [1, 3])
def test_after_a_crash_at_any_request_the_lake_reads_whole(
    bucket: Bucket, keep_versions: int, *, after: bool
) -> None:
    replaced_at = []
    for nth in itertools.count(1):
        base = bucket.uri(f"lake {nth}")
        lake = Lake.at(base, region=REGION, keep_versions=keep_versions)
        old, new = _publish(lake, "raw", 1), _draft(lake, "raw", 2)
        crashed = False
        with _killed_at(lake, nth, after=after) as reached:
            try:
                lake.publish(new)
            except _Crash:
                crashed = True
        replaced = any(it.startswith("PUT") and it.endswith(CURRENT) for it in reached)
        replaced_at += [nth] if replaced else []
        assert lake.assets() == ["raw"]
        assert lake.current("raw") == (new if replaced else old)
        assert _content(lake, "raw") == {b"raw 2" if replaced else b"raw 1"}
        if keep_versions == 3 or not replaced:
            assert lake.finished("raw", old.version) == old
        lake.publish(_draft(lake, "raw", 2))
        assert _content(lake, "raw") == {b"raw 2"}
        if not crashed:
            break
    assert 1 < replaced_at[0] < replaced_at[-1], "it was not killed on both sides of the pointer"


def test_a_publish_that_fails_keeps_the_version_before(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = _publish(folder_lake, "raw", 1), _draft(folder_lake, "raw", 2)
    with monkeypatch.context() as patch:
        _use(patch, _FailingStorage(2, LakeError("current.json cannot be written")))
        with pytest.raises(LakeError, match=r"current\.json cannot be written"):
            folder_lake.publish(new)
    assert folder_lake.current("raw") == old
    assert folder_lake.finished("raw", new.version) == new


def test_a_pointer_that_is_no_file_is_told(folder_lake: Lake) -> None:
    draft = _draft(folder_lake, "raw", 1)
    Path(folder_lake.base, "raw", CURRENT, "in the way").mkdir(parents=True)
    with pytest.raises(LakeError, match=r"raw/current\.json cannot be read"):
        folder_lake.publish(draft)
    assert [path.name for path in Path(folder_lake.base, "raw").glob(".*")] == []


def test_the_newest_versions_are_kept(place: Place, lake: Lake) -> None:
    published = [_publish(lake, "raw", number) for number in range(5)]
    assert _versions(place, "raw") == {dataset.version for dataset in published[-3:]}
    assert _content(lake, "raw") == {b"raw 4"}


def test_one_version_can_be_kept(place: Place, lake: Lake) -> None:
    lake = replace(lake, keep_versions=1)
    published = [_publish(lake, "raw", number) for number in range(3)]
    assert _versions(place, "raw") == {published[-1].version}
    lake.publish(published[-1])
    assert _content(lake, "raw") == {b"raw 2"}


def test_an_older_version_that_becomes_current_again_is_kept(place: Place, lake: Lake) -> None:
    lake = replace(lake, keep_versions=2)
    oldest, _, _ = (_publish(replace(lake, keep_versions=9), "raw", number) for number in range(3))
    lake.publish(oldest)
    assert lake.current("raw") == oldest
    assert len(_versions(place, "raw")) == 3
    newest = _publish(lake, "raw", 3)
    assert oldest.version not in _versions(place, "raw")
    assert lake.current("raw") == newest


def test_what_a_current_version_was_made_from_is_kept(place: Place, lake: Lake) -> None:
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
    assert _versions(place, "raw") == {raw.version, newest_raw.version}
    assert _versions(place, "features") == {features.version, newest_features.version}
    assert weights.version in _versions(place, "weights")
    assert lake.current("pca") == pca
    _publish(lake, "pca", 1, newest_features)
    newest_raw = _publish(lake, "raw", 3)
    assert raw.version not in _versions(place, "raw")


@pytest.mark.parametrize(("age", "kept"), [(0, True), (-60, True), (60, False)])
def test_only_unfinished_versions_that_are_abandoned_are_removed(
    folder_lake: Lake, age: int, *, kept: bool
) -> None:
    unfinished = _draft(folder_lake, "raw", 1)
    last_touched = time.time() - (ABANDONED_SECONDS + age if age else 0)
    os.utime(unfinished.uri, (last_touched, last_touched))
    _publish(folder_lake, "raw", 2)
    assert Path(unfinished.uri).exists() == kept


@pytest.mark.parametrize(("seconds", "kept"), [(3600, True), (-3600, False)])
def test_when_a_version_is_abandoned_is_known_in_every_place(
    place: Place, lake: Lake, monkeypatch: pytest.MonkeyPatch, seconds: int, *, kept: bool
) -> None:
    unfinished, neighbour = _draft(lake, "raw", 1), _draft(lake, "raw_images", 1)
    monkeypatch.setattr(lake_module, "ABANDONED_SECONDS", seconds)
    published = _publish(lake, "raw", 2)
    assert (unfinished.version in _versions(place, "raw")) == kept
    assert published.version in _versions(place, "raw")
    assert neighbour.version in _versions(place, "raw_images")


def test_unfinished_versions_do_not_take_the_place_of_finished_ones(
    place: Place, lake: Lake
) -> None:
    published = [_publish(lake, "raw", number) for number in range(3)]
    for number in range(10, 20):
        _draft(lake, "raw", number)
    lake.publish(published[-1])
    assert {dataset.version for dataset in published} <= _versions(place, "raw")


def test_files_of_others_in_the_lake_do_no_harm(place: Place, lake: Lake) -> None:
    names = {".DS_Store", "README.txt", "raw/.DS_Store", "raw/notes.txt", "raw/notes/a.txt"}
    for name in names:
        place.put(name, b"mine")
    published = _publish(lake, "raw", 1)
    _publish(replace(lake, keep_versions=1), "raw", 2)
    assert lake.assets() == ["raw"]
    assert {name for name in names if place.get(name) == b"mine"} == names
    assert _versions(place, "raw") == {".DS_Store", "notes.txt", "notes", _version(lake)}
    assert published.version != _version(lake)


def test_old_files_of_others_in_the_lake_do_no_harm(folder_lake: Lake) -> None:
    notes = Path(folder_lake.base, "raw", "notes", "a.txt")
    notes.parent.mkdir(parents=True)
    notes.write_bytes(b"mine")
    os.utime(notes.parent, (0, 0))
    _publish(folder_lake, "raw", 1)
    assert notes.read_bytes() == b"mine"


def test_two_lakes_do_not_see_each_other(place: Place) -> None:
    """Though the name of one begins with that of the other."""
    lakes = [Lake.at(place.uri(name), region=REGION) for name in ("lake", "lake_too", "la")]
    for number, lake in enumerate(lakes):
        assert lake.assets() == []
        _publish(lake, "raw", number)
    for number, lake in enumerate(lakes):
        assert _content(lake, "raw") == {f"raw {number}".encode()}
        _publish(replace(lake, keep_versions=1), "raw", 10 + number)
    assert [_content(lake, "raw") for lake in lakes] == [{b"raw 10"}, {b"raw 11"}, {b"raw 12"}]


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
    place: Place,
    lake: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITS_LAKE", lake.base)
    monkeypatch.setenv("FRUITS_REGION", REGION)
    raw, features = _publish(lake, "raw", 1), _publish(lake, "features", 1)
    place.remove(f"features/{features.version}/a")
    broken = _publish(lake, "weights", 1)
    place.put(f"weights/{CURRENT}", b"{")
    main()
    printed = capsys.readouterr().out.splitlines()
    assert f"The lake {lake.base} holds:" in printed
    (line,) = [line for line in printed if line.startswith("raw ")]
    assert line.split() == ["raw", raw.version, "0.0", "1.0", "s"]
    (line,) = [line for line in printed if line.startswith("features ")]
    assert "a is missing. Run `make repair`" in line
    (line,) = [line for line in printed if line.startswith("weights ")]
    assert "Delete that one file" in line
    assert broken.version not in line


def test_of_two_who_publish_at_once_one_wins(lake: Lake) -> None:
    def publish(rival: Dataset) -> ConflictError | None:
        start.wait()
        try:
            lake.publish(rival)
        except ConflictError as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        for number in range(8):
            start, follows = threading.Barrier(2), lake.pointer("raw")
            rivals = [
                replace(_draft(lake, "raw", 10 * number + one), follows=follows) for one in (1, 2)
            ]
            errors = dict(
                zip((it.version for it in rivals), pool.map(publish, rivals), strict=True)
            )
            ((lost, error),) = [(version, error) for version, error in errors.items() if error]
            assert f"this run's version {lost} is whole and stays in the lake" in str(error)
            assert "another run published raw" in str(error)
            assert "Materialise raw again to make it current" in str(error)
            assert lake.current("raw").version in errors.keys() - {lost}
            for rival in rivals:
                assert lake.finished("raw", rival.version) == rival
                content = f"raw {rival.manifest.params['number']}".encode()
                assert {rival.read(name) for name in ("a", "b")} == {content}


def test_who_publishes_the_same_at_once_both_win(lake: Lake) -> None:
    follows = lake.pointer("raw")
    rivals = [replace(_draft(lake, "raw", 1), follows=follows) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lake.publish, rivals))
    assert _content(lake, "raw") == {b"raw 1"}


@pytest.mark.parametrize("published_before", [False, True])
def test_who_was_overtaken_does_not_publish(lake: Lake, *, published_before: bool) -> None:
    if published_before:
        _publish(lake, "raw", 1)
    late = replace(_draft(lake, "raw", 2), follows=lake.pointer("raw"))
    overtaker = _publish(lake, "raw", 3)
    with pytest.raises(ConflictError, match="another run published raw while this one"):
        lake.publish(late)
    assert lake.current("raw") == overtaker
    assert lake.finished("raw", late.version) == late
    lake.publish(replace(late, follows=lake.pointer("raw")))  # the advice helps
    assert lake.current("raw") == late


def test_a_run_that_was_overtaken_fails_and_its_work_is_kept(place: Place) -> None:
    """Through Dagster: the run looks at what is current before it sets to work."""
    resource = LakeResource(base=place.base, region=REGION)
    recipe = Recipe("make_raw", "1", {}, {})
    made = []

    def make(folders: Mapping[str, str]) -> dict[str, Output]:
        made.append(folders["raw"])
        _publish(resource.open(), "raw", 3)  # another run is faster
        return {"raw": Output((write_file(folders["raw"], "a", b"mine"),))}

    @dg.asset
    def raw(context: dg.AssetExecutionContext, lake: LakeResource) -> Dataset:
        (dataset,) = lake.produce(context, recipe, ["raw"], make)
        return dataset

    def run() -> dg.ExecuteInProcessResult:
        resources = {"lake": resource, "io_manager": LakeIOManager(lake=resource)}
        return dg.materialize([raw], resources=resources, raise_on_error=False)

    lake = Lake.at(place.base, region=REGION)
    _publish(lake, "raw", 1)
    first = run()
    assert not first.success
    assert "another run published raw while this one was at work" in failure(first)
    assert _content(lake, "raw") == {b"raw 3"}
    assert run().success
    assert _content(lake, "raw") == {b"mine"}
    assert len(made) == 1, "what was whole was made again"


@pytest.mark.parametrize("published_before", [False, True])
@pytest.mark.parametrize("overtaken", [False, True])
def test_a_publish_whose_answer_is_lost_is_known_by_what_it_wrote(
    gated: Bucket, gate: Gate, quick_retries: None, *, published_before: bool, overtaken: bool
) -> None:
    puts = []

    def lose_the_first(request: Request, forward: Callable[[], Answer]) -> Answer | None:
        if request.method != "PUT" or not request.key.endswith(CURRENT):
            return forward()
        puts.append(request)
        answer = forward()
        if len(puts) > 1:
            return answer
        assert answer.status == 200
        if overtaken:
            gated.put(f"raw/{CURRENT}", b'{"version": "another\'s"}')
        return None

    lake = Lake.at(gated.base, region=REGION)
    if published_before:
        _publish(lake, "raw", 1)
    new = _draft(lake, "raw", 2)
    gate.rule = lose_the_first
    if overtaken:
        with pytest.raises(ConflictError, match="another run published raw"):
            lake.publish(new)
    else:
        lake.publish(new)
        assert lake.current("raw") == new
        assert _content(lake, "raw") == {b"raw 2"}
    assert len(puts) == 2, "nothing was repeated: nothing was proved"
    condition = "if-match" if published_before else "if-none-match"
    assert all(condition in put.headers for put in puts)


@pytest.mark.parametrize("allowed", [("GET", "HEAD"), ("GET", "HEAD", "POST", "DELETE")])
def test_who_may_only_read_publishes_nothing(
    gated: Bucket, gate: Gate, allowed: tuple[str, ...]
) -> None:
    def read_only(request: Request, forward: Callable[[], Answer]) -> Answer:
        return forward() if request.method in allowed else refusal(403, "AccessDenied", "No.")

    lake = Lake.at(gated.base, region=REGION)
    published, new = _publish(lake, "raw", 1), _draft(lake, "raw", 2)
    gate.rule = read_only
    with pytest.raises(S3Error, match=r"access to the bucket .* is denied"):
        lake.publish(new)
    assert lake.current("raw") == published
    assert lake.finished("raw", new.version) is None
