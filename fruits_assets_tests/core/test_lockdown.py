"""A decoder that an image has taken over: what it can reach, which is nothing."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.fuzz import damaged, samples
from fruits_assets.core.decoder import Decoder
from fruits_assets.core.images import RejectedImage, examine, pixels
from fruits_assets.core.lockdown import MACHINES, filter_of

_MAX_PIXELS = 1_000_000
_PHOTO = samples("JPEG")["JPEG plain"]
_SECRET = "AKIA-SECRET-OF-THE-PARENT"  # noqa: S105 - a stand-in

_confines = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in MACHINES,
    reason="only Linux on x86-64 and arm64 can confine a process wholly",
)

# A new Python process runs this where it is on the path: a library that does all of this as soon as
# it is to open an image. Modules are imported before, as an attacker's code would bring its own.
_ATTACK = """
import ctypes, json, mmap, os, pathlib, resource, signal, socket, sys, threading
import PIL.Image

here = pathlib.Path(__file__).parent
report = open(here / "report", "wb", buffering=0)
libc = ctypes.CDLL(None, use_errno=True)
port = int((here / "port").read_text()) if (here / "port").exists() else 0
pillow_open = PIL.Image.open

def call(function, *arguments):
    result = function(*arguments)
    if result in (-1, None):
        raise OSError(ctypes.get_errno(), "refused")
    return result

def secrets():
    libc.getenv.restype = ctypes.c_char_p
    found = [*os.environ, *filter(None, map(libc.getenv, (b"AWS_SECRET_ACCESS_KEY", b"HOME")))]
    return found or None

def vector():
    source = ctypes.create_string_buffer(8)
    pair = (ctypes.c_void_p * 2)(ctypes.addressof(source), 8)
    return call(libc.process_vm_readv, os.getppid(), pair, 1, pair, 1, 0)

def connect(family, kind, address):
    with socket.socket(family, kind) as one:
        one.connect(address)
        return one.send(b"x")

def shell():
    if os.system("true") != 0:
        raise OSError("it did not run")

def threads():
    said = []
    one = threading.Thread(target=said.append, args=("done",))
    one.start()
    one.join()
    return said

ACTS = {
    "the environment": lambda: secrets() or "nothing",
    "the environment it began with": lambda: open("/proc/self/environ").read(),
    "the environment of its parent": lambda: open(f"/proc/{os.getppid()}/environ").read(),
    "a file": lambda: open("/etc/passwd").read(),
    "a file by libc": lambda: call(libc.open, b"/etc/passwd", 0),
    "names in a folder": lambda: os.listdir("/"),
    "whether a file exists": lambda: os.stat("/etc/passwd"),
    "a new file": lambda: open(here / "written", "w"),
    "an open file again": lambda: os.dup(0),
    "a file in memory": lambda: os.memfd_create("more"),
    "a pipe": os.pipe,
    "a new folder": lambda: os.mkdir(here / "made"),
    "a removal": lambda: os.unlink(here / "kept"),
    "a renaming": lambda: os.rename(here / "kept", here / "moved"),
    "a link": lambda: os.symlink("/etc/passwd", here / "link"),
    "rights": lambda: os.chmod(here / "kept", 0o777),
    "another folder": lambda: os.chdir("/"),
    "TCP": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)),
    "UDP": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port)),
    "a local socket": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, str(here / "socket")),
    "a fork": os.fork,
    "a fork by libc": lambda: call(libc.vfork),
    "a shell": shell,
    "a program": lambda: os.execv("/bin/true", ["true"]),
    "a signal to its parent": lambda: os.kill(os.getppid(), 0),
    "a signal to its group": lambda: os.kill(0, 0),
    "the memory of its parent": vector,
    "tracing its parent": lambda: call(libc.ptrace, 16, os.getppid(), 0, 0),
    "another user": lambda: os.setuid(65534),
    "higher limits": lambda: resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)),
    "limits of its parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0)),
    "code of its own": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "memory": lambda: bytearray(2**33),
    "a namespace": lambda: call(libc.unshare, 0x10000000),
    "a thread": threads,
}

