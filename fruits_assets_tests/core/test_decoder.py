"""Decoding in a child process: what it returns, what may happen to it, and what is left of it."""

import io
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.fuzz import FORMATS, samples
from fruits_assets.core import decoder as module
from fruits_assets.core.decoder import SECONDS, Decoder, shared
from fruits_assets.core.images import Photo, RejectedImage, examine, pixels

_ROOT = Path(module.__file__).parents[2]
_MAX_PIXELS = 100_000_000
_MEGABYTE = 2**20

# Every new Python process runs this where it is on the path. The words come as a table of an image
# that it has no use for: it may be any bytes, and the examination leaves it there.
_SABOTAGE = """
import ctypes, itertools, os, pathlib, signal, struct, sys, threading
import PIL.Image

# Opened before the first image: afterwards, a child can open nothing.
diary = open(pathlib.Path(__file__).with_name("diary"), "ab+", buffering=0)
leaked = []
pillow_open = PIL.Image.open

def sabotaged(file, *args, **kwargs):
    for word, act in ACTS.items():
        if word in file.getvalue():
            diary.write(word + b"\\n")
            act()
    return pillow_open(file, *args, **kwargs)

def wait():
    os.write(2, b"waits\\n")
    threading.Event().wait()

def hang():
    sum(itertools.repeat(0))  # in C, and no other thread of Python can run meanwhile

def lie(*answer):
    os.write(int(sys.argv[2]), struct.pack("<cQIIB4s", *answer))
    signal.pause()

def take_all():
    taken = []
    while True:
        taken.append(bytearray(2**24))

def die_once():
    diary.seek(0)
    if diary.read().count(b"DIES ONCE") == 1:
        os.kill(os.getpid(), signal.SIGKILL)

ACTS = {
    b"CRASHES": lambda: ctypes.string_at(0),
    b"HANGS": hang,
    b"WAITS": wait,
    b"TAKES ALL": take_all,
    b"LEAKS": lambda: leaked.append(bytearray(200 * 2**20)),
    b"NEEDS MUCH": lambda: bytearray(200 * 2**20),
    b"DIES ONCE": die_once,
    b"IS KILLED": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"EXITS": lambda: os._exit(3),
    b"TALKS": lambda: os.write(1, b"x" * 100_000),
    b"RAISES": lambda: 1 / 0,
    b"LIES OF LENGTH": lambda: lie(b"d", 2**40, 16, 16, 1, b"JPEG"),
    b"LIES OF FORMAT": lambda: lie(b"d", 100, 16, 16, 1, b"EXE"),
    b"LIES OF SIZE": lambda: lie(b"d", 100, 0, 16, 1, b"JPEG"),
    b"LIES OF A TURN": lambda: lie(b"d", 100, 16, 16, 9, b"JPEG"),
    b"LIES OF THE OUTCOME": lambda: lie(b"?", 100, 16, 16, 1, b"JPEG"),
    b"LIES AT LENGTH": lambda: lie(b"r", 2**30, 0, 0, 0, b""),
    b"LIES WITHOUT A REASON": lambda: lie(b"r", 20, 0, 0, 0, b""),
}
PIL.Image.open = sabotaged
"""


def _image(word: str = "", *, size: int = 16) -> bytes:
    shades = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(shades).save(stream, "JPEG")
    data = stream.getvalue()
    table = b"\xff\xdb" + struct.pack(">HB", 67, 3) + word.encode().ljust(64, b"~")
    return data[:2] + table + data[2:]


_GOOD = _image()


def _examined(decoder: Decoder, data: bytes = _GOOD) -> Photo:
    return decoder.examine(data, max_pixels=_MAX_PIXELS)


def _rejected(decoder: Decoder, data: bytes) -> RejectedImage:
    with pytest.raises(RejectedImage) as caught:
        _examined(decoder, data)
    assert caught.value.detail.endswith(".")
    return caught.value


def _pid(decoder: Decoder) -> int:
    """Of its child, which there must be."""
    assert decoder.pid is not None
    return decoder.pid


