"""Decoding in a process of its own, which may be lost, and from which nothing can be reached.

Decoders are C libraries that parse what strangers made. A file that crashes one, never lets it end
or makes it take all memory costs a child process here, and not the Spark worker with its task. A
file that takes one over gets neither credentials, nor files, nor a network: the child has nothing
of the environment of its parent, and is locked down (`lockdown`) before it sees the first image.

Images, photos and pixels pass through a file in memory that both processes have open; over two
pipes, they tell each other what is in it, in a few bytes that neither ever has to wait to write.
What the child answers is checked before it is believed.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from functools import lru_cache
from typing import IO, NamedTuple

import numpy as np
import pillow_heif
from PIL import AvifImagePlugin, Image

from fruits_assets.core.images import (
    FORMATS,
    REASONS,
    Photo,
    RejectedImage,
    as_rejection,
    examine,
    pixels,
)
from fruits_assets.core.lockdown import end_with_parent, lock_down

SECONDS = 60.0
"""Time limit of an image, whatever its size. 100 megapixels take 2 s as a JPEG, and 14 s as an
AVIF, the slowest; 200 megapixels, as phones have them, twice as long."""
CPU_SECONDS = 1.0
CPU_SECONDS_PER_MEGAPIXEL = 0.2
CPU_SECONDS_PER_MEGABYTE = 0.5
"""Processor time that an image may take, three to five times what the slowest kinds of photos do:
0.045 s per megapixel (wide TIFFs, lossy WebPs, PNGs with a colour profile), and 0.1 s per megabyte
(HEIF)."""
MEMORY_BYTES = 4 * 2**30
"""Limit of an image. 200 megapixels take 2.4 GB as a JPEG that has to be turned; 100 megapixels
take 3.4 GB as a TIFF of 32 bits."""

_START_SECONDS = 60.0
_DETAIL_CHARACTERS = 4_000
_DETAIL_BYTES = 2**16
_CONTENT_BYTES = 2**16
"""Bytes that a photo may have beyond twice its file. Most photos are smaller than their file."""
_DYING_SECONDS = 1.0
_PART_BYTES = 2**30
_KEPT_BYTES = 2**20
"""Size of the shared file between two images."""
_CODECS = ("hex", "utf-16-be", "latin-1", "cp1252")
"""Whose modules are imported by the first file that asks for them: after that, nothing is."""
_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""Variables that Python may need in order to start; all others stay here."""
_ENVIRONMENT = {
    # Memory that glibc gives back to the system after each image costs a quarter of the time of
    # small ones to get again (mallopt(3)); 32 MB is the most that it takes from its own heap.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    # OpenBLAS would take address space for threads on all cores.
    "OPENBLAS_NUM_THREADS": "1",
}


class _Question(NamedTuple):
    """`work` is _EXAMINE or _SEE; `limit` is `max_pixels` or `size`; `length` counts bytes."""

    work: bytes
    length: int
    limit: int
    orientation: int = 1
    reduced: bool = False


class _Answer(NamedTuple):
    """`outcome` is one of the three below; all but `length` describe a photo, if it is one."""

    outcome: bytes
    length: int
    width: int = 0
    height: int = 0
    orientation: int = 1
    format: bytes = b""


_FORMATS = frozenset(name.encode() for name in FORMATS)
_EXAMINE, _SEE = b"e", b"s"
_DONE, _REJECTED, _OUT_OF_MEMORY = b"d", b"r", b"m"
_QUESTION, _ANSWER = struct.Struct("<cQQB?"), struct.Struct("<cQIIB4s")
_EFFORT = struct.Struct("<dII")


class _Effort(NamedTuple):
    """The step that the child is at, left in the shared file for when it runs out of its time.

    Attributes:
        seconds: Processor time that the image may take.
        width: That it declares, in pixels; 0 while that is not known.
        height: The same.
    """

    seconds: float
    width: int = 0
    height: int = 0


