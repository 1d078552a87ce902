"""A model that runs code wants out of the cage. Each way out is tried without the cage first, where it must work.

Whatever this machine's kernel offers is enforced: `cage.check` says what that is, and the test asks for no less.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import model_files
from whimbrel.cage import check, child
from whimbrel.errors import UntrustedInput
from whimbrel.stores.inspection import inspect

# What the attacker runs. `escaped()` ends with 0: the attack worked. Anything else: it did not.
_PREAMBLE = """
import ctypes, errno, mmap, os, signal, socket, sys, time
from pathlib import Path
from whimbrel.cage import walls

libc = ctypes.CDLL(None, use_errno=True)
place, held = Path(sys.argv[1]), []

def call(number, *arguments):
    answer = libc.syscall(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer

def machine_code(code):
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    held.append(page)
    return ctypes.CFUNCTYPE(ctypes.c_long)(address)

if sys.argv[2] == "caged":
    walls.enter(walls.Bounds(memory_bytes=2**30, cpu_s=20, readable=(place / "model",), kept=(1, 2), file_bytes=4096))
"""

_IS_X86 = os.uname().machine == "x86_64"
# mov eax, 2 (fork of 32-bit x86); int 0x80; cdqe; ret. The kernel answers where it was built with that architecture.
_FORK_32 = "b802000000cd804898c3"
# mov eax, 0x40000000 + 57 (fork of x32); syscall; ret
_FORK_X32 = "b8390000400f05c3"
_SAY_WHETHER_IT_FORKED = "os._exit(0 if number >= 0 else 7)"

_ATTACKS = {
    "fork": "os._exit(0 if os.fork() >= 0 else 1)",
    "fork by clone3": ("arguments = (ctypes.c_uint64 * 8)(0, 0, 0, 0, signal.SIGCHLD)\ncall(435, arguments, 64)"),
    "another program": "os.execv('/bin/true', ['true'])",
    "internet socket": "socket.socket(socket.AF_INET)",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "pair of sockets": "socket.socketpair()",
    "netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "io_uring": (
        "try:\n    call(425, 1, (ctypes.c_char * 120)())\n"
        "except OSError as error:\n    assert error.errno in {errno.EPERM, errno.ENOMEM} and sys.argv[2] == 'free'"
    ),
    "reading passwd": "Path('/etc/passwd').read_bytes()",
    "reading the offline keys": "(place / 'keys' / 'offline' / 'root.pem').read_bytes()",
    "reading the offline keys by a link": "(place / 'link').read_bytes()",
    "reading beside the model": "(place / 'beside').read_bytes()",
    "reading the parent's environment": "assert b'=' in Path(f'/proc/{os.getppid()}/environ').read_bytes()",
    "making a file": "(place / 'made').touch()",
    "writing to a file": "(place / 'writable').write_bytes(b'x')",
    "emptying a file": "os.truncate(place / 'writable', 0)",
    "removing a file": "(place / 'removable').unlink()",
    "renaming a file": "(place / 'removable').rename(place / 'renamed')",
    "linking to a file": "os.link(place / 'model', place / 'hard')",
    "making a folder": "(place / 'folder').mkdir()",
    "opening a file to anybody": "(place / 'keys').chmod(0o777)",
    "locking a file": "import fcntl\nfcntl.flock(os.open(place / 'model', os.O_RDONLY), fcntl.LOCK_EX)",
    "a descriptor of the parent": "assert os.read(int((place / 'descriptor').name and sys.argv[3]), 6) == b'secret'",
    "signalling the parent": "os.kill(os.getppid(), 0)",
    "signalling everybody": "os.kill(-os.getpgid(0), 0)",
    "leaving the session": "os.setsid()",
    "a signal by its owner": "import fcntl\nread, _ = os.pipe()\nfcntl.fcntl(read, fcntl.F_SETOWN, os.getppid())",
    "limits of the parent": "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
    "living on without its parent": "assert libc.prctl(1, 0, 0, 0, 0) == 0",
    "shared memory": "call(29 if os.uname().machine == 'x86_64' else 194, 0, 4096, 0o1600)",
}
_NEEDS_LANDLOCK = {
    "reading passwd",
    "reading the offline keys",
    "reading the offline keys by a link",
    "reading beside the model",
    "reading the parent's environment",
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a model, and what is none of the model's business."""
    (tmp_path / "keys" / "offline").mkdir(parents=True)
    (tmp_path / "keys" / "offline" / "root.pem").write_text("secret")
    for name in ("model", "beside", "writable", "removable", "descriptor"):
        (tmp_path / name).write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "keys" / "offline" / "root.pem")
    return tmp_path


