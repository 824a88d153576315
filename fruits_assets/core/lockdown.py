"""Takes from a process all that decoding does not need, before it parses what strangers made.

Decoders are C libraries: an image may take one over. After `lock_down`, the process can compute,
read and write the files that it has open, and end; it can open nothing, reach nobody and start
nothing. The measures overlap, so that one that a platform lacks leaves others: limits of resources
(POSIX), Landlock (Linux 5.13) and a filter of system calls (seccomp, Linux on x86-64 and arm64).

They are called through `ctypes`. Of the packages on PyPI, pyseccomp and python-prctl have had no
release for five years and need C libraries that machines may lack, sandlock needs Linux 6.7, newer
than EMR's, and the bindings of Landlock and seccomp in pure Python are alphas of one author that
are larger than what is needed here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

LIFE_SECONDS = 3600
"""Processor time of a process in all: a bound for code that has got rid of every other timer."""

# <linux/prctl.h>, <linux/landlock.h>, <linux/seccomp.h>
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT, _LANDLOCK_VERSION = 444, 446, 1
_LANDLOCK_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_LANDLOCK_NEWEST_FILE_RIGHTS = 16
_LANDLOCK_TCP, _LANDLOCK_SCOPES = (4, 0b11), (6, 0b11)
_FILTER, _ALL_THREADS, _KEEP_SPECULATION = 1, 1, 4

# <linux/filter.h>
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_EXECUTABLE, _THREAD = 0x4, 0x10000


class Machine(NamedTuple):
    """A kind of processor: its AUDIT_ARCH, the number of seccomp(2), and its column in the tables.

    Attributes:
        audit: How the kernel names it.
        seccomp: Number of the system call that installs a filter.
        column: In the tables of system calls below.
    """

    audit: int
    seccomp: int
    column: int


MACHINES = {
    "x86_64": Machine(0xC000003E, 317, 0),
    "aarch64": Machine(0xC00000B7, 277, 1),
}
# Numbers on x86-64 and arm64. What is not here fails with EPERM: opening by any path, sockets,
# processes, programs, memory of others, and limits, which this process could raise.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "brk": (12, 214),
    "madvise": (28, 233),
    "futex": (202, 98),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrusage": (98, 165),
    "readv": (19, 65),
    "writev": (20, 66),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "close": (3, 57),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_ONLY_TO_ITSELF = {"kill": (62, 129), "tgkill": (234, 131)}  # `abort` sends a signal
_ONLY_DATA = {"mmap": (9, 222), "mprotect": (10, 226)}
_ONLY_THREADS = {"clone": (56, 220)}  # libde265 has one beside it
# Its flags are out of the filter's sight. Where it seems to be missing, libc uses `clone`.
_MISSING = {"clone3": (435, 435)}


def lock_down(*, memory_bytes: int) -> tuple[str, ...]:
    """Locks this process down, for good; all that it is to import must have been imported.

    Its environment is emptied. It gets no new privileges, opens no file, reaches no network, starts
    no process and no program, signals and traces nobody, makes no memory executable, writes no
    core, and is what the kernel ends first when memory runs out.

    Args:
        memory_bytes: Address space that it may take from here on; no file may grow larger.

    Returns:
        A sentence for each measure that the platform does not allow; none on Linux 5.13 and later
        on x86-64 and arm64, unless that was built or configured without Landlock or seccomp.
    """
    os.environ.clear()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    lacking = []
    for name, measure in _measures(memory_bytes):
        try:
            measure()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            lacking.append(f"{name} ({why})")
    return tuple(lacking)


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends; nothing happens but on Linux.

    It does so when the *thread* ends that started this process: only one that lives as long as its
    process may ask for it.

    Args:
        parent: The process that started this one, which may have ended already.
    """
    if sys.platform == "linux":
        _check(_linux().prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGKILL)))
        if os.getppid() != parent:
            signal.raise_signal(signal.SIGKILL)


