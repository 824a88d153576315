"""A source that strangers write to neither hangs a run nor leads out of itself."""

import contextlib
import ctypes
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fruits_assets.core.errors import SourceError
from fruits_assets.sources import reading
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.sources.walk import LEADS_OUT
from fruits_assets.storage.opening import CHANGED, NOT_REGULAR, LinkError, Tree
from fruits_assets.storage.places import folder_at

CONTENT = b"photo"
LONG_AGO = 1_000_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder beside which others can lie."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def _put(folder: Path, *paths: str, content: bytes = CONTENT) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        os.utime(folder / path, (LONG_AGO, LONG_AGO))


def _photos(folder: Path, *, follow_links: bool = False) -> PhotoStore:
    return photos_at(folder_at(str(folder), follow_links=follow_links))


def _listed(folder: Path, *, recursive: bool = True, follow_links: bool = False) -> Listing:
    return _photos(folder, follow_links=follow_links).list(recursive=recursive)


def _paths(listing: Listing) -> list[str]:
    return listing.files["path"].to_pylist()


def _problems(listing: Listing) -> dict[str, str | None]:
    return {row["path"]: row["problem"] for row in listing.files.to_pylist()}


def _row(folder: Path, path: str, *, follow_links: bool = False) -> Mapping[str, Any]:
    rows = _listed(folder, follow_links=follow_links).files.to_pylist()
    return next(row for row in rows if row["path"] == path)


# What a file may turn into between its listing and its reading


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _pipe_with_a_writer(path: Path) -> None:
    """Opened for both, so that it has a writer for as long as the test runs."""
    _pipe(path)
    os.write(os.open(path, os.O_RDWR | os.O_NONBLOCK), CONTENT)


def _socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(path.parent)  # the path of a socket is short
        listening.bind(path.name)


def _device(path: Path) -> None:
    path.unlink()
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root may make a device")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path) -> None:
    path.unlink()