def attack(code: str, place: Path, *, caged: bool) -> subprocess.CompletedProcess[str]:
    """Run the attack in a process like a probe's, in the cage or outside of it."""
    handle = os.open(place / "descriptor", os.O_RDONLY)
    try:
        return subprocess.run(
            [sys.executable, "-c", _PREAMBLE + code, str(place), "caged" if caged else "free", str(handle)],
            pass_fds=(handle,),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            start_new_session=not code.startswith("os.setsid"),
        )
    finally:
        os.close(handle)


@pytest.mark.parametrize("name", _ATTACKS)
def test_a_way_out_of_the_cage_that_works_outside_is_closed_inside(name: str, place: Path) -> None:
    free = attack(_ATTACKS[name], place, caged=False)
    assert free.returncode == 0, f"the attack does not work where there is no cage: {free.stderr[-500:]}"
    (place / "removable").write_text("secret")
    (place / "writable").write_text("secret")
    for made in ("made", "renamed", "hard"):
        (place / made).unlink(missing_ok=True)
    shutil.rmtree(place / "folder", ignore_errors=True)
    holds = check.walls_here()
    if name in _NEEDS_LANDLOCK and not holds.landlock:
        assert any(each.name == "files" and not each.holds for each in check.report()), "what does not hold is said"
        return
    caged = attack(_ATTACKS[name], place, caged=True)
    assert caged.returncode != 0, "the attack works in the cage"
    refusals = (
        "Operation not permitted",
        "Permission denied",
        "Function not implemented",
        "Bad file",
        "AssertionError",
    )
    assert any(words in caged.stderr for words in refusals), caged.stderr[-500:]
    assert (place / "writable").read_text() == (place / "removable").read_text() == "secret"
    assert not [made for made in ("made", "renamed", "hard", "folder") if (place / made).exists()]


@pytest.mark.parametrize("code", [_FORK_32, _FORK_X32], ids=["int 0x80", "x32"])
def test_calls_of_another_architecture_end_the_process(code: str, place: Path) -> None:
    """`int 0x80` forked in the cage: its numbers are those of 32-bit x86, which no rule was about."""
    if not _IS_X86:
        return  # these are other architectures of x86-64 processors; others have none that a filter has to know
    run = f"number = machine_code(bytes.fromhex('{code}'))()\n" + _SAY_WHETHER_IT_FORKED
    free = attack(run, place, caged=False).returncode
    caged = attack(run, place, caged=True).returncode
    # A kernel without the other architecture answers "no such call" (7), or ends the process by itself.
    assert free in ({0, -signal.SIGSEGV} if code == _FORK_32 else {0, 7})
    assert check.walls_here().filtered
    assert caged == (free if free == -signal.SIGSEGV else -signal.SIGSYS)


