"""`whimbrel demo`: the whole journey on one machine, with everything real but the hours.

Three versions of a small classifier are trained; a server and two agents run as processes, hundreds of agents in this
one. v2 goes through its stages to everybody; v3, whose file is valid and whose probe passes, is caught in its canary by
what the devices report, and taken back. Every fact that is printed was checked; otherwise the exit status is not 0.
"""

import contextlib
import json as json_module
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.status import read_status
from whimbrel.cli.connect import Client, connect
from whimbrel.cli.output import Json, console, print_json, say, size_of, stderr
from whimbrel.cli.rollout import picture
from whimbrel.demo.deployment import LocalDeployment
from whimbrel.demo.digits import Digits, DigitsVersion, train
from whimbrel.demo.fleet import Classifier, PlayedFleet
from whimbrel.errors import Refused, Unavailable, UntrustedInput, WhimbrelError
from whimbrel.model.documents import convert, encode
from whimbrel.server.admin.views.rollouts import RolloutView

MODEL = "digits"
SALT = 42  # with the fixed device ids: the same devices are the canary in every demo
_REFRESH_S, _REPORT_S, _USE_S = 2.5, 2.0, 2.0
_PROCESSES = 2
_HOUR_S = 1.0  # an hour of the plans, played as a second
_PATIENCE_S = 240.0  # for one chapter, on a busy machine
_SEED = 7
_MOST_DEVICES = 2000  # in one process, with state folders of their own


class Facts(msgspec.Struct):
    """What the demo claims. `failed`: claims that did not hold."""

    devices: int = 0
    promoted: bool = False
    rolled_back: bool = False
    devices_exposed_to_bad_version: int = 0
    seconds_to_verdict: float | None = None
    seconds_to_last_device_back: float | None = None
    bytes_moved: int = 0
    bytes_of_good_version: int = 0  # what v2 cost, as a delta
    bytes_of_good_version_whole: int = 0  # what it would have cost as whole files
    seconds: float = 0.0
    failed: list[str] = msgspec.field(default_factory=list)

    def check(self, held: object, claim: str) -> None:
        """Write down a claim that does not hold."""
        if not held:
            self.failed.append(claim)


def demo(
    devices: Annotated[int, typer.Option(min=20, max=_MOST_DEVICES, help="Agents, two of them as processes.")] = 302,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server and the folder; Ctrl-C ends.")] = False,
    json: Json = False,
) -> None:
    """Watch a version travel to a fleet in stages, and a bad one be caught and taken back. Takes about two minutes."""
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-demo-"))
    stage = _Stage(folder, devices=devices, live=not json and console.is_terminal)
    try:
        with _termination_is_an_exception():
            stage.play()
            _tell(stage, json=json)
            if keep:
                _keep(stage)
    finally:
        stage.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if stage.facts.failed:
        raise Refused("the demo's claims did not all hold: " + "; ".join(stage.facts.failed))


