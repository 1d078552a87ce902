"""Each extra, and the package without any, from the built wheel in a clean environment: works or names what it lacks.

The environments hold nothing but what `pip install 'whimbrel[...]'` would bring; versions are those of the lock file.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from support.repository import onnx_model
from whimbrel.model.ways import NOTHING
from whimbrel.server.addresses import bind

PROJECT = Path(__file__).parents[3]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SERVER_COMMANDS = (
    "init", "model", "publish", "version", "rollout", "experiment", "gate", "forecast", "feedback", "alert", "serve",
    "migrate", "audit", "device", "keys", "collect", "bundle", "simulate",
)  # fmt: skip


_HELP_OF_MANY = """
import contextlib, io, json, sys
from whimbrel.cli.app import main
for command in sys.argv[1:]:
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["whimbrel", command, "--help"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


class Installed:
    """An environment with the wheel and one set of extras in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run_python("-m", "whimbrel.cli", *command, **environment)

    def run_python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=self._folder,
            env=self.environment(**environment),
        )

    def help_of(self, *commands: str) -> dict[str, subprocess.CompletedProcess[str]]:
        """What `whimbrel COMMAND --help` answers, all in one process: most of such a command's time is its imports."""
        lines = works(self.run_python("-c", _HELP_OF_MANY, *commands)).stdout.splitlines()
        answers = {}
        for command, line in zip(commands, lines, strict=True):
            status, out, err = json.loads(line)
            answers[command] = subprocess.CompletedProcess([command], status, out, err)
        return answers

    def environment(self, **more: str) -> dict[str, str]:
        left_out = {"PYTHONPATH", "VIRTUAL_ENV", "WHIMBREL_REPOSITORY"}
        return {**{name: value for name, value in os.environ.items() if name not in left_out}, **more}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(out), str(PROJECT))
    return next(out.glob("whimbrel-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installed]:
    """Makes the environment with the named extras ("" for none); each is made once."""
    made: dict[str, Installed] = {}

    def make(extras: str) -> Installed:
        if extras not in made:
            folder = tmp_path_factory.mktemp("environment") / "venv"
            _uv("venv", "--python", sys.executable, str(folder))
            environment = Installed(folder)
            wanted = f"whimbrel[{extras}] @ {wheel.as_uri()}" if extras else f"whimbrel @ {wheel.as_uri()}"
            pins = folder.parent / "pins.txt"
            pins.write_text(_pins())
            _uv("pip", "install", "--python", str(environment.python), "--constraint", str(pins), wanted)
            made[extras] = environment
        return made[extras]

    return make


def _pins() -> str:
    """The lock file's versions without its hashes: a constraint file with hashes would ask for the wheel's own, too."""
    lines = (PROJECT / "requirements" / "dev.txt").read_text().splitlines()
    return "".join(f"{line.removesuffix(chr(92)).strip()}\n" for line in lines if line[:1] not in {"", " ", "#"})


_PIPS_SETTINGS = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}


def _uv(*arguments: str) -> None:
    """Run uv, which installs in seconds, from where `make setup` lets pip install from."""
    settings = {ours: os.environ[pips] for pips, ours in _PIPS_SETTINGS.items() if os.environ.get(pips)}
    done = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**settings, **os.environ},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def names_the_extra(done: subprocess.CompletedProcess[str], extra: str, command: str = "") -> None:
    """One sentence that names the extra, and the status of what is not available."""
    assert "Traceback" not in done.stderr, (command, done.stderr[-2000:])
    assert done.returncode == 3, (command, done.stdout, done.stderr)
    assert f"pip install 'whimbrel[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def works(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, (done.stdout[-1000:], done.stderr[-3000:])
    return done


# --- the package without an extra: a device ---


def test_without_an_extra_the_agent_works(installed: Callable[[str], Installed]) -> None:
    base = installed("")
    works(base.run("--help"))
    works(base.run("agent", "--help"))
    works(base.run_python("-c", "from whimbrel import Agent; Agent.open"))


def test_without_an_extra_a_servers_commands_name_it(installed: Callable[[str], Installed]) -> None:
    for command, done in installed("").help_of(*SERVER_COMMANDS).items():
        names_the_extra(done, "server", command)


def test_without_an_extra_the_demo_and_patches_name_theirs(
    installed: Callable[[str], Installed], tmp_path: Path
) -> None:
    """`whimbrel delta` was a traceback, since it imports the codec only when it works."""
    base = installed("")
    names_the_extra(base.run("demo"), "demo")
    works(base.run("delta", "--help"))
    before, after = _two_files(tmp_path)
    names_the_extra(base.run("delta", "encode", str(before), str(after), str(tmp_path / "patch")), "delta")


# --- extras of a device ---