def _ends(pid: int) -> bool:
    """Whether a process ends, within half a minute."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    end = select.poll()
    end.register(descriptor)
    ended = bool(end.poll(30_000))
    os.close(descriptor)
    return ended


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def unharmed() -> Iterator[Decoder]:
    """For images that do no harm."""
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Lets children be sabotaged; what was done to them."""
    (tmp_path / "sitecustomize.py").write_text(_SABOTAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda: (tmp_path / "diary").read_text().splitlines()


# The same as without a child


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_photo_is_what_it_is_without_a_child(image_format: str, unharmed: Decoder) -> None:
    for data in samples(image_format).values():
        expected = examine(data, max_pixels=_MAX_PIXELS)
        assert _examined(unharmed, data) == expected
        seen = unharmed.pixels(expected.content, orientation=expected.orientation, size=9)
        assert (seen.shape, seen.dtype) == ((9, 9, 3), np.uint8)
        same = pixels(expected.content, orientation=expected.orientation, size=9)
        assert np.array_equal(seen, same)


def test_how_it_is_seen_is_passed_on(unharmed: Decoder) -> None:
    data = _image(size=200)
    ways = [
        {"orientation": orientation, "size": size, "reduced": reduced}
        for orientation in (1, 6)
        for size in (10, 11)
        for reduced in (False, True)
    ]
    seen = [unharmed.pixels(data, **way) for way in ways]
    assert all(
        np.array_equal(one, pixels(data, **way)) for one, way in zip(seen, ways, strict=True)
    )
    assert len({one.tobytes() for one in seen}) == len(ways)


@pytest.mark.parametrize(
    "data", [b"", b"no photo", _GOOD[:-1], _GOOD[:3], _GOOD[:120] + _GOOD[130:], b"GIF89a" + _GOOD]
)
def test_a_rejection_is_what_it_is_without_a_child(data: bytes, unharmed: Decoder) -> None:
    with pytest.raises(RejectedImage) as expected:
        examine(data, max_pixels=_MAX_PIXELS)
    assert _rejected(unharmed, data).args == expected.value.args


def test_the_pixel_limit_is_passed_on(unharmed: Decoder) -> None:
    assert unharmed.examine(_GOOD, max_pixels=16 * 16).width == 16
    with pytest.raises(RejectedImage, match="at most 255 are accepted"):
        unharmed.examine(_GOOD, max_pixels=16 * 16 - 1)


def test_whatever_seeing_raises_is_a_rejection(
    decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    for data, reason in ((_GOOD[:200], "truncated"), (_image("RAISES"), "corrupt")):
        with pytest.raises(RejectedImage) as caught:
            decoder.pixels(data, orientation=1, size=8)
        assert caught.value.reason == reason
        assert "(JPEG: " in caught.value.detail
    assert diary() == ["RAISES"]


def test_large_files_pass_whole_and_do_not_stay(unharmed: Decoder) -> None:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((5000, 5000)).save(stream, "BMP")
    data = stream.getvalue()
    photo = _examined(unharmed, data)
    assert len(data) > 25_000_000
    assert photo.content == examine(data, max_pixels=_MAX_PIXELS).content
    assert unharmed._child is not None
    assert os.fstat(unharmed._child._memory.fileno()).st_size == 0


def test_threads_take_turns(unharmed: Decoder) -> None:
    data = [_image(size=size) for size in range(16, 56)]
    with ThreadPoolExecutor(8) as pool:
        photos = list(pool.map(lambda one: _examined(unharmed, one), data))
    assert [photo.width for photo in photos] == list(range(16, 56))


# What images may do to the child


@pytest.mark.parametrize(
    ("word", "told"),
    [("CRASHES", "SIGSEGV"), ("IS KILLED", "memory"), ("EXITS", "exit status 3")],
)
def test_an_image_that_ends_two_children_is_rejected(
    word: str, told: str, decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    first = (_examined(decoder), _pid(decoder))[1]
    error = _rejected(decoder, _image(word))
    assert (error.reason, told in error.detail) == ("unreadable", True)
    assert diary() == [word, word]
    assert not psutil.pid_exists(first)
    assert _examined(decoder).width == 16


def test_a_death_that_does_not_happen_again_goes_unnoticed(
    decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    assert _examined(decoder, _image("DIES ONCE")).width == 16
    assert diary() == ["DIES ONCE"] * 2


def test_a_child_killed_between_two_images_goes_unnoticed(decoder: Decoder) -> None:
    for _ in range(2):
        first = (_examined(decoder), _pid(decoder))[1]
        os.kill(first, signal.SIGKILL)
        assert _examined(decoder).width == 16
        assert _pid(decoder) != first
        assert not psutil.pid_exists(first)


def test_a_death_between_two_images_does_not_count(
    decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    first = (_examined(decoder), _pid(decoder))[1]
    os.kill(first, signal.SIGKILL)
    assert _ends(first)
    assert _examined(decoder, _image("DIES ONCE")).width == 16
    assert diary() == ["DIES ONCE"] * 2


def test_an_image_that_never_ends_is_given_up_at_once(diary: Callable[[], list[str]]) -> None:
    """Its decoder waits: of processor time, it takes none."""
    with Decoder(seconds=2) as decoder:
        first = (_examined(decoder), _pid(decoder))[1]
        error = _rejected(decoder, _image("WAITS"))
        assert (error.reason, "within 2 seconds" in error.detail) == ("unreadable", True)
        assert diary() == ["WAITS"]
        assert not psutil.pid_exists(first)
        assert _examined(decoder).width == 16


def test_an_image_that_is_slow_for_its_size_is_given_up_early(
    decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    """It may take a second or so, of the half minute that the largest images have."""
    data = _image("HANGS")
    first = (_examined(decoder), _pid(decoder))[1]
    error = _rejected(decoder, data)
    assert error.reason == "unreadable"
    assert "not decoded within 1 seconds of processor time" in error.detail
    assert f"a photo of {len(data)} bytes" in error.detail
    assert diary() == ["HANGS"]
    assert not psutil.pid_exists(first)
    assert _examined(decoder).width == 16


@pytest.mark.parametrize(
    "lie",
    [
        *("OF LENGTH", "OF FORMAT", "OF SIZE", "OF A TURN", "OF THE OUTCOME"),
        *("AT LENGTH", "WITHOUT A REASON"),
    ],
)
def test_a_child_is_not_believed_whatever_it_answers(
    lie: str, decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    word = f"LIES {lie}"
    error = _rejected(decoder, _image(word))
    assert (error.reason, "answer nonsense" in error.detail) == ("unreadable", True)
    assert diary() == [word]
    assert _examined(decoder).width == 16


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\xff", b"1", b"[" * 100_000, b'["corrupt"]', b'["corrupt", "a", "b"]'),
        *(b'["corrupt", 1]', b'["harmless", "It is."]', b'[["corrupt"], "It is."]'),
    ],
)
def test_a_rejection_that_is_none_is_not_believed(payload: bytes) -> None:
    with pytest.raises(module._NonsenseError):
        module._refusal(payload)


def test_the_processor_time_of_an_image_grows_with_its_bytes_and_its_pixels() -> None:
    def granted() -> tuple[float, tuple[float, int, int]]:
        left, _ = signal.setitimer(signal.ITIMER_PROF, 0)  # before it ends this process
        return left, struct.unpack("<dII", os.pread(file.fileno(), 16, 0))

    with tempfile.TemporaryFile(buffering=0) as file:
        meter = module._Meter(file, 2_000_000, 30)
        left, noted = granted()
        assert left == pytest.approx(2, abs=0.2)
        assert noted == (2, 0, 0)
        signal.setitimer(signal.ITIMER_PROF, 1.5)
        meter(4000, 3000)  # when half a second is spent
        left, noted = granted()
        assert left == pytest.approx(2 + 2.4 - 0.5, abs=0.2)
        assert noted == (pytest.approx(4.4), 4000, 3000)
        meter = module._Meter(file, 100, 30)
        meter(100_000, 100_000)
        assert granted()[1] == (30, 100_000, 100_000)


def test_an_image_that_takes_all_memory_is_rejected(diary: Callable[[], list[str]]) -> None:
    with Decoder(memory_bytes=256 * _MEGABYTE) as decoder:
        assert _rejected(decoder, _image("TAKES ALL")).reason == "too_large"
        assert diary() == ["TAKES ALL"]
        assert _examined(decoder).width == 16


def test_memory_that_earlier_images_took_is_not_held_against_an_image(
    diary: Callable[[], list[str]],
) -> None:
    with Decoder(memory_bytes=300 * _MEGABYTE) as decoder:
        _examined(decoder, _image("LEAKS"))
        assert _examined(decoder, _image("NEEDS MUCH")).width == 16
    assert diary() == ["LEAKS", "NEEDS MUCH", "NEEDS MUCH"]


def test_what_c_libraries_print_is_no_answer(
    decoder: Decoder, diary: Callable[[], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert _examined(decoder, _image("TALKS")).width == 16
    assert diary() == ["TALKS"]
    assert capfd.readouterr() == ("", "x" * 100_000)


def test_an_interrupted_question_is_not_answered_later(
    decoder: Decoder, diary: Callable[[], list[str]]
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            _examined(decoder, _image("HANGS"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert _examined(decoder).width == 16
    assert diary() == ["HANGS"]


# The child itself


def test_ctrl_c_is_for_the_parent(unharmed: Decoder) -> None:
    first = (_examined(unharmed), _pid(unharmed))[1]
    os.kill(first, signal.SIGINT)
    assert _examined(unharmed).width == 16
    assert unharmed.pid == first


def test_the_kernel_takes_the_child_first_and_writes_no_core(unharmed: Decoder) -> None:
    _examined(unharmed)
    child = psutil.Process(_pid(unharmed))
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "1000\n"
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_a_child_that_does_not_start_is_no_fault_of_the_image(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"did not start \(exit status 1\)"):
        _examined(decoder)
    monkeypatch.undo()
    assert _examined(decoder).width == 16


def test_a_child_imports_nothing_from_the_working_folder(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert _examined(decoder).width == 16


def test_a_child_ends_when_it_is_closed_or_forgotten() -> None:
    decoder = Decoder()
    decoder.close()
    first = (_examined(decoder), _pid(decoder))[1]
    decoder.close()
    assert decoder.pid is None
    assert not psutil.pid_exists(first)
    second = (_examined(decoder), _pid(decoder))[1]
    del decoder
    assert not psutil.pid_exists(second)


def test_a_child_ends_when_it_has_nothing_to_do() -> None:
    with Decoder(seconds=1) as decoder:
        first = (_examined(decoder), _pid(decoder))[1]
        assert _ends(first)
        assert _examined(decoder).width == 16
        assert not psutil.pid_exists(first)


def test_a_process_shares_one_decoder_with_the_settings_asked_for_last() -> None:
    try:
        assert shared() is shared(seconds=SECONDS)
        first = (_examined(shared()), _pid(shared()))[1]
        assert shared(seconds=5) is not shared(seconds=6)
        assert not psutil.pid_exists(first)
    finally:
        module._shared.cache_clear()


# Other processes

_PROGRAM = """
import os, pathlib, sys
from fruits_assets.core.decoder import Decoder, shared

def examine(decoder, name="good"):
    data = pathlib.Path(sys.argv[1], name).read_bytes()
    return decoder.examine(data, max_pixels=1000)

"""


def _program(text: str, folder: Path) -> list[str]:
    """A command; its program can examine images of the folder by name."""
    (folder / "good").write_bytes(_GOOD)
    return [sys.executable, "-W", "error", "-c", _PROGRAM + text, str(folder)]


def _printed(text: str, folder: Path) -> str:
    """What a program prints, which must not complain of anything."""
    done = subprocess.run(
        _program(text, folder), cwd=_ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    return done.stdout


def test_a_child_ends_with_a_parent_that_exits(tmp_path: Path) -> None:
    program = """
decoder = Decoder()
examine(decoder)
print(decoder.pid)
"""
    assert _ends(int(_printed(program, tmp_path)))


@pytest.mark.parametrize("then", ["", "examine(decoder, 'bad')"])
def test_a_child_ends_with_a_parent_that_is_killed(
    then: str, diary: Callable[[], list[str]], tmp_path: Path
) -> None:
    """Also one that waits, and so takes none of its processor time, which is limited."""
    (tmp_path / "bad").write_bytes(_image("WAITS"))
    program = f"""
sys.path.insert(0, sys.argv[1])
decoder = Decoder(seconds=3600)
examine(decoder)
print(decoder.pid, flush=True)
{then}
sys.stdin.read()
"""
    with subprocess.Popen(
        _program(program, tmp_path),
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        pid = int(parent.stdout.readline())
        if then:
            assert parent.stderr.readline() == b"waits\n"
        parent.kill()
    assert _ends(pid)


def test_a_child_that_starts_when_its_parent_has_gone_ends(tmp_path: Path) -> None:
    program = f"""
import subprocess
from fruits_assets.core import lockdown
stale = "from fruits_assets.core.lockdown import end_with_parent; end_with_parent({os.getpid()})"
print(subprocess.run([sys.executable, "-c", stale]).returncode)
"""
    assert int(_printed(program, tmp_path)) == -signal.SIGKILL


def test_a_child_outlives_the_thread_that_started_it(unharmed: Decoder) -> None:
    with Decoder() as decoder, ThreadPoolExecutor(1) as thread:
        first = thread.submit(lambda: (_examined(decoder), _pid(decoder))[1]).result()
        thread.shutdown()
        assert _examined(decoder).width == 16
        assert decoder.pid == first


def test_a_forked_process_has_a_child_of_its_own(tmp_path: Path) -> None:
    program = """
examine(shared())
first = shared().pid
if os.fork() == 0:
    examine(shared())
    print("another child:", shared().pid != first, flush=True)
    sys.exit()
os.wait()
examine(shared())
print("still the first:", shared().pid == first)
"""
    assert _printed(program, tmp_path) == "another child: True\nstill the first: True\n"


def test_code_that_only_the_path_of_this_process_knows_of_is_found(tmp_path: Path) -> None:
    """As on a cluster, where it is in a zip file."""
    mark = "\nimport sys\nprint(__file__, flush=True)\n"
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("fruits_assets/__init__.py", "")
        for file in (_ROOT / "fruits_assets" / "core").glob("*.py"):
            text = file.read_text() + (mark if file.stem == "rejection" else "")
            archive.writestr(f"fruits_assets/core/{file.name}", text)
    program = f"import sys\nsys.path.insert(0, {str(tmp_path / 'code.zip')!r})\n"
    program += _PROGRAM + "with Decoder() as decoder:\n    print(examine(decoder).width)\n"
    (tmp_path / "good").write_bytes(_GOOD)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    place = f"{tmp_path}/code.zip/fruits_assets/core/rejection.py\n"
    assert (done.stdout, done.stderr) == (f"{place}16\n", place)