class Decoder:
    """Does what `images.examine` and `images.pixels` do, in a child process.

    The child is started by the first image, in 0.2 s, and ends with `close`, with this object,
    with this process, or when it has had nothing to do for twice the time limit. If there is none
    when an image comes, another is started. If it dies of an image, that is tried once more: it may
    have been killed for reasons of somebody else's.

    Threads take turns. A process that is forked from this one has a child of its own.

    Args:
        seconds: Time limit of each image. Besides, its processor time is limited by its size:
            `CPU_SECONDS`, and so much for each megapixel and each megabyte.
        memory_bytes: Address space that decoding may take, beside what the child starts with.

    Attributes:
        lacking: The measures that confine the child and that this platform does not allow, a
            phrase each; known once there has been a child.
    """

    def __init__(self, *, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._child: _Child | None = None
        self._turn = threading.Lock()
        self.lacking: tuple[str, ...] = ()

    def examine(self, data: bytes, *, max_pixels: int) -> Photo:
        """Accepts a file as a photo, or says why not: see `images.examine`.

        Raises:
            RejectedImage: As there. Besides, `unreadable` if the image ends two children, is not
                decoded in time, or takes more processor time than photos of its size do.
            RuntimeError: No child can be started.
        """
        answer, content = self._ask(_Question(_EXAMINE, len(data), max_pixels), data)
        image_format = answer.format.rstrip(b"\0").decode()
        return Photo(content, image_format, answer.width, answer.height, answer.orientation)

    def pixels(
        self, photo_content: bytes, *, orientation: int, size: int, reduced: bool = False
    ) -> np.ndarray:
        """What the network sees of a photo: see `images.pixels`.

        Returns:
            uint8 array (size, size, 3), RGB, read-only.

        Raises:
            RejectedImage: Whatever is raised there; and as in `examine`.
            RuntimeError: No child can be started.
        """
        question = _Question(_SEE, len(photo_content), size, orientation, reduced)
        _, seen = self._ask(question, photo_content)
        return np.frombuffer(seen, np.uint8).reshape(size, size, 3)

    @property
    def pid(self) -> int | None:
        """Of the child, if there is one."""
        return self._child.process.pid if self._child else None

    def close(self) -> None:
        """Ends the child; another image would start another."""
        if self._child:
            self._child.end()
        self._child = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: _Question, data: bytes) -> tuple[_Answer, bytes]:
        with self._turn:
            answer, payload = self._answer(question, data)
        if answer.outcome != _DONE:
            raise _refusal(payload)
        return answer, payload

    def _answer(self, question: _Question, data: bytes) -> tuple[_Answer, bytes]:
        status = 0
        for last in (False, True):
            child = self._living_child()
            try:
                answer, payload = child.answer(question, data, seconds=self._seconds)
            except TimeoutError:
                self.close()
                raise _too_slow(self._seconds) from None
            except _NonsenseError:
                self.close()
                raise _nonsense() from None
            except (OSError, EOFError):
                status = child.died()
                self._child = None
                if status == -signal.SIGPROF:
                    raise _too_costly(child.effort, len(data)) from None
                continue
            except BaseException:  # an answer still to come would be taken for that to the next
                self.close()
                raise
            if answer.outcome != _OUT_OF_MEMORY or child.images == 1 or last:
                return answer, payload
            self.close()  # earlier images may have left too little
        raise _fatal(status)

    def _living_child(self) -> _Child:
        if self._child and not self._child.lives():
            self.close()
        if self._child is None:
            self._child = _Child(self._seconds, self._memory_bytes)
            self.lacking = self._child.lacking
        return self._child


