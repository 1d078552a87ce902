"""The filter of system calls, run here as the kernel runs it: for every machine, whatever this one is.

`tests/attack/test_cage_escapes.py` asks the kernel of this machine itself.
"""

import errno
import hashlib
import os

import pytest

from whimbrel.cage import kernel_filter, landlock
from whimbrel.cage.call_numbers import ABSENT, LIMITED, NEWEST, REFUSED
from whimbrel.cage.kernel_filter import program, program_for_commands

ALL = REFUSED | ABSENT | LIMITED
X86, GENERIC, ARM = 0, 1, 2
ARCHITECTURES = {X86: 0xC000003E, GENERIC: 0xC00000B7, ARM: 0x40000028}
ALLOWED, DENIED, UNKNOWN, KILLED = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
SELF = 4242


def answer(steps: list[tuple[int, int, int, int]], call: int, *arguments: int, architecture: int) -> int:
    """What the kernel does with a call: classic BPF over `struct seccomp_data` (seccomp(2))."""
    words = {0: call & 0xFFFFFFFF, 4: architecture}
    words |= {16 + 8 * place: value & 0xFFFFFFFF for place, value in enumerate(arguments)}
    loaded, at = 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:
            loaded = words.get(value, 0)
        elif code == 0x06:
            return value
        else:
            tests = {0x15: loaded == value, 0x25: loaded > value, 0x45: bool(loaded & value)}
            at += yes if tests[code] else no


def asked(name: str, *arguments: int, column: int) -> int:
    number = ALL[name][column]
    assert number is not None
    architecture = ARCHITECTURES[column]
    steps = program(architecture, column, process=SELF)
    return answer(steps, number, *arguments, architecture=architecture)


columns = pytest.mark.parametrize("column", [X86, GENERIC, ARM])


@columns
def test_each_call_of_the_table_has_the_answer_of_its_table(column: int) -> None:
    for table, expected in ((REFUSED, DENIED), (ABSENT, UNKNOWN)):
        for name, numbers in table.items():
            if numbers[column] is not None:
                assert asked(name, column=column) == expected, name


@columns
def test_a_call_that_is_in_no_table_is_allowed(column: int) -> None:
    steps = program(ARCHITECTURES[column], column, process=SELF)
    known = {numbers[column] for numbers in ALL.values()}
    for call in set(range(NEWEST + 1)) - known:
        assert answer(steps, call, architecture=ARCHITECTURES[column]) == ALLOWED, call


@columns
def test_newer_calls_are_absent(column: int) -> None:
    for steps in (
        program(ARCHITECTURES[column], column, process=SELF),
        program_for_commands(ARCHITECTURES[column], column),
    ):
        told = [answer(steps, call, architecture=ARCHITECTURES[column]) for call in (470, 471, 10_000, 0x0EFFFF)]
        assert told == [ALLOWED, UNKNOWN, UNKNOWN, UNKNOWN]


@columns
def test_another_architecture_ends_the_process(column: int) -> None:
    for steps in (
        program(ARCHITECTURES[column], column, process=SELF),
        program_for_commands(ARCHITECTURES[column], column),
    ):
        for other in {0x40000003, *ARCHITECTURES.values()} - {ARCHITECTURES[column]}:
            assert answer(steps, 1, architecture=other) == KILLED


def test_x32_ends_the_process_and_a_restarted_call_does_not() -> None:
    steps = program(ARCHITECTURES[X86], X86, process=SELF)
    told = [answer(steps, call, architecture=ARCHITECTURES[X86]) for call in (0x40000000 + 1, 0x40000000 + 57, -1)]
    assert told[:2] == [KILLED, KILLED]
    assert told[2] != KILLED


def test_calls_that_arm_alone_has_are_allowed() -> None:
    steps = program(ARCHITECTURES[ARM], ARM, process=SELF)
    told = [answer(steps, call, architecture=ARCHITECTURES[ARM]) for call in (0x0F0000, 0x0F0005)]
    assert told == [ALLOWED, ALLOWED]


@columns
def test_threads_are_started_and_processes_are_not(column: int) -> None:
    thread, process = 0x3D0F00, 0x1200011
    assert asked("clone", thread, column=column) == ALLOWED
    assert asked("clone", process, column=column) == DENIED
    assert asked("clone", 0x10000, column=column) == ALLOWED


@columns
@pytest.mark.parametrize("name", ["kill", "tgkill"])
def test_only_the_process_itself_is_signalled(name: str, column: int) -> None:
    told = [asked(name, target, column=column) for target in (SELF, SELF - 1, SELF + 1, 0, 1, -1)]
    assert told == [ALLOWED, DENIED, DENIED, DENIED, DENIED, DENIED]


@columns
def test_only_the_process_itself_is_limited(column: int) -> None:
    told = [asked("prlimit64", target, column=column) for target in (0, SELF, 1, SELF + 1)]
    assert told == [ALLOWED, ALLOWED, DENIED, DENIED]


@pytest.mark.parametrize(("name", "place"), [("open", 1), ("openat", 2)])
@columns
def test_files_are_opened_for_reading_alone(name: str, place: int, column: int) -> None:
    if ALL[name][column] is None:
        return  # newer machines have no such call

    def with_flags(flags: int) -> int:
        return asked(name, *[0] * place, flags, column=column)

    assert [with_flags(flags) for flags in (os.O_RDONLY, os.O_CLOEXEC, os.O_DIRECTORY)] == [ALLOWED] * 3
    writing = (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_RDWR | os.O_CLOEXEC)
    assert [with_flags(flags) for flags in writing] == [DENIED] * 5


