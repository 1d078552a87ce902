"""Which builds of a rollout's version run in which classes: what `rollout status` shows of a version with several."""

import io

import msgspec
from rich.console import Console

from support.values import T0, Town, file, release, rollout, town, version
from whimbrel.cli.rollout import picture
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.devices.records import BuildOnDevice
from whimbrel.flows.rollouts.builds_running import builds_running
from whimbrel.health.report import Build
from whimbrel.model.documents import encode
from whimbrel.model.release import Probe, Variant
from whimbrel.model.selector import Selector
from whimbrel.server.admin.rollouts import rollout_with_verdict

SMALL = Variant(
    name="small",
    files=(file(),),
    selector=Selector(match_labels={"chip": "old"}),
    probe=Probe(latency_ms_max=20.0, memory_mib_max=64),
)
ANY = Variant(name="any", files=(file(),))


def runs(here: Town, device: str, *, hardware: str, variant: str | None, serial: int = 2) -> None:
    here.fleet.note_running(
        RunningVersion(device_id=device, model="wake", serial=serial, hardware_class=hardware, at=T0)
    )
    if variant is not None:
        build = Build(serial=serial, variant=variant)
        here.stores.inventory.note_builds(BuildOnDevice(device_id=device, model="wake", build=build))


def test_builds_are_counted_by_class_with_the_budgets_that_the_release_gives_them() -> None:
    running = rollout()
    with town(versions=1, running=running) as here:
        document = release(2, variants=(SMALL, ANY))
        here.registry.add_version(version(2), release=encode(document), digests=document.digests)
        for number in range(3):
            runs(here, f"pi3-{number}", hardware="pi3", variant="small")
        runs(here, "pi4-0", hardware="pi4", variant="small")
        runs(here, "pi4-1", hardware="pi4", variant="any")
        runs(here, "pi4-2", hardware="pi4", variant=None)  # an agent from before tells none
        runs(here, "pi4-3", hardware="pi4", variant="any", serial=1)
        told = [tuple(msgspec.structs.astuple(each)) for each in builds_running(here.registry, here.fleet, running)]
        assert told == [("pi3", "small", 3, 20.0, 64), ("pi4", "any", 1, None, None), ("pi4", "small", 1, 20.0, 64)]
        out = Console(file=io.StringIO(), width=120)
        out.print(picture(rollout_with_verdict(here.stores, "r1", now=T0)))
        assert isinstance(out.file, io.StringIO)
        lines = [line.split() for line in out.file.getvalue().splitlines()]
        assert ["class", "build", "devices", "at", "most"] in lines
        assert ["pi3", "small", "3", "20", "ms,", "64", "MiB"] in lines
        assert ["pi4", "any", "1"] in lines


def test_a_version_with_one_build_for_all_has_nothing_to_show() -> None:
    running = rollout()
    with town(running=running) as here:
        runs(here, "pi3-0", hardware="pi3", variant="any")
        assert builds_running(here.registry, here.fleet, running) == []