def shared(*, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> Decoder:
    """The decoder of this process: Spark reuses its workers, and each keeps one child.

    Other limits than the last time make another decoder, and end the one before.
    """
    return _shared(seconds, memory_bytes)


@lru_cache(maxsize=1)
def _shared(seconds: float, memory_bytes: int) -> Decoder:
    return Decoder(seconds=seconds, memory_bytes=memory_bytes)


class _NonsenseError(Exception):
    """A child has answered what no decoder does: an image has taken it over, or it is broken."""


def _refusal(payload: bytes) -> RejectedImage:
    """The rejection that a child has answered. Raises _NonsenseError."""
    try:
        reason, detail = json.loads(payload)
    except (ValueError, TypeError, RecursionError):
        raise _NonsenseError from None
    if not (isinstance(reason, str) and reason in REASONS and isinstance(detail, str)):
        raise _NonsenseError
    return RejectedImage(reason, detail)


def _nonsense() -> RejectedImage:
    return RejectedImage(
        "unreadable",
        "The image made its decoder answer nonsense, as an attack would; do not open it, and "
        "remove it from the source.",
    )


def _too_slow(seconds: float) -> RejectedImage:
    return RejectedImage(
        "unreadable",
        f"The image was not decoded within {seconds:g} seconds; save it again with another "
        "program.",
    )


def _too_costly(effort: _Effort, length: int) -> RejectedImage:
    """An image that ran out of its processor time."""
    size = f"{effort.width} x {effort.height} pixels and " if effort.width else ""
    return RejectedImage(
        "unreadable",
        f"The image was not decoded within {effort.seconds:.3g} seconds of processor time, several "
        f"times what a photo of {size}{length} bytes takes; save it again with another program.",
    )


def _fatal(status: int) -> RejectedImage:
    """An image that ended two children, the second with this exit status or minus this signal."""
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    advice = "save it again with another program"
    if status == -signal.SIGKILL:
        advice = f"scale it down if the machine was short of memory, else {advice}"
    return RejectedImage("unreadable", f"The image ended its decoder twice ({how}); {advice}.")


class _Child:
    """A child process, this end of the two pipes, and the shared file.

    Attributes:
        process: The child.
        images: How many it has been given.
        lacking: What `lock_down` could not do there.
        effort: What it was at when it died.

    Raises:
        RuntimeError: It cannot be started.
    """

    def __init__(self, seconds: float, memory_bytes: int) -> None:
        self.images = 0
        self.effort = _Effort(0)
        self._memory = _shared_file()
        questions, self._questions = _pipe()
        self._answers, answers = _pipe()
        with questions, answers:
            theirs = (questions, answers, self._memory)
            self.process = _start(theirs, seconds=seconds, memory_bytes=memory_bytes)
        ours = (self._questions, self._answers, self._memory)
        self.end = weakref.finalize(self, _end, self.process, ours)
        self._answered = select.poll()
        self._answered.register(self._answers, select.POLLIN)
        try:
            started = _Answer(*_ANSWER.unpack(self._hear(_START_SECONDS)))
            self.lacking: tuple[str, ...] = tuple(json.loads(_read(self._memory, started.length)))
        except (OSError, EOFError) as error:
            raise RuntimeError(
                f"the process that decodes images did not start (exit status {self.died()}); "
                "what it wrote is in the standard error of this one"
            ) from error

    def lives(self) -> bool:
        """Whether it is a child of this very process, as of no forked one, and has not ended."""
        return self.process.poll() is None

    def answer(self, question: _Question, data: bytes, *, seconds: float) -> tuple[_Answer, bytes]:
        """Has it do something with an image.

        Raises:
            TimeoutError: It has not answered in time.
            OSError: It is dead; or EOFError.
            _NonsenseError: The answer is none to this question.
        """
        self.images += 1
        _write(self._memory, data)
        self._questions.write(_QUESTION.pack(*question))
        answer = _Answer(*_ANSWER.unpack(self._hear(seconds)))
        _check_answer(question, answer)
        payload = _read(self._memory, answer.length)
        if answer.outcome != _DONE:
            _refusal(payload)
        if max(len(data), len(payload)) > _KEPT_BYTES:
            self._memory.truncate(0)
        return answer, payload

    def died(self) -> int:
        """Its exit status, or minus the signal that ended it; it is ended if it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_DYING_SECONDS)
        with contextlib.suppress(EOFError):
            self.effort = _Effort(*_EFFORT.unpack(_read(self._memory, _EFFORT.size)))
        self.end()
        return self.process.returncode

    def _hear(self, seconds: float) -> bytes:
        if not self._answered.poll(1000 * seconds):
            raise TimeoutError
        return _received(self._answers, _ANSWER.size)


def _shared_file() -> IO[bytes]:
    """A file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("image"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _check_answer(question: _Question, answer: _Answer) -> None:
    """Refuses what no decoder answers, before memory is taken for it. Raises _NonsenseError."""
    if answer.outcome in {_REJECTED, _OUT_OF_MEMORY}:
        sound = answer.length <= _DETAIL_BYTES
    elif answer.outcome != _DONE:
        sound = False
    elif question.work == _SEE:
        sound = answer.length == 3 * question.limit**2
    else:
        sound = (
            answer.length <= 2 * question.length + _CONTENT_BYTES
            and answer.width > 0
            and answer.height > 0
            and answer.orientation in range(1, 9)
            and answer.format.rstrip(b"\0") in _FORMATS
        )
    if not sound:
        raise _NonsenseError


def _start(
    files: tuple[IO[bytes], ...], *, seconds: float, memory_bytes: int
) -> subprocess.Popen[bytes]:
    numbers = [file.fileno() for file in files]
    # The kernel can end a child with the thread that started it; other threads may live longer, and
    # go on asking it. The main thread, the only one of a Spark worker that asks, ends last.
    parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
    arguments = map(str, (*numbers, memory_bytes, seconds, parent))
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - this very module
        [sys.executable, "-P", "-m", __name__, *arguments],
        # On a cluster, only `sys.path` knows in which zip file this code is.
        env={**inherited, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        # With its errors, to where those of this process go: a pipe would have to be emptied.
        stdout=2,
        pass_fds=numbers,
    )


def _end(process: subprocess.Popen[bytes], files: tuple[IO[bytes], ...]) -> None:
    for file in files:
        file.close()
    process.kill()  # unless it has ended or, for this process was forked, is the child of another
    process.wait()


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)


def _received(pipe: IO[bytes], size: int) -> bytes:
    """A message, which its size makes atomic. Raises EOFError if there will be none."""
    message = pipe.read(size)
    if len(message) < size:
        raise EOFError
    return message


def _write(memory: IO[bytes], data: bytes | memoryview) -> None:
    """Fills the shared file from its beginning; one call of the system writes at most 2 GB."""
    view, position = memoryview(data), 0
    while position < len(view):
        position += os.pwrite(memory.fileno(), view[position:], position)


def _read(memory: IO[bytes], length: int) -> bytes:
    """The first bytes of the shared file. Raises EOFError if there are not as many."""
    parts: list[bytes] = []
    position = 0
    while position < length:
        part = os.pread(memory.fileno(), min(length - position, _PART_BYTES), position)
        if not part:
            raise EOFError
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def main() -> None:
    """The child: answers until its parent is gone."""
    questions, answers, memory, memory_bytes = map(int, sys.argv[1:5])
    seconds, parent = float(sys.argv[5]), int(sys.argv[6])
    if parent:
        end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends this
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _set_libraries_up()
    with (
        os.fdopen(questions, "rb", buffering=0) as asked,
        os.fdopen(answers, "wb", buffering=0) as answering,
        os.fdopen(memory, "r+b", buffering=0) as shared_file,
        contextlib.suppress(EOFError),
    ):
        lacking = json.dumps(lock_down(memory_bytes=memory_bytes)).encode()
        _write(shared_file, lacking)
        answering.write(_ANSWER.pack(*_Answer(_DONE, len(lacking))))
        while True:
            question = _Question(*_QUESTION.unpack(_received(asked, _QUESTION.size)))
            # Ends a child that idles, which is cheap to replace; and what does not end by itself
            # once a parent is gone that could not have it ended by the kernel.
            signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
            answering.write(_ANSWER.pack(*_answer(question, shared_file, seconds)))


def _set_libraries_up() -> None:
    """Settings that are global, and so may be made in this process only, and late imports."""
    Image.preinit()
    for name in _CODECS:
        codecs.lookup(name)
    # One core, one thread: on a Spark worker the other cores are busy with other photos.
    pillow_heif.options.DECODE_THREADS = 1
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # `max_pixels` is checked instead, by caller, where Pillow would first only warn.
    Image.MAX_IMAGE_PIXELS = None


class _Meter:
    """Ends this process when an image takes more processor time than its size explains.

    Args:
        memory: The shared file, for the parent to read why.
        length: Bytes of the image.
        most: Seconds that no image may take more than.
    """

    def __init__(self, memory: IO[bytes], length: int, most: float) -> None:
        self._memory = memory
        self._most = most
        self._seconds = CPU_SECONDS + CPU_SECONDS_PER_MEGABYTE * length / 1e6
        self._set(_Effort(min(most, self._seconds)), spent=0)

    def __call__(self, width: int, height: int) -> None:
        """The image declares so many pixels: it may take more."""
        before = min(self._most, self._seconds)
        left, _ = signal.getitimer(signal.ITIMER_PROF)
        self._seconds += CPU_SECONDS_PER_MEGAPIXEL * width * height / 1e6
        self._set(_Effort(min(self._most, self._seconds), width, height), spent=before - left)

    def _set(self, effort: _Effort, *, spent: float) -> None:
        _write(self._memory, _EFFORT.pack(*effort))
        signal.setitimer(signal.ITIMER_PROF, max(effort.seconds - spent, 1e-3))


def _answer(question: _Question, memory: IO[bytes], seconds: float) -> _Answer:
    """Does what is asked, and leaves what comes of it in the shared file."""
    data = b""
    try:
        data = _read(memory, question.length)
        answer, payload = _done(question, data, _Meter(memory, len(data), seconds))
    except Exception as error:  # decoders raise whatever their parsers stumble over
        rejected = as_rejection(error, data)
        payload = json.dumps([rejected.reason, rejected.detail[:_DETAIL_CHARACTERS]]).encode()
        out_of_memory = MemoryError in {type(error), type(error.__cause__)}
        answer = _Answer(_OUT_OF_MEMORY if out_of_memory else _REJECTED, len(payload))
    _write(memory, payload)
    return answer


def _done(question: _Question, data: bytes, meter: _Meter) -> tuple[_Answer, bytes | memoryview]:
    if question.work == _EXAMINE:
        photo = examine(data, max_pixels=question.limit, on_size=meter)
        shape = (photo.width, photo.height, photo.orientation)
        return _Answer(_DONE, len(photo.content), *shape, photo.format.encode()), photo.content
    seen = pixels(
        data,
        orientation=question.orientation,
        size=question.limit,
        reduced=question.reduced,
        on_size=meter,
    )
    return _Answer(_DONE, seen.nbytes), seen.data.cast("B")


if __name__ == "__main__":
    main()