def test_the_extra_for_patches_makes_and_applies_them(installed: Callable[[str], Installed], tmp_path: Path) -> None:
    before, after = _two_files(tmp_path)
    patch, out = tmp_path / "patch", tmp_path / "out"
    here = installed("delta")
    works(here.run("delta", "encode", str(before), str(after), str(patch)))
    works(here.run("delta", "apply", str(before), str(patch), str(out)))
    assert out.read_bytes() == after.read_bytes()
    assert patch.stat().st_size < after.stat().st_size / 10
    works(here.run_python("-c", "from whimbrel.agent.assembly import can_patch; assert can_patch()"))


@pytest.mark.parametrize(
    ("extra", "module"),
    [
        ("onnx", "whimbrel.agent.probes.runtimes.onnxruntime"),
        ("litert", "whimbrel.agent.probes.runtimes.litert"),
        ("gguf", "whimbrel.agent.probes.structure.gguf"),
        ("safetensors", "whimbrel.agent.probes.structure.safetensors"),
        ("coreml", "whimbrel.agent.probes.formats"),
    ],
)
def test_the_extra_of_a_runtime_brings_what_its_probe_imports(
    installed: Callable[[str], Installed], extra: str, module: str
) -> None:
    here = installed(extra)
    works(here.run_python("-c", f"import {module}, {_PACKAGES[extra]}"))
    answers = here.help_of("agent", "serve")
    assert answers["agent"].returncode == 0, answers["agent"].stderr
    names_the_extra(answers["serve"], "server")


_PACKAGES = {
    "onnx": "onnxruntime, numpy",
    "litert": "ai_edge_litert.interpreter, numpy",
    "gguf": "gguf, numpy",
    "safetensors": "safetensors",
    "coreml": "coremltools",
}


# --- a server ---


def test_the_extra_for_servers_is_all_that_a_servers_commands_need(installed: Callable[[str], Installed]) -> None:
    """`pip install 'whimbrel[server]'` was dead: each command said that numpy is missing, and advised the same."""
    for command, done in installed("server").help_of(*SERVER_COMMANDS).items():
        assert done.returncode == 0, (command, done.stderr[-2000:])
        assert f"whimbrel {command}" in done.stdout


def test_the_extra_for_servers_names_the_demos(installed: Callable[[str], Installed]) -> None:
    names_the_extra(installed("server").run("demo", "--devices", "20"), "demo")


def test_the_demos_extra_is_all_that_the_demo_needs(installed: Callable[[str], Installed], tmp_path: Path) -> None:
    """The story itself is played by test_demo.py; here are its start, and the work that needs the extra's packages."""
    here = installed("demo")
    assert here.help_of("demo")["demo"].returncode == 0
    training = "import pathlib, sys; from whimbrel.demo.digits import train; train(pathlib.Path(sys.argv[1]))"
    works(here.run_python("-c", training, str(tmp_path)))
    assert (tmp_path / "v3" / "digits.onnx").stat().st_size > 0


def test_a_server_alone_serves_and_makes_patches(installed: Callable[[str], Installed], tmp_path: Path) -> None:
    """The whole way with [server] alone: a repository, two versions, a server on uvloop, and a patch between them."""
    here, folder = installed("server"), tmp_path / "repository"
    repository = {"WHIMBREL_REPOSITORY": str(folder)}
    works(here.run("init", str(folder)))
    works(here.run("model", "add", "wake", **repository))
    for number in (1, 2):
        model = tmp_path / f"wake-{number}.onnx"
        model.write_bytes(onnx_model(factor=float(number), padding=200_000))
        semantic = f"{number}.0.0"
        works(here.run("publish", "--model", "wake", str(model), "--semantic-version", semantic, **repository))
    with _serving(here, folder) as process:
        if sys.platform == "linux":
            assert "uvloop" in Path(f"/proc/{process.pid}/maps").read_text()
        deadline = time.monotonic() + 90
        while not _patches(folder) and time.monotonic() < deadline:
            assert process.poll() is None, "the server ended"
            time.sleep(0.5)
    assert _patches(folder), "no patch was made"


def _patches(folder: Path) -> list[dict[str, object]]:
    """The patches from version to version that the model's signed delta indexes name."""
    indexes = [json.loads(path.read_bytes()) for path in folder.glob("files/default/targets/deltas/wake/*.json")]
    return [step for index in indexes for step in index["steps"] if step["base"] != NOTHING]


@contextmanager
def _serving(here: Installed, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with bind("127.0.0.1:0") as devices, bind("127.0.0.1:0") as admin:
        listen, admin_listen = (f"127.0.0.1:{opened.getsockname()[1]}" for opened in (devices, admin))
    command = [str(here.python), "-m", "whimbrel.cli", "serve", str(folder)]
    process = subprocess.Popen(
        [*command, "--listen", listen, "--admin-listen", admin_listen],
        env=here.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not _answers(f"http://{listen}/healthz"):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _two_files(folder: Path) -> tuple[Path, Path]:
    """Two versions of a model: half of a million random bytes, of which a few are another."""
    before, after = folder / "before.bin", folder / "after.bin"
    content = bytearray(Random(1).randbytes(500_000))
    before.write_bytes(content)
    content[1000:1010] = bytes(10)
    after.write_bytes(content)
    return before, after
