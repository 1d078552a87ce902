"""The command line in this process, and a real server in a thread."""

import asyncio
import atexit
import contextlib
import functools
import io
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from support.repository import onnx_model
from whimbrel.cli.app import main
from whimbrel.server.app import Served, running
from whimbrel.server.config import Folder
from whimbrel.server.event_loop import new_event_loop


class Said(msgspec.Struct):
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def whimbrel(*arguments: object) -> Said:
    """Run a command; `status` is the process's exit status."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    status: object = 0
    sys.argv = ["whimbrel", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.argv = before
    assert status is None or isinstance(status, int)
    return Said(status or 0, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Any:
    """Run a command with --json that must succeed; its answer."""
    said = whimbrel(*arguments, "--json")
    assert (said.status, said.err) == (0, "")
    return said.json


def repository(folder: Path, *, versions: int = 2) -> Path:
    """A new repository with a model `wake` and some versions of it: a copy, as publishing takes seconds."""
    made = _made(versions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, versions + 1):
        model_file(folder.parent, number)
    return Path(shutil.copytree(made, folder))


@functools.cache
def _made(versions: int) -> Path:
    within = tempfile.TemporaryDirectory(prefix="whimbrel-tests-")
    atexit.register(within.cleanup)
    folder = Path(within.name) / "repo"
    if versions == 0:
        done("init", folder)
        return folder
    shutil.copytree(_made(versions - 1), folder)
    if versions == 1:
        done("model", "add", "wake", "-R", folder, "--salt", 42)
    number = f"{versions}.0.0"
    done("publish", "-m", "wake", model_file(folder.parent, versions), "-R", folder, "--semantic-version", number)
    return folder


def model_file(folder: Path, number: int, *, size: int = 0) -> Path:
    path = folder / f"wake-{number}.onnx"
    path.write_bytes(onnx_model(factor=float(number), padding=size))
    return path


def plan_file(folder: Path, version: str = "wake@2.0.0", *, more: str = "") -> Path:
    path = folder / "plan.yaml"
    path.write_text(
        f'rollout:\n  model_version: "{version}"\n  stages:\n'
        "    - {name: canary, target_percent: 5, duration_hours: 24}\n"
        f"    - {{name: all, target_percent: 100}}\n{more}"
    )
    return path


class Running(msgspec.Struct, frozen=True):
    """A server's two addresses, and its folder."""

    devices: str
    admin: str
    folder: Path
    credentials: dict[str, dict[str, str]] = {}  # of devices that `enrolled` made

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {(self.folder / 'admin.token').read_text().strip()}"}

    def people(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.admin}/default/admin/v1", headers=self.bearer, trust_env=False, timeout=30)

    def public(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.devices}/default", trust_env=False, timeout=30)

    def enrolled(self, device: str = "dev-1", **labels: str) -> httpx.Client:
        """A client with a device's token. A device that is enrolled already shows its credential."""
        with self.public() as http:
            token = (self.folder / "enrol.token").read_text().strip()
            before = self.credentials.get(device)
            known = {} if before is None else {"credential": before["credential"]}
            body = {"device_id": device, "enrol_token": token, "takes_cohort_key": True, "labels": labels} | known
            self.credentials[device] = http.post("/device/v1/enrol", json=body).raise_for_status().json()
            held = http.post("/device/v1/token", json=self.credentials[device]).raise_for_status().json()
        client = self.public()
        client.headers["authorization"] = f"Bearer {held['token']}"
        return client


@contextlib.contextmanager
def serving(folder: Path, **served: Any) -> Iterator[Running]:
    """The whole server on ports of its own, in a thread. `served`: further fields of `Served`."""
    ready: list[Running | BaseException] = []
    event = threading.Event()
    stop: list[Any] = []

    async def serve() -> None:
        ended = asyncio.Event()
        stop.extend((asyncio.get_running_loop(), ended))
        async with running(Folder.open(folder), Served("127.0.0.1:0", "127.0.0.1:0", **served)) as listening:
            ready.append(Running(listening.devices, listening.admin, folder))
            event.set()
            await ended.wait()

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:
            ready.append(error)
            event.set()

    thread = threading.Thread(target=work)
    thread.start()
    event.wait(30)
    try:
        if isinstance(ready[0], BaseException):
            raise ready[0]
        yield ready[0]
    finally:
        if thread.is_alive():
            stop[0].call_soon_threadsafe(stop[1].set)
        thread.join(30)