class _Stage:
    """The demo's world: processes, fleet, and what was seen."""

    def __init__(self, folder: Path, *, devices: int, live: bool) -> None:
        self.folder = folder
        self.house = LocalDeployment(folder, say=self._say)
        self.facts = Facts(devices=devices)
        self.timeline: list[tuple[float, dict[int | None, int]]] = []
        self.begun = time.time()
        self._fleet: PlayedFleet | None = None
        self._outside = [folder / "devices" / f"process-{number + 1}" for number in range(_PROCESSES)]
        self._probes = ProbeServer()
        self._live = Live(console=console, refresh_per_second=4) if live else None
        self._chapter = self._said = ""

    # --- the play ---

    def play(self) -> None:
        """All of it."""
        self._probes.start()  # before any thread exists: it forks
        self._say("training three versions of a classifier of handwritten digits")
        digits = train(self.folder / "models")
        for version in digits.versions:
            self._say(f"  {version.name}: accuracy {version.accuracy:.3f} by its publisher's measure")
        self.house.run("init", str(self.house.repository))
        self.house.serve()
        cadence = ["--refresh-s", str(_REFRESH_S), "--report-s", str(_REPORT_S), "--salt", str(SALT)]
        self.house.run("model", "add", MODEL, *cadence, *self.house.keys())
        self._publish(digits.v1)
        self._start_fleet(digits)
        with self._live or contextlib.nullcontext(), self._client() as client:
            self._watch(client, "every device takes v1, the baseline", until=lambda _: self._all_on(1))
            self._good_version(client, digits.v2)
            self._bad_version(client, digits.v3)
            self.facts.bytes_moved = _sent(client)
        self.facts.seconds = round(time.time() - self.begun, 1)

    def _good_version(self, client: Client, version: DigitsVersion) -> None:
        self._publish(version)
        before = _sent(client)
        rollout = self._start(version)
        seen = self._watch(client, "v2 goes out in stages", rollout, until=_over)
        self.facts.check(seen["state"] == "completed", f"v2 was promoted (it is {seen['state']}: {seen['because']})")
        stages = [entry for entry in client.get("audit", rollout=rollout) if entry["action"] in {"advance", "finish"}]
        self.facts.check(len(stages) == len(seen["stages"]), "every stage was judged before the next one began")
        self._watch(client, "the holdback follows: v2 is the baseline", until=lambda _: self._all_on(2))
        self.facts.bytes_of_good_version = _sent(client) - before
        self.facts.bytes_of_good_version_whole = self.facts.devices * version.path.stat().st_size
        self.facts.check(
            0 < self.facts.bytes_of_good_version < self.facts.bytes_of_good_version_whole / 5,
            "v2 travelled as a delta",
        )
        self.facts.promoted = seen["state"] == "completed" and self._all_on(2)
        self.facts.check(self._all_on(2), "every device ended on v2")

    def _bad_version(self, client: Client, version: DigitsVersion) -> None:
        self._publish(version)
        rollout = self._start(version)
        seen = self._watch(client, "v3 is tried on its canary", rollout, until=_over)
        self.facts.rolled_back = seen["state"] == "rolled_back"
        self.facts.check(self.facts.rolled_back, f"v3 was taken back (it is {seen['state']}: {seen['because']})")
        self._watch(client, "devices return to v2", rollout, until=lambda _: self._all_on(2))
        self.facts.check(self._all_on(2), "every device went back to v2")
        fleet = self._playing()
        exposed = fleet.seen.ever.get(3, set())
        self.facts.devices_exposed_to_bad_version = len(exposed)
        self.facts.check(exposed, "v3 ran on devices at all")
        self.facts.check(len(exposed) <= max(10, 0.15 * self.facts.devices), "v3 never left its canary")
        entries = client.get("audit", rollout=rollout)
        verdict = next((entry for entry in entries if entry["action"] == "roll_back"), None)
        self.facts.check(verdict and verdict["actor"] == "gate", "the gate pulled the cord, not a person")
        first_bad = fleet.seen.first_bad.get(3)
        if verdict and first_bad is not None and 3 in fleet.seen.left:
            self.facts.seconds_to_verdict = round(verdict["at"] - first_bad, 1)
            self.facts.seconds_to_last_device_back = round(fleet.seen.left[3] - first_bad, 1)
        self.facts.check(self.facts.seconds_to_verdict is not None, "the time to the verdict was seen")
        try:
            self._start(version)
            self.facts.check(False, "v3 is refused from now on")
        except Refused as error:
            self._say(f"starting v3 again is refused: {error}")

    # --- parts ---

    def _publish(self, version: DigitsVersion) -> None:
        card = version.path.with_suffix(".card.json")
        card.write_bytes(encode(version.card))
        self.house.run("publish", "--model", MODEL, str(version.path), "--card", str(card), *self.house.keys())

    def _start(self, version: DigitsVersion) -> str:
        plan = self.folder / f"{version.name}.yaml"
        plan.write_text(_PLAN.format(version=version.semantic_version))
        made: dict[str, Any] = json_module.loads(
            self.house.run("rollout", "start", str(plan), "--hour-s", str(_HOUR_S), "--json")
        )
        self._say(f"    started {made['id']}: {made['baseline']} -> {made['target']}")
        return str(made["id"])

    def _start_fleet(self, digits: Digits) -> None:
        house, root = self.house, self.house.repository / "root.json"
        for folder in self._outside:
            self._say(f"$ whimbrel agent run --folder ./devices/{folder.name} ...      (and an app beside it)")
            house.spawn(
                "whimbrel.cli",
                "agent",
                "run",
                "--folder",
                str(folder),
                "--server",
                house.server_url,
                "--root",
                str(root),
                "--model",
                MODEL,
                "--device-id",
                folder.name,
                environment={"WHIMBREL_ENROL_TOKEN": house.enrol_token},
            )
            house.spawn("whimbrel.demo.app_process", str(folder), MODEL, str(_USE_S))
        inside = self.facts.devices - _PROCESSES
        self._say(f"{inside} agents in this process, each with a folder of its own")
        agents = house.open_agents(inside, model=MODEL, probes=self._probes)
        app = Classifier(digits.images, digits.labels, model=MODEL)
        self._fleet = PlayedFleet(agents, app, use_every_s=_USE_S, seed=_SEED)
        self._fleet.start(spread_s=_REFRESH_S)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        with connect(
            repository=None,
            server=self.house.admin_url,
            token_file=self.house.repository / "admin.token",
            namespace=None,
            keys=None,
        ) as client:
            yield client

    # --- watching ---

    def _playing(self) -> PlayedFleet:
        if self._fleet is None:
            raise Unavailable("the fleet was not started")
        return self._fleet

    def _all_on(self, serial: int) -> bool:
        running = self._playing().seen.running
        return len(running) == self.facts.devices and set(running.values()) == {serial}

    def _watch(self, client: Client, chapter: str, rollout: str = "", *, until: Any) -> dict[str, Any]:
        """Look every half second until `until` holds; gives up after a while, and the facts then say so."""
        self._say(chapter)
        self._chapter = chapter
        deadline = time.time() + _PATIENCE_S
        while True:
            seen: dict[str, Any] = client.get(f"rollouts/{rollout}") if rollout else {}
            self._observe_processes()
            self.timeline.append((time.time() - self.begun, self._playing().seen.counts()))
            if self._live:
                self._live.update(self._picture(seen))
            if until(seen) or time.time() > deadline:
                if seen and seen["because"] != self._said:
                    self._said = seen["because"]
                    self._say(f"  {seen['state']}: {seen['because']}")
                return seen
            time.sleep(0.5)

    def _observe_processes(self) -> None:
        for folder in self._outside:
            with contextlib.suppress(WhimbrelError):
                serial = read_status(folder)["models"][MODEL]["serial"]
                self._playing().seen.runs(folder.name, serial, at=time.time())

    def _picture(self, seen: dict[str, Any]) -> Group:
        counts = self._playing().seen.counts()
        bars = Table(box=None, show_header=False)
        for serial in sorted({*counts, 1, 2, 3}, key=lambda each: each or 0):
            number = counts.get(serial, 0)
            color = {1: "cyan", 2: "green", 3: "red"}.get(serial or 0, "white")
            width = round(50 * number / self.facts.devices)
            bars.add_row(f"v{serial}" if serial else "none", str(number), Text("█" * width, style=color))
        parts: list[Any] = [Text(f"{time.time() - self.begun:5.0f} s  {self._chapter}", style="bold"), bars]
        if seen:
            parts.append(picture(convert(RolloutView, seen, what="a rollout")))
        return Group(*parts)

    def _say(self, text: str) -> None:
        (self._live.console if self._live else stderr).print(text, markup=False, highlight=False)

    def close(self) -> None:
        """End everything that was started here."""
        if self._fleet is not None:
            self._fleet.stop()
            self._fleet = None
        self._probes.close()
        self.house.close()