def test_a_real_program_in_c_that_forks_by_int_0x80_is_ended(place: Path) -> None:
    """The same through a compiler, where there is one: no trick of ctypes makes the test pass."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not _IS_X86:
        return  # the same attack in machine code runs above on every x86-64
    source, library = place / "fork.c", place / "fork.so"
    source.write_text(
        'long int80(void) { long r; __asm__ volatile ("int $0x80" : "=a"(r) : "a"(2) : "memory"); return (int)r; }\n'
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)
    run = "number = attack.int80()\n" + _SAY_WHETHER_IT_FORKED
    load = f"\nattack = ctypes.CDLL({str(library)!r})\n"
    before_the_walls = _PREAMBLE.replace("if sys.argv[2]", load + "if sys.argv[2]")
    for caged, ends in ((False, 0), (True, -signal.SIGSYS)):
        words = [sys.executable, "-c", before_the_walls + run, str(place), "caged" if caged else "free"]
        assert subprocess.run(words, timeout=60, check=False).returncode == ends


def test_virtual_sockets_reach_no_hypervisor(place: Path) -> None:
    """AF_VSOCK speaks to the host of a virtual machine, past every network namespace."""
    free = attack("socket.socket(40, socket.SOCK_STREAM)", place, caged=False)
    caged = attack("socket.socket(40, socket.SOCK_STREAM)", place, caged=True)
    assert free.returncode == 0 or "Address family not supported" in free.stderr  # the kernel may have no such sockets
    assert "Operation not permitted" in caged.stderr


def test_secrets_of_the_environment_do_not_reach_a_caged_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_TOKEN", "secret-of-the-parent")
    program = [sys.executable, "-c", "from pathlib import Path; print(Path('/proc/self/environ').read_bytes())"]
    inherited = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert "secret-of-the-parent" in inherited.stdout
    lean = subprocess.run(program, env=child.environment(), capture_output=True, text=True, check=True, timeout=60)
    assert "secret-of-the-parent" not in lean.stdout
    assert "PATH" in lean.stdout


def test_a_module_in_the_current_folder_is_not_taken_for_ours(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever brings a model may bring a `json.py` or a `whimbrel` beside it."""
    monkeypatch.chdir(place)
    (place / "msgspec.py").write_text("raise SystemExit('taken')")
    free = subprocess.run(
        [sys.executable, "-c", "import msgspec"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "taken" in free.stderr
    caged = subprocess.run(
        child.command("whimbrel.cage.check"), capture_output=True, text=True, timeout=60, check=True, cwd=place
    )
    assert json.loads(caged.stdout)


_DAEMON = """
import os, sys, time
from pathlib import Path
from whimbrel.cage import descendants
if sys.argv[2] == "adopted":
    assert descendants.adopt()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(sys.argv[1], "daemon").write_text(str(os.getpid()))
            time.sleep(1000)
        os._exit(0)
    os._exit(0)
place = Path(sys.argv[1], "daemon")
while not place.exists() or not place.read_text():
    time.sleep(0.01)
if sys.argv[2] == "adopted":
    descendants.end(child)
else:
    os.killpg(child, 9) if os.waitpid(child, os.WNOHANG) == (0, 0) else None
"""


@pytest.mark.parametrize("way", ["free", "adopted"])
def test_a_daemon_that_forked_twice_and_left_its_session_does_not_survive(way: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _DAEMON, str(tmp_path), way], check=True, timeout=60)
    daemon = int((tmp_path / "daemon").read_text())
    try:
        assert _lives(daemon) is (way == "free"), (
            "it must survive where nothing adopts it, and end where something does"
        )
    finally:
        if way == "free":
            os.kill(daemon, signal.SIGKILL)


def _lives(process: int) -> bool:
    until = time.monotonic() + 2
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True


_HOSTILE_LIBRARY = """
import os
from pathlib import Path

def safe_open(path, **_):
    try:
        key = Path(path).parent.joinpath("keys", "offline", "root.pem").read_text()
    except OSError as error:
        key = str(error)
    raise ValueError(f"key: {key}; token: {os.environ.get('WHIMBREL_TOKEN')}; folder: {os.getcwd()}")
"""


def test_a_model_that_is_inspected_beside_the_offline_keys_reads_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a bug of a format's library lets a model run has the publisher's rights: here the library itself is bad."""
    (place / "site").mkdir()
    (place / "site" / "safetensors.py").write_text(_HOSTILE_LIBRARY)
    monkeypatch.setenv("PYTHONPATH", str(place / "site"))
    monkeypatch.setenv("WHIMBREL_TOKEN", "token-of-the-publisher")
    model = model_files.safetensors(place / "tiny")
    with pytest.raises(UntrustedInput) as caged:
        inspect(model)
    assert "token: None; folder: /" in str(caged.value)
    if check.walls_here().landlock:
        assert "Permission denied" in str(caged.value)
    no_walls = "from whimbrel.cage import walls; walls.enter = lambda *_: None; "
    at_the_end = child._START.replace("runpy.run_module", f"{no_walls}runpy.run_module")
    monkeypatch.setattr(child, "_START", at_the_end)
    with pytest.raises(UntrustedInput, match="key: secret"):
        inspect(model)


def test_what_the_check_says_of_this_machine_is_what_the_kernel_answers() -> None:
    """A check that says too much would let the tests above pass over an open way."""
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
    assert check.walls_here().landlock == max(0, version)