def _link(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def _link_out(path: Path) -> None:
    """To a file that looks as the listed one did."""
    _put(path.parent.parent.parent, "secret.jpg")
    _link(path, path.parent.parent.parent / "secret.jpg")


def _link_to_kernel_messages(path: Path) -> None:
    _link(path, "/proc/kmsg")


def _link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    _link(path, "pipe")


def _link_to_itself(path: Path) -> None:
    _link(path, path.name)


def _huge(path: Path) -> None:
    os.truncate(path, 3 * 10**9)
    os.utime(path, (LONG_AGO, LONG_AGO))


def _vast(path: Path) -> None:
    os.truncate(path, 10**12)
    os.utime(path, (LONG_AGO, LONG_AGO))


def _one_byte_more(path: Path) -> None:
    _put(path.parent, path.name, content=CONTENT + b"!")


def _cut(path: Path) -> None:
    _put(path.parent, path.name, content=CONTENT[:-1])


def _other_content(path: Path) -> None:
    path.write_bytes(CONTENT[::-1])


def _parent_is_a_link_out(path: Path) -> None:
    """To a folder that holds a file which looks as the listed one did."""
    _put(path.parent.parent.parent / "elsewhere", path.name)
    path.parent.rename(path.parent.with_name(".away"))
    path.parent.symlink_to(path.parent.parent.parent / "elsewhere")


def _parent_is_a_file(path: Path) -> None:
    path.parent.rename(path.parent.with_name(".away"))
    path.parent.write_bytes(CONTENT)


SWAPS = (
    _pipe,
    _pipe_with_a_writer,
    _socket,
    _device,
    _folder,
    _gone,
    _link_out,
    _link_to_kernel_messages,
    _link_to_a_pipe,
    _link_to_itself,
    _huge,
    _vast,
    _one_byte_more,
    _cut,
    _other_content,
    _parent_is_a_link_out,
    _parent_is_a_file,
)


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__.strip("_"))
def test_what_became_something_else_after_it_was_listed_is_not_read(
    source: Path, swap: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    _put(source, "a/1.jpg", "a/2.jpg")
    rows = _listed(source).files.to_pylist()
    read: list[int] = []
    monkeypatch.setattr(os, "read", _counted(os.read, read))
    swap(source / "a" / "1.jpg")
    first, second = _photos(source).fetch(rows)
    with pytest.raises(OSError) as told:  # noqa: PT011 - the system's own words, mostly
        first()
    assert told.value.errno != errno.ETIMEDOUT, "it was waited for"
    assert told.value.strerror
    if not swap.__name__.startswith("_parent"):
        assert second() == CONTENT, "the others are read"
    assert sum(read) <= len(CONTENT), "what had changed was read all the same"


def _counted(read: Callable[[int, int], bytes], sizes: list[int]) -> Callable[[int, int], bytes]:
    def counted(descriptor: int, size: int) -> bytes:
        content = read(descriptor, size)
        sizes.append(len(content))
        return content

    return counted


def test_a_file_that_grows_while_it_is_read_is_read_no_further_than_it_was_listed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(source, "1.jpg")
    row, sizes = _row(source, "1.jpg"), list[int]()
    counted = _counted(os.read, sizes)

    def grow_then_read(descriptor: int, size: int) -> bytes:
        os.truncate(source / "1.jpg", 10**12)
        return counted(descriptor, size)

    monkeypatch.setattr(os, "read", grow_then_read)
    with pytest.raises(OSError, match=CHANGED):
        _photos(source).read(row)
    assert sum(sizes) == len(CONTENT) + 1


def test_a_file_that_is_swapped_while_it_is_opened_is_not_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its name and its opening, a pipe takes its place."""
    _put(source, "1.jpg")
    row, open_it = _row(source, "1.jpg"), os.open

    def swap_then_open(path: str, flags: int, **given: Any) -> int:
        if path == "1.jpg":
            assert flags & os.O_NONBLOCK, "it would be waited for"
            _pipe(source / "1.jpg")
        return open_it(path, flags, **given)

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises(OSError, match=CHANGED):
        _photos(source).read(row)


@pytest.mark.parametrize("path", ["../secret.jpg", "a/../../secret.jpg", "", ".", "a//1.jpg"])
def test_a_row_that_leads_elsewhere_is_not_read(source: Path, path: str) -> None:
    _put(source, "a/1.jpg", "../secret.jpg")
    row = {**_row(source, "a/1.jpg"), "path": path}
    with pytest.raises(OSError, match=r"No such file|not a regular file"):
        _photos(source).read(row)


def test_a_file_without_a_byte_is_read(source: Path) -> None:
    _put(source, "1.jpg", content=b"")
    assert _photos(source).read(_row(source, "1.jpg")) == b""


def test_files_are_read_in_order(source: Path) -> None:
    for number in range(100):
        _put(source, f"{number:03}.jpg", content=b"%03d" % number)
    rows = _listed(source).files.to_pylist()
    (source / "099.jpg").unlink()
    *others, last = _photos(source).fetch(rows)
    assert [function() for function in others] == [b"%03d" % number for number in range(99)]
    with pytest.raises(FileNotFoundError):
        last()


@pytest.mark.parametrize(("ahead", "ahead_bytes", "most"), [(4, 100, 4), (50, 35, 3), (50, 5, 1)])
def test_few_files_are_read_ahead(ahead: int, ahead_bytes: int, most: int) -> None:
    """However many rows there are: an erasure reads all files that no run has seen."""
    taken: list[int] = []

    class Watched(dict[str, int]):
        def __getitem__(self, name: str) -> int:
            taken.append(self.get("number", 0))
            return super().__getitem__(name)

    rows = [Watched(number=number, bytes=10) for number in range(100)]
    readers = reading.Readers(1, ahead=ahead, ahead_bytes=ahead_bytes)
    reads = readers.fetch(lambda row: b"%d" % row.get("number"), rows, root="", seconds=60)
    assert next(reads)() == b"0"
    assert max(taken) <= most, "the first one that has no room is looked at, too"
    assert [read() for read in reads] == [b"%d" % number for number in range(1, 100)]
    readers.close()


# File systems that do not answer


@pytest.fixture
def hang(source: Path) -> Iterator[Callable[[str], None]]:
    """Makes a folder of the source one of a file system that never answers."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted: list[bytes] = []
    with contextlib.ExitStack() as stack:

        def mount(name: str) -> None:
            try:
                device = os.open("/dev/fuse", os.O_RDWR)
            except OSError as error:
                pytest.skip(f"there is no FUSE here: {error}")
            stack.callback(os.close, device)  # then everything that waits for it is answered
            place = os.fsencode(source / name)
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
            if libc.mount(b"hang", place, b"fuse", 0, options):
                pytest.skip(f"this user may not mount: {os.strerror(ctypes.get_errno())}")
            mounted.append(place)

        yield mount
    for place in mounted:
        assert libc.umount2(place, 2) == 0


def test_a_file_system_that_hangs_costs_a_file_its_time_limit_only(
    source: Path, hang: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(source, "a/1.jpg", "b/2.jpg")
    rows = _listed(source).files.to_pylist()
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    hang("a")
    first, second = _photos(source).fetch(rows)
    with pytest.raises(OSError, match="it was not read within 0 seconds") as told:
        first()
    assert told.value.errno == errno.ETIMEDOUT
    assert second() == CONTENT


@pytest.mark.parametrize(("size", "in_time"), [(0, False), (60 * reading.SLOWEST, True)])
def test_a_large_file_may_take_longer(*, size: int, in_time: bool) -> None:
    slow, readers = threading.Event(), reading.Readers(1, ahead=1, ahead_bytes=1)

    def read(_: Mapping[str, Any]) -> bytes:
        slow.wait(0.3)
        return CONTENT

    (found,) = readers.fetch(read, [{"bytes": size}], root="source", seconds=0.01)
    with contextlib.nullcontext() if in_time else pytest.raises(OSError, match="was not read"):
        assert found() == CONTENT
    readers.close()


def test_a_source_of_which_nothing_can_be_read_is_given_up(
    source: Path, hang: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(source, *(f"a/{number}.jpg" for number in range(reading.LOST_READS + 5)))
    rows = _listed(source).files.to_pylist()
    monkeypatch.setattr(reading, "READ_SECONDS", 0.1)
    hang("a")
    functions = _photos(source).fetch(rows)
    for _ in range(reading.LOST_READS - 1):
        with pytest.raises(OSError, match="it was not read within"):
            next(functions)()
    with pytest.raises(SourceError, match="does not answer: 3 files were not read in time"):
        next(functions)()


@pytest.mark.parametrize("recursive", [True, False])
def test_a_listing_that_hangs_is_given_up(
    source: Path,
    hang: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    recursive: bool,
) -> None:
    _put(source, "1.jpg", "a/2.jpg")
    (source / "link.jpg").symlink_to("a/2.jpg")
    monkeypatch.setattr(reading, "LISTING_SECONDS", 0.1)
    hang("a")
    with pytest.raises(SourceError, match=r"listing the source .* came to a halt"):
        _listed(source, recursive=recursive)
    with pytest.raises(SourceError, match=r"erasing from the source .* came to a halt"):
        _photos(source).erase(["1.jpg"])


def test_a_listing_that_goes_on_is_not_given_up() -> None:
    found, waited = iter(range(100)), threading.Event()

    def work() -> str:
        waited.wait(0.3)
        return "listed"

    progress = found.__next__
    assert reading.watched(work, progress=progress, seconds=0.05, doing="it") == "listed"


# Folders


@pytest.mark.parametrize(("depth", "name"), [(1500, "a"), (60, "x" * 200)])
def test_a_deep_tree_is_listed_read_and_erased(source: Path, depth: int, name: str) -> None:
    """Deeper than Python recurses, with more folders than may be open, and longer than a path."""
    _put(source, "1.jpg")
    path = "/".join([name] * depth + ["2.jpg"])
    with _nested(source, depth, name), _few_descriptors():
        listing = _listed(source)
        assert _paths(listing) == sorted(["1.jpg", path])
        photos = _photos(source)
        row = next(row for row in listing.files.to_pylist() if row["path"] == path)
        assert row["problem"] is None
        assert photos.read(row) == b""
        assert photos.erase([path]) == 1
        assert _paths(_listed(source)) == ["1.jpg"]


@contextlib.contextmanager
def _few_descriptors() -> Iterator[None]:
    """This process may open a few files more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 150, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def _nested(folder: Path, depth: int, name: str) -> Iterator[None]:
    """Folders in each other, the last of which has a file; pytest could not remove them."""
    with Tree(str(folder)) as tree:
        for above in range(depth):
            os.mkdir(name, dir_fd=tree.folder((name,) * above))
        os.close(os.open("2.jpg", os.O_CREAT, dir_fd=tree.folder((name,) * depth)))
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink("2.jpg", dir_fd=tree.folder((name,) * depth))
            for above in reversed(range(depth)):
                os.rmdir(name, dir_fd=tree.folder((name,) * above))


def test_a_tree_that_is_deep_on_the_way_and_wide_is_listed(source: Path) -> None:
    """Folders that are no longer kept open are found again."""
    with Tree(str(source)) as tree:
        names: tuple[str, ...] = ()
        for depth in range(150):
            for name in ("a", "z"):
                os.mkdir(name, dir_fd=tree.folder(names))
                status = os.open("1.jpg", os.O_CREAT, dir_fd=tree.folder((*names, name)))
                os.close(status)
            names = (*names, "a" if depth % 2 else "z")
    assert _listed(source).rows == 300


def test_a_wide_folder_is_listed(source: Path) -> None:
    with Tree(str(source)) as tree:
        for number in range(500):
            os.close(os.open(f"{number}.jpg", os.O_CREAT, dir_fd=tree.folder(())))
            os.mkdir(str(number), dir_fd=tree.folder(()))
    assert _listed(source).rows == 500


@pytest.mark.parametrize("becomes", ["nothing", "a file", "a link out", "a link to its parent"])
def test_a_folder_that_changes_while_its_source_is_listed_is_not_followed(
    source: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    _put(source, "1.jpg", "a/2.jpg", "../elsewhere/2.jpg")
    scan, scanned = Tree.scanned, []

    @contextlib.contextmanager
    def scan_then_change(self: Tree, names: tuple[str, ...]) -> Iterator[Any]:
        with scan(self, names) as found:
            yield found
        scanned.append(names)
        if names == ():
            (source / "a").rename(source.parent / "away")
            if becomes == "a file":
                _put(source, "a")
            elif becomes != "nothing":
                (source / "a").symlink_to("../elsewhere" if "out" in becomes else ".")

    monkeypatch.setattr(Tree, "scanned", scan_then_change)
    assert _paths(_listed(source)) == ["1.jpg"]
    assert scanned == [()]


def test_a_file_that_goes_away_while_its_folder_is_listed_is_not_listed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(source, "1.jpg", "2.jpg")
    scan = Tree.scanned

    @contextlib.contextmanager
    def scan_and_lose(self: Tree, names: tuple[str, ...]) -> Iterator[Any]:
        with scan(self, names) as (descriptor, entries):
            found = list(entries)
            (source / "2.jpg").unlink()
            yield descriptor, iter(found)

    monkeypatch.setattr(Tree, "scanned", scan_and_lose)
    assert _problems(_listed(source)) == {"1.jpg": None}


def test_a_folder_whose_name_is_not_utf8_is_named_in_the_error(
    open_folder: Path, unprivileged: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(open_folder) + b"/p\xe9che"))
    folder.mkdir(mode=0)
    with unprivileged(), pytest.raises(SourceError) as told:
        _listed(open_folder)
    assert "p\\udce9che cannot be read (Permission denied)" in str(told.value)
    assert str(told.value).encode()


# Links


def test_links_that_fan_out_have_one_row_for_each_file(source: Path) -> None:
    """Fourteen folders with two links each to the next one: 16,384 ways to the photo."""
    for level in range(14):
        (source / f"{level:02}").mkdir()
        for name in ("left", "right"):
            (source / f"{level:02}" / name).symlink_to(f"../{level + 1:02}")
    _put(source, "14/1.jpg")
    listing = _listed(source)
    assert _paths(listing) == ["14/1.jpg"]
    assert listing.repeated == 28


@pytest.mark.parametrize("follow_links", [True, False])
def test_links_that_fan_out_outside_have_one_row_for_each_file(
    source: Path, *, follow_links: bool
) -> None:
    for level in range(14):
        for name in ("left", "right"):
            (source.parent / f"out/{level}").mkdir(parents=True, exist_ok=True)
            (source.parent / f"out/{level}" / name).symlink_to(f"../{level + 1}")
    _put(source.parent, "out/14/1.jpg")
    (source / "link").symlink_to("../out/0")
    found = {
        row["path"]: row["problem"]
        for row in _listed(source, follow_links=follow_links).files.to_pylist()
    }
    assert found == (
        {"/".join(["link", *["left"] * 14, "1.jpg"]): None} if follow_links else {"link": LEADS_OUT}
    )


def test_links_to_what_is_listed_are_passed_over_and_counted(source: Path) -> None:
    _put(source, "a/1.jpg", "b/2.jpg")
    for link, target in {
        "a/up": source,
        "a/self": ".",
        "a/other": source / "b",
        "b/other": "../a",
        "0.jpg": "a/1.jpg",
        "b/0.jpg": "other/../a/1.jpg",
    }.items():
        (source / link).symlink_to(target)
    listing = _listed(source)
    assert _problems(listing) == {"a/1.jpg": None, "b/2.jpg": None}
    assert (listing.repeated, listing.hidden) == (6, 0)


def test_links_out_of_the_source_are_refused_one_by_one(source: Path) -> None:
    outside = {"1.jpg": "/etc/hostname", "2.jpg": "/proc/kmsg", "up": "..", "root": "/", "pipe": ""}
    _put(source, "a/1.jpg", "../secret.jpg")
    os.mkfifo(source.parent / "pipe")
    outside |= {"pipe": "../pipe", "3.jpg": "../secret.jpg", "4.jpg": "a/../../secret.jpg"}
    for name, target in outside.items():
        (source / name).symlink_to(target)
    (source / "5.jpg").symlink_to("4.jpg")
    listing = _listed(source)
    refused = dict.fromkeys([*outside, "5.jpg"], LEADS_OUT)
    assert _problems(listing) == {"a/1.jpg": None, **refused}
    assert listing.bytes == len(CONTENT), "nothing is said of what lies outside"


def test_a_folder_beside_the_source_with_the_same_beginning_is_outside(source: Path) -> None:
    _put(source, "1.jpg", "../source 2/2.jpg")
    (source / "2").symlink_to("../source 2")
    assert _problems(_listed(source)) == {"1.jpg": None, "2": LEADS_OUT}


def test_hundreds_of_links_out_of_the_source_are_refused(source: Path) -> None:
    for number in range(391):
        (source / f"{number}.jpg").symlink_to("/etc/hostname")
    assert set(_problems(_listed(source)).values()) == {LEADS_OUT}
    listing = _listed(source, follow_links=True)
    assert (_paths(listing), listing.repeated) == (["0.jpg"], 390)


def test_links_out_of_the_source_are_followed_by_the_setting(source: Path) -> None:
    _put(source, "1.jpg", "../out/a/2.jpg", "../out/3.jpg", "../out/.hidden/4.jpg")
    os.mkfifo(source.parent / "out" / "pipe")
    (source / "link").symlink_to("../out")
    (source / "2.jpg").symlink_to("../out/a/2.jpg")
    (source.parent / "out" / "back").symlink_to(source)
    (source / "b").mkdir()
    (source / "b" / "up").symlink_to("../..")
    listing = _listed(source, follow_links=True)
    expected = {"1.jpg": None, "2.jpg": None, "b/up/out/3.jpg": None, "b/up/out/pipe": NOT_REGULAR}
    assert _problems(listing) == expected
    assert listing.hidden == 1
    photos = _photos(source, follow_links=True)
    readable = [row for row in listing.files.to_pylist() if not row["problem"]]
    assert [read() for read in photos.fetch(readable)] == [CONTENT] * 3
    strict = _photos(source).fetch(readable)
    assert next(strict)() == CONTENT
    for read in strict:
        with pytest.raises(OSError, match="leads out of the source"):
            read()


def test_kernel_messages_are_never_waited_for(source: Path) -> None:
    """A regular file, by its status, that a reader would wait for."""
    (source / "1.jpg").symlink_to("/proc/kmsg")
    row = _row(source, "1.jpg", follow_links=True)
    if row["problem"]:
        pytest.skip(f"/proc/kmsg: {row['problem']}")
    with pytest.raises((OSError, SourceError)) as told:
        _photos(source, follow_links=True).read(row)
    assert getattr(told.value, "errno", None) != errno.ETIMEDOUT


def test_links_to_hidden_files_of_the_source_are_followed(source: Path) -> None:
    """Version control of large files keeps them so."""
    _put(source, ".git/annex/1", ".git/annex/2", "4.jpg")
    (source / "a").mkdir()
    (source / "a/1.jpg").symlink_to("../.git/annex/1")
    (source / "a/also 1.jpg").symlink_to("1.jpg")
    (source / "annex").symlink_to(".git/annex")
    listing = _listed(source)
    assert _problems(listing) == dict.fromkeys(["4.jpg", "a/1.jpg", "annex/2"])
    assert listing.repeated == 2
    reads = _photos(source).fetch(listing.files.to_pylist())
    assert [read() for read in reads] == [CONTENT] * 3


def test_a_link_to_a_sub_folder_is_followed_where_that_is_not_looked_into(source: Path) -> None:
    _put(source, "a/1.jpg", "2.jpg")
    (source / "1.jpg").symlink_to("a/1.jpg")
    (source / "b").symlink_to("a")
    assert _paths(_listed(source, recursive=False)) == ["1.jpg", "2.jpg"]
    assert _paths(_listed(source)) == ["2.jpg", "a/1.jpg"]


def test_a_chain_of_links_that_is_too_long_is_refused(source: Path) -> None:
    _put(source, "0.jpg")
    for number in range(1, 2000):
        (source / f"{number}.jpg").symlink_to(f"{number - 1}.jpg")
    problems = _problems(_listed(source))
    assert problems["0.jpg"] is None
    assert "30.jpg" not in problems
    assert problems["1999.jpg"] == os.strerror(errno.ELOOP)


def test_the_first_name_of_a_file_with_several_is_listed(source: Path) -> None:
    _put(source, "b/1.jpg", "z.jpg")
    for name in ("c.jpg", "b/0.jpg", "b/a/9.jpg", "b-/1.jpg"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).hardlink_to(source / "b/1.jpg")
    (source / "0.jpg").symlink_to("c.jpg")
    listing = _listed(source)
    assert _paths(listing) == ["b/0.jpg", "z.jpg"]
    assert listing.repeated == 5


def test_a_name_that_can_be_read_comes_before_one_that_cannot(source: Path) -> None:
    _put(source, "b.jpg")
    Path(os.fsdecode(os.fsencode(source) + b"/a\xe9.jpg")).hardlink_to(source / "b.jpg")
    assert _problems(_listed(source)) == {"b.jpg": None}


def test_a_folder_that_is_mounted_in_itself_is_listed_once(source: Path) -> None:
    _put(source, "a/1.jpg")
    (source / "a/b").mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    inner, bind = os.fsencode(source / "a/b"), 4096
    if libc.mount(os.fsencode(source), inner, None, bind, None):
        pytest.skip(f"this user may not mount: {os.strerror(ctypes.get_errno())}")
    try:
        listing = _listed(source)
    finally:
        libc.umount2(inner, 2)
    assert (_paths(listing), listing.repeated) == (["a/1.jpg"], 1)


def test_a_listing_with_links_is_the_same_whatever_was_made_first(tmp_path: Path) -> None:
    versions = set()
    for place, order in (("one", 1), ("two", -1)):
        source = tmp_path / place
        _put(source, *[f"{name}/{name}.jpg" for name in "abcd"][::order], ".git/1", ".git/x/2")
        for name in "abcd"[::order]:
            for link, target in (("git", "../.git"), ("1.jpg", "../.git/1"), ("x", "../.git/x")):
                (source / name / link).symlink_to(target)
            (source / name / "hard.jpg").hardlink_to(source / "a/a.jpg")
        listing = _listed(source)
        assert len(_paths(listing)) == 6
        versions.add(listing.version)
    assert len(versions) == 1


def test_what_was_passed_over_is_kept_with_a_listing(source: Path, tmp_path: Path) -> None:
    _put(source, "1.jpg")
    (source / "2.jpg").symlink_to("1.jpg")
    listing = _listed(source)
    written = listing.write(folder_at(str(tmp_path / "lake")))
    assert Listing.of(written, listing.root) == listing
    assert Listing.of(written, listing.root).repeated == 1


# Erasure


def test_every_name_of_an_erased_photo_goes(source: Path) -> None:
    _put(source, "a/1.jpg", "b/2.jpg", "../out/3.jpg")
    (source / "b/1.jpg").hardlink_to(source / "a/1.jpg")
    (source / "b/link.jpg").symlink_to("1.jpg")
    (source / "b/folder").symlink_to("../a")
    assert _photos(source).erase(["a/1.jpg"]) == 3
    assert sorted(path.name for path in (source / "b").iterdir()) == ["2.jpg", "folder"]


def test_nothing_is_erased_through_a_link_out_of_the_source(source: Path) -> None:
    _put(source, "a/1.jpg", "../elsewhere/1.jpg")
    _parent_is_a_link_out(source / "a/1.jpg")
    assert _photos(source).erase(["a/1.jpg"]) == 0
    assert (source.parent / "elsewhere/1.jpg").exists()
    assert _photos(source, follow_links=True).erase(["a/1.jpg"]) == 1
    assert not (source.parent / "elsewhere/1.jpg").exists()


def test_pipes_and_sockets_are_erased_without_being_opened(source: Path) -> None:
    os.mkfifo(source / "1.jpg")
    assert _photos(source).erase(["1.jpg"]) == 1


# Opening


def test_no_name_on_the_way_may_be_a_link(source: Path) -> None:
    _put(source, "a/1.jpg")
    (source / "link").symlink_to("a")
    (source / "a/link.jpg").symlink_to("1.jpg")
    with Tree(str(source)) as tree:
        for names in (("link", "1.jpg"), ("a", "link.jpg")):
            with pytest.raises(LinkError), tree.opened(names):
                pass
        with tree.opened(("a", "1.jpg")) as descriptor:
            assert os.read(descriptor, 10) == CONTENT
            assert not os.get_inheritable(descriptor)