@columns
def test_a_process_does_not_outlive_its_parent_nor_adopt(column: int) -> None:
    told = [asked("prctl", option, column=column) for option in (1, 36, 15, 2, 35, 37)]
    assert told == [DENIED, DENIED, ALLOWED, ALLOWED, ALLOWED, ALLOWED]


@columns
def test_files_are_not_locked_and_nothing_is_typed_into_a_terminal(column: int) -> None:
    locks = (6, 7, 8, 10, 13, 14, 15, 37, 38, 1024, 1026)
    others = (0, 1, 2, 3, 4, 5, 9, 11, 12, 16, 36, 39, 1025, 1030)
    for name in ("fcntl", "fcntl64"):
        if ALL[name][column] is not None:
            assert [asked(name, 3, command, column=column) for command in locks] == [DENIED] * len(locks)
            assert [asked(name, 3, command, column=column) for command in others] == [ALLOWED] * len(others)
    assert [asked("ioctl", 0, command, column=column) for command in (0x5412, 0x541C)] == [DENIED, DENIED]
    assert [asked("ioctl", 0, command, column=column) for command in (0x5411, 0x5413, 0x541B)] == [ALLOWED] * 3


# --- commands ---


@columns
def test_a_command_may_start_processes_and_change_files_but_reach_nobody(column: int) -> None:
    architecture = ARCHITECTURES[column]
    steps = program_for_commands(architecture, column)
    for name, numbers in ALL.items():
        if (number := numbers[column]) is None:
            continue
        expected = ALLOWED
        if name in {
            "socket", "ptrace", "process_vm_readv", "process_vm_writev", "keyctl", "add_key", "request_key", "bpf",
        }:  # fmt: skip
            expected = DENIED
        elif name.startswith("io_uring"):
            expected = UNKNOWN
        assert answer(steps, number, 1, 1, 1, architecture=architecture) == expected, name


# --- the table ---


@columns
def test_no_number_is_two_calls(column: int) -> None:
    numbers = [each[column] for each in ALL.values() if each[column] is not None]
    assert len(numbers) == len(set(numbers))


def test_calls_from_424_on_have_one_number_everywhere() -> None:
    for name, numbers in ALL.items():
        if max(number or 0 for number in numbers) >= 424:
            assert len(set(numbers)) == 1, name
            assert max(number or 0 for number in numbers) <= NEWEST


@pytest.mark.parametrize(
    ("column", "digest"),
    [
        (X86, "25d59015389916dcfd2e9957afef8f356e82b5d03bd59f20115c4190f821051b"),
        (GENERIC, "a2a6a141bd53ec4f6171af843807a81cf74c5783ce03f583e1970eec8b58bacf"),
        (ARM, "651eba1eca6e3a9f250c2ebdac855690a93cf0b810596a8e977c0475cfa0150a"),
    ],
)
def test_numbers_are_those_that_were_compared_with_the_kernels_tables(column: int, digest: str) -> None:
    """Whoever changes a number compares it with the source that the module names, and writes the digest here."""
    rows = "\n".join(f"{name} {ALL[name][column]}" for name in sorted(ALL))
    assert hashlib.sha256(rows.encode()).hexdigest() == digest


# --- the machine ---


@pytest.mark.parametrize(
    ("machine", "pointer_bytes", "found"),
    [
        ("x86_64", 8, (0xC000003E, 0)),
        ("aarch64", 8, (0xC00000B7, 1)),
        ("riscv64", 8, (0xC00000F3, 1)),
        ("armv7l", 4, (0x40000028, 2)),
        ("aarch64", 4, (0x40000028, 2)),
        ("x86_64", 4, None),
        ("ppc64le", 8, None),
        ("arm", 8, None),
    ],
)
def test_a_machine_is_known_by_its_name_and_its_pointers(
    monkeypatch: pytest.MonkeyPatch, machine: str, pointer_bytes: int, found: tuple[int, int] | None
) -> None:
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*here[:4], machine)))
    monkeypatch.setattr(kernel_filter.ctypes, "sizeof", lambda _: pointer_bytes)
    it = kernel_filter._machine()
    assert (None if it is None else (it.architecture, it.column)) == found


@pytest.mark.parametrize(
    ("kernel", "size", "files", "tcp", "scopes"),
    [
        (1, 8, 0x1FFF, 0, 0),
        (2, 8, 0x3FFF, 0, 0),
        (3, 8, 0x7FFF, 0, 0),
        (4, 16, 0x7FFF, 3, 0),
        (5, 16, 0xFFFF, 3, 0),
        (6, 24, 0xFFFF, 3, 3),
        (9, 24, 0xFFFF, 3, 3),
    ],
)
def test_each_version_of_landlock_is_asked_for_all_that_it_knows(
    kernel: int, size: int, files: int, tcp: int, scopes: int
) -> None:
    """landlock(7): rights of files came with versions 1, 2, 3 and 5, TCP with 4, scopes with 6."""
    ruleset = landlock._ruleset(kernel)
    assert (landlock._size(kernel), ruleset.files, ruleset.tcp, ruleset.scopes) == (size, files, tcp, scopes)
