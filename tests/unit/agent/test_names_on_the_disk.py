"""Names that an agent finds again after an update, and names that nobody else has."""

import re

from support.power_cut import FOLDER, MODEL, Device, World
from whimbrel.model import documents
from whimbrel.sim.disk import ModelledDisk


def test_an_agent_finds_what_an_older_one_kept_by_the_names_that_it_always_had() -> None:
    """The newest root is kept by the digest of the first one: under another name an old key would be believed again."""
    with World() as world:
        device = Device(world, ModelledDisk())
        device.settle(1)
        device.use(1)
        names = {name: device.disk.names(FOLDER / name) for name in (".", "trust", "trust/metadata", "models/detector")}
        root = documents.digest_of(world.repository.root_bytes)
        assert f"root-{root[:16]}.json" in names["trust/metadata"]
        assert {"timestamp.json", "snapshot.json", "targets.json"} < set(names["trust/metadata"])
        assert {"metadata", "documents", "memory.json"} <= set(names["trust"])
        kept = {
            "agent.json",
            "agent.lock",
            "credential.json",
            "spool.json",
            "status.json",
            "runs.log",
            "models",
            "trust",
        }
        assert kept <= set(names["."])
        assert {"journal", "pointer", "a", "sessions", "marks"} <= set(names["models/detector"])


def test_sessions_and_devices_have_names_that_nobody_else_has() -> None:
    """64 random bits: of a million devices two have one name once in 37 million fleets."""
    with World() as world:
        world.options["device_id"] = None
        device = Device(world, ModelledDisk())
        device.settle(1)
        device.use(1)
        (name,) = device.disk.names(MODEL / "sessions")
        assert re.fullmatch(r"[0-9]+-[0-9a-f]{16}", name)
        assert re.fullmatch(r"dev-[0-9a-f]{16}", device.agent.settings.device_id)
