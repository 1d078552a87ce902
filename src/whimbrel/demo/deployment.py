"""A whole deployment on this machine: a repository, its server as a process, and agents beside it, all of them real.

1. Commands run as a user would type them, in processes of their own. `echo` gets each command and what it printed.
2. The server starts with the offline keys taken away.
3. `close` ends all processes that were started here, the newest first.

Called by the demo and by benchmarks of the whole system. Everything listens on 127.0.0.1.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import urllib3

from whimbrel.agent.app import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.probes import ProbeServer
from whimbrel.demo.fleet import open_fleet
from whimbrel.errors import Refused, Unavailable

_COMMAND_S = 120.0
_END_S = 10.0
_CONNECTIONS = 16  # of all agents of this process together


class LocalDeployment:
    """A folder with a repository in it, and the processes that serve and use it."""

    def __init__(self, folder: Path, *, echo: Callable[[str], None]) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.server_url = self.admin_url = ""
        self._echo = echo
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, *words: str) -> str:
        """Run a command. Returns its output. Raises `Refused` with the command's own message where it fails."""
        self._echo(f"$ whimbrel {shlex.join(word.replace(str(self.folder), '.') for word in words)}")
        done = subprocess.run(
            [sys.executable, "-m", "whimbrel.cli", *words],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_S,
        )
        if done.returncode:
            raise Refused(done.stderr.strip().removeprefix("whimbrel: ") or f"{words[0]} exited with {done.returncode}")
        for line in [] if "--json" in words else done.stdout.strip().splitlines():
            self._echo(f"    {line}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        named = {"WHIMBREL_REPOSITORY": str(self.repository)}
        if self.admin_url:
            token = (self.repository / "admin.token").read_text().strip()
            named = {"WHIMBREL_SERVER": self.admin_url, "WHIMBREL_TOKEN": token}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL_")}
        return kept | named

    def serve(self) -> None:
        """Take the offline keys away and start the server. Raises `Unavailable` where the server does not start."""
        keys = self.repository / "keys" / "offline"
        keys.rename(self._offline)
        log = (self.folder / "server.log").open("w")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "whimbrel.cli",
                "serve",
                str(self.repository),
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        line = process.stdout.readline() if process.stdout else ""
        words = line.split()
        if len(words) < 4:
            raise Unavailable(f"the server did not start: {(self.folder / 'server.log').read_text()[-500:].strip()}")
        self.server_url, self.admin_url = words[1].rsplit("/", 1)[0], words[3]
        self._echo(f"$ whimbrel serve ./repository      (process {process.pid}, keys/offline taken away)")

    @property
    def _offline(self) -> Path:
        return self.folder / "offline-keys"

    def keys(self) -> list[str]:
        """The arguments that name the folder of the offline keys; none before `serve`, which moves that folder."""
        return ["--keys", str(self._offline)] if self._offline.exists() else []

    def spawn(self, module: str, *words: str, environment: dict[str, str] | None = None) -> None:
        """Start a process that runs until `close`. Its output goes into a file of the folder."""
        log = (self.folder / f"{module}-{len(self._processes)}.log").open("w")
        self._processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=dict(os.environ) | (environment or {}),
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        )

    @property
    def enrol_token(self) -> str:
        """The token with which devices enrol."""
        return (self.repository / "enrol.token").read_text().strip()

    def open_agents(self, count: int, *, model: str, probes: ProbeServer) -> list[Agent]:
        """Open agents in this process, each with a folder of its own."""
        token, root = self.enrol_token, self.repository / "root.json"
        pool = urllib3.PoolManager(maxsize=_CONNECTIONS, retries=False)

        def open_one(folder: Path, name: str, labels: dict[str, str]) -> Agent:
            return Agent.open(
                folder,
                AgentOptions(
                    server=self.server_url,
                    root=root,
                    models=(model,),
                    device_id=name,
                    labels=labels,
                    enrol_token=token,
                    probes=probes,
                    pool=pool,
                    durable_sessions=False,
                    self_measures=False,  # what this process holds is of all agents together
                ),
            )

        return open_fleet(self.folder / "devices", devices=count, open_one=open_one)

    def close(self) -> None:
        """End every process that was started here."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        self._processes.clear()