_PLAN = """\
rollout:
  model_version: "digits-v{version}"
  stages:
    - name: canary
      target_percent: 5
      duration_hours: 10
      success_criteria: {{accuracy_drop_max: 0.02, error_rate_max: 0.02}}
    - name: early_adopters
      target_percent: 25
      duration_hours: 10
    - name: general
      target_percent: 100
      duration_hours: 10
  rollback: {{auto_rollback: true, health_check_interval_sec: 1}}
"""


def _sent(client: Client) -> int:
    """Artifact bytes that the server has sent so far."""
    return int(client.get("status")["sent"]["artifact_bytes"])


def _over(seen: dict[str, Any]) -> bool:
    return bool(seen["ended"])


def _tell(stage: _Stage, *, json: bool) -> None:
    facts = stage.facts
    summary = {"ok": not facts.failed, **msgspec.to_builtins(facts)}
    if json:
        print_json(summary)
        return
    table = Table("second", "v1", "v2", "v3", "none", title="devices per version", box=None, title_justify="left")
    last: dict[int | None, int] = {}
    for second, counts in stage.timeline:
        if counts != last:
            table.add_row(f"{second:.0f}", *(str(counts.get(serial, 0)) for serial in (1, 2, 3, None)))
        last = counts
    if len(table.rows) <= 60:
        console.print(table)
    else:
        console.print(_thinned(stage))
    whole = size_of(facts.bytes_of_good_version_whole)
    saved = 100 * (1 - facts.bytes_of_good_version / max(1, facts.bytes_of_good_version_whole))
    rows = [
        ("devices", f"{facts.devices}, {_PROCESSES} of them processes of their own"),
        ("v2", "promoted through 5% -> 25% -> 100%" if facts.promoted else "not promoted"),
        ("v3", "caught in its canary, taken back, quarantined" if facts.rolled_back else "not taken back"),
        ("devices that ever ran v3", str(facts.devices_exposed_to_bad_version)),
        ("first bad answer to verdict", f"{facts.seconds_to_verdict} s"),
        ("first bad answer to last device back", f"{facts.seconds_to_last_device_back} s"),
        ("v2 moved, as a delta", f"{size_of(facts.bytes_of_good_version)} instead of {whole}: {saved:.1f}% saved"),
        ("model bytes moved in all", size_of(facts.bytes_moved)),
        ("all of it took", f"{facts.seconds} s"),
    ]
    closing = Table(show_header=False, box=None)
    for row in rows:
        closing.add_row(*row)
    console.print(closing)
    say("every claim was checked" if not facts.failed else "NOT TRUE: " + "; ".join(facts.failed))


def _thinned(stage: _Stage) -> Table:
    table = Table("second", "v1", "v2", "v3", "none", title="devices per version", box=None, title_justify="left")
    step = max(1, len(stage.timeline) // 40)
    for index, (second, counts) in enumerate(stage.timeline):
        if index % step == 0 or index == len(stage.timeline) - 1:
            table.add_row(f"{second:.0f}", *(str(counts.get(serial, 0)) for serial in (1, 2, 3, None)))
    return table


def _keep(stage: _Stage) -> None:
    say(f"the server stays: {stage.house.admin_url} (token in {stage.house.repository}/admin.token); Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


@contextlib.contextmanager
def _termination_is_an_exception() -> Iterator[None]:
    """A SIGTERM unwinds like a Ctrl-C, so that nothing that was started stays behind."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise UntrustedInput("the demo was stopped") from None
    finally:
        signal.signal(signal.SIGTERM, before)
