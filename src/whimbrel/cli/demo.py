"""`whimbrel demo`: tell the story of demo/story.py on this terminal, and print what was checked.

The exit status is not 0 where a claim did not hold.
"""

import contextlib
import importlib.util
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whimbrel.cli.connect import connect
from whimbrel.cli.output import Json, console, percent, print_json, say, size_of, stderr
from whimbrel.cli.rollout import picture
from whimbrel.demo.story import PROCESSES, Facts, Scene, Story
from whimbrel.errors import Refused, UntrustedInput

_DEVICES_MAX = 2000  # in one process, with state folders of their own
_ROWS_MAX = 60  # of the closing table; longer ones are thinned out
_COLOURS = {1: "cyan", 2: "green", 3: "red"}
_PACKAGES = ("sklearn", "skl2onnx", "onnx", "onnxruntime")  # what trains, writes and runs the demo's models
_SERIALS = (1, 2, 3, None)


def demo(
    devices: Annotated[int, typer.Option(min=20, max=_DEVICES_MAX, help="Agents, two of them as processes.")] = 302,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server and the folder; Ctrl-C ends.")] = False,
    json: Json = False,
) -> None:
    """Watch a version travel to a fleet in stages, and a bad one be caught and taken back. Takes about two minutes."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:  # before anything is begun; cli/app.py names the extra
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-demo-"))
    screen = _Terminal(live=not json and console.is_terminal, devices=devices)
    story = Story(folder, devices=devices, screen=screen)
    try:
        with _termination_is_an_exception():
            story.prepare()
            deployment = story.deployment
            token = deployment.repository / "admin.token"
            with (
                screen,
                connect(server=deployment.admin_url, token_file=token) as client,
            ):
                story.tell(client)
            _print_facts(story, json=json)
            if keep:
                say(f"the server stays: {deployment.admin_url} (token in {token}); Ctrl-C ends it")
                say(f"its console, in a browser: {deployment.admin_url}/default/ (sign in with the token)")
                with contextlib.suppress(KeyboardInterrupt):
                    signal.pause()
    finally:
        story.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if story.facts.failed:
        raise Refused("the demo's claims did not all hold: " + "; ".join(story.facts.failed))


class _Terminal:
    """A live picture on a terminal; elsewhere only the lines, on standard error."""

    def __init__(self, *, live: bool, devices: int) -> None:
        self._live = Live(console=console, refresh_per_second=4) if live else None
        self._devices = devices

    def __enter__(self) -> None:
        if self._live:
            self._live.start(refresh=False)

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def print_line(self, text: str) -> None:
        (self._live.console if self._live else stderr).print(text, markup=False, highlight=False)

    def show(self, scene: Scene) -> None:
        if self._live:
            self._live.update(self._picture(scene))

    def _picture(self, scene: Scene) -> Group:
        counts = scene.devices_by_serial
        bars = Table(box=None, show_header=False)
        for serial in sorted({*counts, 1, 2, 3}, key=lambda serial: serial or 0):
            number = counts.get(serial, 0)
            width = round(50 * number / self._devices)
            bar = Text("█" * width, style=_COLOURS.get(serial or 0, "white"))
            bars.add_row(f"v{serial}" if serial else "none", str(number), bar)
        blocks: list[Any] = [Text(f"{scene.second:5.0f} s  {scene.chapter}", style="bold"), bars]
        if scene.rollout is not None:
            blocks.append(picture(scene.rollout))
        return Group(*blocks)


def _print_facts(story: Story, *, json: bool) -> None:
    facts = story.facts
    if json:
        print_json({"ok": not facts.failed, **msgspec.to_builtins(facts)})
        return
    console.print(_timeline(story.timeline))
    closing = Table(show_header=False, box=None)
    for name, value in _rows(facts):
        closing.add_row(name, value)
    console.print(closing)
    say("every claim was checked" if not facts.failed else "NOT TRUE: " + "; ".join(facts.failed))


def _rows(facts: Facts) -> list[tuple[str, str]]:
    moved, whole = facts.bytes_of_good_version, facts.bytes_of_good_version_whole
    saved = 1 - moved / max(1, whole)
    return [
        ("devices", f"{facts.devices}, {PROCESSES} of them processes of their own"),
        ("v2", "promoted through 5% -> 25% -> 100%" if facts.promoted else "not promoted"),
        ("v3", "caught in its canary, taken back, quarantined" if facts.rolled_back else "not taken back"),
        ("devices that ever ran v3", str(facts.devices_exposed_to_bad_version)),
        ("first bad answer to verdict", f"{facts.seconds_to_verdict} s"),
        ("first bad answer to last device back", f"{facts.seconds_to_last_device_back} s"),
        ("v2 moved, as a delta", f"{size_of(moved)} instead of {size_of(whole)}: {percent(saved)} saved"),
        ("model bytes moved in all", size_of(facts.bytes_moved)),
        ("all of it took", f"{facts.seconds} s"),
    ]


def _timeline(timeline: list[tuple[float, dict[int | None, int]]]) -> Table:
    """Devices by version over time: every change, or about 40 rows where there are too many changes."""
    rows = [row for place, row in enumerate(timeline) if row[1] != (timeline[place - 1][1] if place else {})]
    if len(rows) > _ROWS_MAX:
        step, last = max(1, len(timeline) // 40), len(timeline) - 1
        rows = [row for place, row in enumerate(timeline) if place % step == 0 or place == last]
    table = Table("second", "v1", "v2", "v3", "none", title="devices per version", box=None, title_justify="left")
    for second, counts in rows:
        table.add_row(f"{second:.0f}", *(str(counts.get(serial, 0)) for serial in _SERIALS))
    return table


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