def attack(file, *args, **kwargs):
    outcomes = {}
    for name, act in ACTS.items():
        try:
            outcomes[name] = repr(act())
        except (OSError, MemoryError, ValueError) as error:
            outcomes[name] = f"refused: {type(error).__name__}"
    report.write(json.dumps(outcomes).encode())
    return pillow_open(file, *args, **kwargs)

if "fruits_assets.core.decoder" in sys.orig_argv:
    PIL.Image.open = attack
"""
_REFUSED = [
    *("the environment it began with", "the environment of its parent", "a file"),
    *("a file by libc", "names in a folder", "whether a file exists", "a new file"),
    *("an open file again", "a file in memory", "a pipe", "a new folder", "a removal"),
    *("a renaming", "a link", "rights", "another folder", "TCP", "UDP", "a local socket"),
    *("a fork", "a fork by libc", "a shell", "a program", "a signal to its parent"),
    *("a signal to its group", "the memory of its parent", "tracing its parent"),
    *("another user", "higher limits"),
    *("limits of its parent", "code of its own", "memory", "a namespace"),
]


def _width(decoder: Decoder) -> int:
    return decoder.examine(_PHOTO, max_pixels=_MAX_PIXELS).width


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What came of each attack, by name."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "sitecustomize.py").write_text(_ATTACK)
    (folder / "kept").write_text("kept")
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        (folder / "port").write_text(str(server.getsockname()[1]))
        local.bind(str(folder / "socket"))
        local.listen()
        patch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
        patch.syspath_prepend(str(folder))
        with Decoder() as decoder:
            assert _width(decoder) == 40  # the attacker wants to go unnoticed
    yield json.loads((folder / "report").read_text())
    left = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert left == {"sitecustomize.py", "kept", "port", "socket", "report"}


@_confines
@pytest.mark.parametrize("attack", _REFUSED)
def test_a_decoder_taken_over_reaches_nothing(attack: str, outcomes: dict[str, str]) -> None:
    assert outcomes[attack].startswith("refused: ")


def test_a_decoder_knows_no_secret_of_its_parent(outcomes: dict[str, str]) -> None:
    assert outcomes["the environment"] == "'nothing'"


def test_a_decoder_may_have_threads(outcomes: dict[str, str]) -> None:
    """libde265 decodes in one."""
    assert outcomes["a thread"] == "['done']"


def test_a_decoder_starts_without_the_variables_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    with Decoder() as decoder:
        _width(decoder)
        assert decoder.pid
        found = Path(f"/proc/{decoder.pid}/environ").read_text()
    assert "PYTHONPATH=" in found
    assert _SECRET not in found
    assert not {line.partition("=")[0] for line in found.split("\0")} & {"HOME", "USER", "PATH"}


@_confines
def test_the_kernel_says_that_a_decoder_is_confined() -> None:
    with Decoder() as decoder:
        _width(decoder)
        assert decoder.lacking == ()
        assert decoder.pid
        status = Path(f"/proc/{decoder.pid}/status").read_text()
        child = psutil.Process(decoder.pid)
        assert child.rlimit(psutil.RLIMIT_NOFILE) == (0, 0)
        assert max(child.rlimit(psutil.RLIMIT_CPU)) == 3600
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status


# A confined decoder decodes as any other


def _outcome(look: Callable[[], object]) -> object:
    try:
        return look()
    except RejectedImage as error:
        return error.args


def test_a_confined_decoder_finds_what_an_unconfined_one_finds() -> None:
    """Nothing that decoding or rejecting needs is only imported or opened when it is needed."""
    found = []
    with Decoder() as decoder:
        for number in range(400):
            _, data = damaged(number, seed=3)
            alone = _outcome(lambda data=data: examine(data, max_pixels=_MAX_PIXELS))
            assert _outcome(lambda data=data: _examined(decoder, data)) == alone
            found.append(alone)
        raw = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"
        alone = _outcome(lambda: examine(raw, max_pixels=_MAX_PIXELS))
        assert _outcome(lambda: _examined(decoder, raw)) == alone
    assert 0 < sum(isinstance(one, tuple) for one in found) < len(found)


def _examined(decoder: Decoder, data: bytes) -> object:
    return decoder.examine(data, max_pixels=_MAX_PIXELS)


_AS_ANOTHER_USER = """
import os
from benchmarks.fuzz import FORMATS, samples
from fruits_assets.core.decoder import _set_libraries_up
from fruits_assets.core.images import examine
from fruits_assets.core.lockdown import lock_down