def _measures(memory_bytes: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """The measures by name, in an order in which none stands in the way of the next."""
    yield "a limit of memory", lambda: _limit(resource.RLIMIT_AS, _address_space() + memory_bytes)
    yield "a limit of file sizes", lambda: _limit(resource.RLIMIT_FSIZE, memory_bytes)
    yield "a limit of processor time", lambda: _limit(resource.RLIMIT_CPU, LIFE_SECONDS)
    yield "no core files", lambda: _limit(resource.RLIMIT_CORE, 0)
    if sys.platform != "linux":  # which counts threads too, and those of the user's other programs
        yield "no processes", lambda: _limit(resource.RLIMIT_NPROC, 0)
    yield "no new privileges", _renounce_privileges
    yield "Landlock", _restrict_by_landlock
    yield "no open files", lambda: _limit(resource.RLIMIT_NOFILE, 0)  # what is open stays so
    yield "seccomp", _filter_system_calls


def _limit(what: int, most: int) -> None:
    _, allowed = resource.getrlimit(what)
    if allowed != resource.RLIM_INFINITY:
        most = min(most, allowed)
    resource.setrlimit(what, (most, most))


def _address_space() -> int:
    """Bytes of address space that this process has taken."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _renounce_privileges() -> None:
    libc = _linux()
    _check(libc.prctl(_SET_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))))


def _restrict_by_landlock() -> None:
    """Refuses all of the file system, TCP, and signals and abstract sockets to other processes.

    Landlock handles more with each version, and refuses what it handles and no rule allows.
    """
    libc = _linux()
    version = _check(_call(libc, _LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION))
    files = (1 << _LANDLOCK_FILE_RIGHTS.get(version, _LANDLOCK_NEWEST_FILE_RIGHTS)) - 1
    others = (bits if version >= since else 0 for since, bits in (_LANDLOCK_TCP, _LANDLOCK_SCOPES))
    handled = struct.pack("=QQQ", files, *others)
    rules = _check(_call(libc, _LANDLOCK_CREATE, ctypes.c_char_p(handled), len(handled), 0))
    try:
        _check(_call(libc, _LANDLOCK_RESTRICT, rules, 0))
    finally:
        os.close(rules)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter_system_calls() -> None:
    libc = _linux()
    machine = MACHINES.get(os.uname().machine)
    if machine is None or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, f"unknown for {os.uname().machine}")
    instructions = filter_of(machine, os.getpid())
    program = _Program(len(instructions) // 8, instructions)
    # Older kernels slow a filtered process down, lest it reads others' memory by speculation. That
    # needs code of its own, which decoders have not, and would cost photos a part of their speed.
    flags = _ALL_THREADS | _KEEP_SPECULATION
    if _check(_call(libc, machine.seccomp, _FILTER, flags, ctypes.byref(program))):
        raise OSError(errno.EBUSY, "a thread already has a filter of its own")


def filter_of(machine: Machine, pid: int) -> bytes:
    """A filter of system calls, as a program for the kernel (classic BPF, seccomp(2)).

    Args:
        machine: That it is for.
        pid: The process that it is for, to which it allows signals.

    Returns:
        Instructions of 8 bytes.
    """
    column = machine.column
    allow, refuse, miss = (
        (_RETURN, 0, 0, outcome) for outcome in (_ALLOW, _FAIL | errno.EPERM, _FAIL | errno.ENOSYS)
    )
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_IF_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),  # by the numbers of another machine, such as i386 on x86-64
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for calls, outcome in ((_ALLOWED, allow), (_MISSING, miss)):
        for numbers in calls.values():
            program += [(_IF_EQUAL, 0, 1, numbers[column]), outcome]
    for calls, argument, test in (
        (_ONLY_TO_ITSELF, 0, (_IF_EQUAL, 0, 1, pid)),
        (_ONLY_DATA, 2, (_IF_ANY_BIT, 1, 0, _EXECUTABLE)),
        (_ONLY_THREADS, 0, (_IF_ANY_BIT, 0, 1, _THREAD)),
    ):
        load = (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)
        for numbers in calls.values():
            program += [(_IF_EQUAL, 0, 4, numbers[column]), load, test, allow, refuse]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in (*program, refuse))


def _linux() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"{sys.platform} has none")
    return ctypes.CDLL(None, use_errno=True)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    """A system call that libc has no function for."""
    words = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return libc.syscall(ctypes.c_long(number), *words)


def _check(result: int) -> int:
    """The result of a call, unless it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
