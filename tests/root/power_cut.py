"""Power cuts on a real ext4: `make test-root`, as root, where loop devices work. Outside of CI, and no pytest.

A device updates on an ext4 in a loop device. At a random moment FS_IOC_SHUTDOWN stops the file system without writing
back what it holds, as a power cut does; it is mounted again, and the promises of tests/crash are looked at: a verified
model boots, and the device goes on to the version that it should have.

    python tests/root/power_cut.py [--cuts 40] [--seed 1] [--no-sync]
"""

import argparse
import fcntl
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.power_cut import CONTENTS, WholeFiles, World
from support.wire import Wire
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.disk import RealDisk
from whimbrel.errors import Unavailable, WhimbrelError

FS_IOC_SHUTDOWN = 0x8004587D  # linux: fs/ext4/ext4.h, fs/xfs/libxfs/xfs_fs.h
NO_LOG_FLUSH = 2  # nothing is written back, neither data nor journal
SIZE_BYTES = 64 * limits.MIB


def ran(*command: str | Path) -> None:
    """Raises `SystemExit` with what the command said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()}")


class Mounted:
    """An ext4 in a file."""

    def __init__(self, image: Path, place: Path) -> None:
        self._image = image
        self.place = place

    def __enter__(self) -> "Mounted":
        ran("mount", "-o", "loop,noauto_da_alloc", self._image, self.place)
        return self

    def __exit__(self, *_: object) -> None:
        for _ in range(50):
            if subprocess.run(["umount", str(self.place)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.place} cannot be unmounted")

    def cut(self) -> None:
        """The power goes."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)


class NoSync(RealDisk):
    """The check of this check: names are synced, the bytes of files are not."""

    def sync(self, path: Path) -> None:
        if path.is_dir():
            super().sync(path)


DISK: type[RealDisk] = RealDisk


def opened(world: World, folder: Path) -> Agent:
    return Agent.open(
        folder,
        AgentOptions(
            server="https://models.example.com",
            root=world.repository.root_bytes,
            device_id="dev-1",
            enrol_token=world.server.enrol_token,
            probes=WholeFiles(),
            pool=Wire(world.server),
            disk=DISK(),
            models=["detector"],
        ),
    )


def runs(agent: Agent) -> int | None:
    """The serial that an app gets; its bytes are that serial's, or the run ends."""
    try:
        with agent.session("detector") as model:
            if model.path.read_bytes() != CONTENTS[model.serial]:
                raise SystemExit(f"FAILED: what an app opens is not the file of serial {model.serial}")
            model.record(latency_ms=1.0)
            return model.serial
    except Unavailable:
        return None


def settled(world: World, folder: Path, serial: int) -> bool:
    with opened(world, folder) as agent:
        for _ in range(12):
            found = agent.cycle(force=True).models["detector"]
            if (found["state"], found["serial"]) == ("committed", serial):
                return runs(agent) == serial
            for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                runs(agent)
            time.sleep(0.11)
    return False


def one_cut(world: World, image: Path, place: Path, *, serial: int, after_s: float) -> None:
    folder = place / "device"
    with Mounted(image, place) as disk:
        before = runs(opened(world, folder))
        world.want(serial)
        timer = threading.Timer(after_s, disk.cut)
        timer.start()
        with suppress(WhimbrelError, OSError):  # of a disk that is off
            settled(world, folder, serial)
        timer.join()
    with Mounted(image, place):
        after = runs(opened(world, folder))
        if after not in {before, serial}:
            raise SystemExit(f"FAILED: {before} ran, {serial} was wanted, and {after} boots")
        if not settled(world, folder, serial):
            raise SystemExit(f"FAILED: it does not come to serial {serial}")


def main() -> None:
    """Cut, and cut again."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--cuts", type=int, default=40)
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--no-sync", action="store_true", help="leave out the fsync of files: then it must fail")
    asked = given.parse_args()
    if asked.no_sync:
        global DISK  # noqa: PLW0603 (a switch of a script)
        DISK = NoSync
    if os.geteuid() != 0:
        raise SystemExit("loop devices and mounts want root; run it as root")
    chance = random.Random(asked.seed)
    print(f"seed {asked.seed}, {asked.cuts} cuts")
    with World() as world, tempfile.TemporaryDirectory() as folder:
        image, place = Path(folder, "disk"), Path(folder, "mounted")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        ran("mkfs.ext4", "-q", "-F", image)
        with Mounted(image, place):
            begun = time.monotonic()
            if not settled(world, place / "device", 1):
                raise SystemExit("FAILED: it does not settle without any cut")
            whole_s = time.monotonic() - begun
        serial = 1
        for number in range(asked.cuts):
            serial = serial % len(CONTENTS) + 1
            after_s = chance.uniform(0, whole_s)
            one_cut(world, image, place, serial=serial, after_s=after_s)
            print(f"cut {number + 1} after {after_s:.3f} s towards serial {serial}: a verified model, and it goes on")
    print("ok")


if __name__ == "__main__":
    main()