photos = [photo for one in FORMATS for photo in samples(one).values()]
_set_libraries_up()
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(*lock_down(memory_bytes=2**32))
print(sum(examine(photo, max_pixels=10**6).width > 0 for photo in photos) == len(photos))
"""


@_confines
def test_ordinary_users_can_confine_a_decoder_too() -> None:
    """Limits of resources hold for root in part only: the tests of whom would not notice all."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_ANOTHER_USER], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\nTrue\n"


# Other platforms


def test_what_a_platform_does_not_allow_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, which has neither files in memory nor these means of Linux."""
    only = 'if "fruits_assets.core.decoder" in sys.orig_argv: sys.platform = "darwin"'
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{only}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with Decoder() as decoder:
        assert decoder.lacking == ()
        assert _width(decoder) == 40
        assert decoder.lacking == (
            "no new privileges (darwin has none)",
            "Landlock (darwin has none)",
            "seccomp (darwin has none)",
        )
        seen = decoder.pixels(_PHOTO, orientation=1, size=9)
    assert np.array_equal(seen, pixels(_PHOTO, orientation=1, size=9))


_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x50026
_SELF, _OTHER = 4711, 1


def _verdict(program: bytes, *, audit: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would do: an interpreter of the few instructions that are used."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *(*arguments, *[0] * 6)[:6])
    loaded, at = 0, 0
    while True:
        code, if_so, if_not, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (loaded,) = struct.unpack_from("<I", data, value)
        else:
            met = loaded == value if code == 0x15 else bool(loaded & value)
            at += if_so if met else if_not


# Numbers of system calls on x86-64 and arm64, from the headers of Linux.
_CALLS = [
    ("read", (0, 63), (), _ALLOW),
    ("exit_group", (231, 94), (), _ALLOW),
    ("openat", (257, 56), (), _EPERM),
    ("socket", (41, 198), (), _EPERM),
    ("execve", (59, 221), (), _EPERM),
    ("ptrace", (101, 117), (), _EPERM),
    ("unlinkat", (263, 35), (), _EPERM),
    ("prlimit64", (302, 261), (), _EPERM),
    ("io_uring_setup", (425, 425), (), _EPERM),
    ("clone of a thread", (56, 220), (0x3D0F00,), _ALLOW),
    ("clone of a process", (56, 220), (0x11,), _EPERM),
    ("clone3", (435, 435), (), _ENOSYS),
    ("mmap of data", (9, 222), (0, 4096, 3), _ALLOW),
    ("mmap of code", (9, 222), (0, 4096, 5), _EPERM),
    ("mprotect of data", (10, 226), (0, 4096, 3), _ALLOW),
    ("mprotect of code", (10, 226), (0, 4096, 4), _EPERM),
    ("kill itself", (62, 129), (_SELF, 9), _ALLOW),
    ("kill another", (62, 129), (_OTHER, 9), _EPERM),
    ("tgkill another", (234, 131), (_OTHER, _OTHER, 9), _EPERM),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("call", "numbers", "arguments", "expected"), _CALLS)
def test_the_filter_is_right_on_every_machine(
    call: str, numbers: tuple[int, int], arguments: tuple[int, ...], expected: int, machine: str
) -> None:
    kind = MACHINES[machine]
    program, number = filter_of(kind, _SELF), numbers[kind.column]
    found = _verdict(program, audit=kind.audit, number=number, arguments=arguments)
    assert found == expected, call
    foreign = _verdict(program, audit=0x40000003, number=number, arguments=arguments)
    assert foreign == _KILL, "system calls by the numbers of i386"
