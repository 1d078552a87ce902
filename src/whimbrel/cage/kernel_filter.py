"""The system calls that a caged process may not make, also as root: a filter in the kernel (seccomp(2)), set for good.

1. It starts no process and becomes no other program: limits hold for one process each, and the limit on their number
   does not hold for root. It may start threads.
2. It opens no socket of any kind, and sees and signals no process but itself.
3. It opens no file for writing, and changes none by name.
4. Calls of another architecture end the process: `int 0x80` on x86-64 makes the calls of 32-bit x86, and x32 has
   numbers of its own. A rule by number would not hold for them.
5. Where the processor is not in the table, or the kernel has no filters, nothing is filtered.
6. A command that people run on purpose (`command.py`) has a filter with fewer rules (`program_for_commands`): it starts
   processes and changes files, which other walls bound. It opens no socket: by one that lies in a folder (of an agent
   for keys, of a container engine) a process outside would act for it, and no other wall stops that.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Sequence

import msgspec

from whimbrel.cage.call_numbers import ABSENT, LIMITED, NEWEST, REFUSED, Numbers

_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # linux/seccomp.h: SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # SECCOMP_RET_ALLOW, _ERRNO, _KILL_PROCESS
_DENIED, _UNKNOWN = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
# linux/bpf_common.h: ld w abs, jeq k, jgt k, jset k, ret k
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_CALL, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # struct seccomp_data; the low half of an argument comes first
_X32 = 0x40000000  # __X32_SYSCALL_BIT of asm/unistd.h
_PRIVATE_ARM = 0x0F0000  # from here on 32-bit arm has calls of its own (asm/unistd.h, __ARM_NR_BASE)

_CLONE_THREAD = 0x10000  # linux/sched.h
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
# asm-generic/fcntl.h: F_SETLK(W), F_SETOWN, F_SETSIG, F_SETLK(W)64, F_SETOWN_EX, F_OFD_SETLK(W), F_SETLEASE, F_NOTIFY
_FILE_COMMANDS = (6, 7, 8, 10, 13, 14, 15, 37, 38, 1024, 1026)
_REFUSED_TO_COMMANDS = (
    "socket",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
)
_ABSENT_FOR_COMMANDS = ("io_uring_setup", "io_uring_enter", "io_uring_register")
_TERMINAL_COMMANDS = (0x5412, 0x541C)  # asm-generic/ioctls.h: TIOCSTI and TIOCLINUX type into a terminal


class _Machine(msgspec.Struct, frozen=True):
    """AUDIT_ARCH_* of linux/audit.h, and the column of this machine in the table of calls."""

    architecture: int
    column: int


_MACHINES = {
    ("x86_64", 8): _Machine(0xC000003E, 0),
    ("aarch64", 8): _Machine(0xC00000B7, 1),
    ("riscv64", 8): _Machine(0xC00000F3, 1),
    ("arm", 4): _Machine(0x40000028, 2),
}
Step = tuple[int, int, int, int]  # code, instructions to skip if so, if not, value; classic BPF jumps forward only


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def install() -> bool:
    """Filter the calls of this process and all its threads from now on. Returns whether the kernel took the filter.

    The process must have given up new privileges before (prctl(2), PR_SET_NO_NEW_PRIVS).
    """
    machine = _machine()
    if machine is None:
        return False
    return _install(machine, program(machine.architecture, machine.column, process=os.getpid()))


def install_for_commands() -> bool:
    """The same with the rules for commands. They hold for all that the command starts."""
    machine = _machine()
    return machine is not None and _install(machine, program_for_commands(machine.architecture, machine.column))


def _install(machine: _Machine, steps: Sequence[Step]) -> bool:
    filled = _Program(len(steps), (_Instruction * len(steps))(*(_Instruction(*step) for step in steps)))
    number = LIMITED["seccomp"][machine.column]
    try:
        return bool(ctypes.CDLL(None).syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(filled)) == 0)
    except (OSError, AttributeError):
        return False


def _machine() -> _Machine | None:
    if sys.platform != "linux":
        return None
    machine, pointer = os.uname().machine, ctypes.sizeof(ctypes.c_void_p)
    if pointer == 4 and machine.startswith(("arm", "aarch64")):  # a 32-bit system may run on a 64-bit kernel
        machine = "arm"
    return _MACHINES.get((machine, pointer))


def program(architecture: int, column: int, *, process: int) -> list[Step]:
    """The filter for one machine. `process`: the id of the caged process, which may signal and limit itself."""

    def number_of(numbers: Numbers) -> int | None:
        return numbers[column]

    steps = _intro(architecture, column)
    for table, answer in ((REFUSED, _DENIED), (ABSENT, _UNKNOWN)):
        for numbers in table.values():
            if (number := number_of(numbers)) is not None:
                steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    rules: list[tuple[str, list[Step]]] = [
        ("clone", _unless_any_bit(0, _CLONE_THREAD)),
        ("kill", _unless_equal(0, (process,))),
        ("tgkill", _unless_equal(0, (process,))),
        ("prlimit64", _unless_equal(0, (0, process))),
        ("open", _if_any_bit(1, _WRITES)),
        ("openat", _if_any_bit(2, _WRITES)),
        ("prctl", _if_equal(0, (_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER))),
        ("fcntl", _if_equal(1, _FILE_COMMANDS)),
        ("fcntl64", _if_equal(1, _FILE_COMMANDS)),
        ("ioctl", _if_equal(1, _TERMINAL_COMMANDS)),
    ]
    for name, rule in rules:
        if (number := number_of(LIMITED[name])) is not None:
            steps += [(_EQUAL, 0, len(rule), number), *rule]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def program_for_commands(architecture: int, column: int) -> list[Step]:
    """The filter for a command on one machine."""
    steps = _intro(architecture, column)
    for names, answer in ((_REFUSED_TO_COMMANDS, _DENIED), (_ABSENT_FOR_COMMANDS, _UNKNOWN)):
        for name in names:
            if (number := (REFUSED | ABSENT)[name][column]) is not None:
                steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _intro(architecture: int, column: int) -> list[Step]:
    """Calls of another architecture end the process, and those that nobody has looked at are absent."""
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _CALL),
    ]
    if column == 0:
        # -1 is no call: a tracer, or a restarted call, leaves it, and the kernel answers ENOSYS.
        steps += [(_EQUAL, 2, 0, 0xFFFFFFFF), (_ANY_BIT, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    steps += [(_GREATER, 0, 2, NEWEST), (_GREATER, 1, 0, _PRIVATE_ARM - 1), (_RETURN, 0, 0, _UNKNOWN)]
    return steps


# Each rule is about one call and ends with an answer, so that the load of an argument disturbs no later comparison.


def _argument(place: int) -> Step:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * place)


def _unless_any_bit(place: int, bits: int) -> list[Step]:
    return [_argument(place), (_ANY_BIT, 1, 0, bits), (_RETURN, 0, 0, _DENIED), (_RETURN, 0, 0, _ALLOW)]


def _if_any_bit(place: int, bits: int) -> list[Step]:
    return [_argument(place), (_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _DENIED), (_RETURN, 0, 0, _ALLOW)]


def _unless_equal(place: int, values: Sequence[int]) -> list[Step]:
    tests = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_argument(place), *tests, (_RETURN, 0, 0, _DENIED), (_RETURN, 0, 0, _ALLOW)]


def _if_equal(place: int, values: Sequence[int]) -> list[Step]:
    tests = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_argument(place), *tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENIED)]
