"""The system calls that a probe may not make, also as root: a filter in the kernel (seccomp(2)), set for good.

1. A probe starts no process: limits hold for one process each, and the limit on their number does not hold for root.
   It may start threads.
2. A probe opens no internet socket: containers and hardened kernels may give it no network namespace of its own.
3. Where the processor is not in the table, or the kernel has no filters, nothing is filtered.
"""

import ctypes
import errno
import os
import sys

import msgspec

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # linux/seccomp.h: SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h: ld w abs, jeq k, jset k, ret k
_CALL, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data; the low half of an argument comes first
_CLONE_THREAD = 0x10000  # linux/sched.h
_INET, _INET6 = 2, 10  # linux/socket.h; local sockets stay, which some accelerators are driven through


class _Calls(msgspec.Struct, frozen=True):
    """Numbers of one architecture: AUDIT_ARCH_* of linux/audit.h, and its table of system calls."""

    architecture: int
    seccomp: int
    clone: int
    socket: int
    forks: tuple[int, ...] = ()
    clone3: int = 435  # the same everywhere


_TABLE = {
    ("x86_64", 8): _Calls(architecture=0xC000003E, seccomp=317, clone=56, socket=41, forks=(57, 58)),
    ("aarch64", 8): _Calls(architecture=0xC00000B7, seccomp=277, clone=220, socket=198),
    ("riscv64", 8): _Calls(architecture=0xC00000F3, seccomp=277, clone=220, socket=198),
    ("arm", 4): _Calls(architecture=0x40000028, seccomp=383, clone=120, socket=281, forks=(2, 190)),
}


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def install() -> bool:
    """Filter the calls of this process and all its threads from now on. Returns whether the kernel took the filter."""
    calls = _calls()
    if calls is None:
        return False
    steps = _program(calls)
    program = _Program(len(steps), (_Instruction * len(steps))(*(_Instruction(*step) for step in steps)))
    try:
        libc = ctypes.CDLL(None)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.syscall(calls.seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0)
    except (OSError, AttributeError):
        return False


def _calls() -> _Calls | None:
    if sys.platform != "linux":
        return None
    machine, pointer = os.uname().machine, ctypes.sizeof(ctypes.c_void_p)
    if pointer == 4 and machine.startswith(("arm", "aarch64")):  # a 32-bit system may run on a 64-bit kernel
        machine = "arm"
    return _TABLE.get((machine, pointer))


def _program(calls: _Calls) -> list[tuple[int, int, int, int]]:
    """(code, instructions to skip if so, if not, value). Classic BPF jumps forward only.

    Calls of another architecture pass: a wrong constant up there must not make every model of a device class fail.
    """
    denied, unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, calls.architecture),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _CALL),
    ]
    for number in calls.forks:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, denied)]
    # The flags of clone3 lie in memory, which no filter can read; without clone3 the C library uses clone.
    steps += [(_EQUAL, 0, 1, calls.clone3), (_RETURN, 0, 0, unknown)]
    steps += [
        (_EQUAL, 0, 4, calls.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, denied),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 4, calls.socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, _INET),
        (_EQUAL, 0, 1, _INET6),
        (_RETURN, 0, 0, denied),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return steps
