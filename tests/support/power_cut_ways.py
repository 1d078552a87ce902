"""The ways of a device that the power is cut on: from a start to an end, by what the server wants and what apps do."""

import io
import tarfile
from pathlib import Path

from support.power_cut import CONTENTS, Device, Way, must
from support.repository import file_of, variant_of
from whimbrel import agefile, limits
from whimbrel.delta.codec import encode_bytes
from whimbrel.model import documents
from whimbrel.model.documents import digest_of
from whimbrel.model.ways import DeltaIndex, Step
from whimbrel.policy.policy import Arm, Entry, Layer, Quarantine
from whimbrel.policy.shadow import Shadow
from whimbrel.trust import roles


def nothing(device: Device) -> None:
    """A device that was never on."""


def on_one(device: Device) -> None:
    device.settle(1)


def on_two(device: Device) -> None:
    device.settle(1)
    device.settle(2)


def to_one(device: Device) -> None:
    device.settle(1)


def to_two(device: Device) -> None:
    device.settle(2)


def on_one_before_sealed(device: Device) -> None:
    device.world.repository.sealed_release("detector", 2, CONTENTS[2])
    device.settle(1)


def on_one_before_sealed_delta(device: Device) -> None:
    base, target, repository = CONTENTS[1], CONTENTS[2], device.world.repository
    repository.sealed_release("detector", 2, target)
    recipient = agefile.recipient_of(repository.release_keys["detector", 2])
    patch = agefile.seal_bytes(encode_bytes(base, target), recipient=recipient)
    step = Step(
        base=digest_of(base),
        target=digest_of(target),
        target_bytes=len(target),
        sha256=repository.blob(patch),
        size_bytes=len(patch),
        sealed=True,
    )
    index = DeltaIndex(model="detector", serial=2, steps=(step,))
    repository.put(roles.policy_role("detector"), roles.deltas_path("detector", 2), documents.encode(index))
    device.settle(1)


def to_two_by_sealed_delta(device: Device) -> None:
    asked, repository = len(device.world.server.asked), device.world.repository
    device.settle(2)
    artifacts = [line.split()[1] for line in device.world.server.asked[asked:] if "artifacts/" in line]
    whole = repository.sealed_digests["detector", 2]
    must(len(artifacts) == 1 and whole not in artifacts[0], f"no patch was taken: {artifacts}")


def through_a_delta(device: Device) -> None:
    base, target = CONTENTS[1], CONTENTS[2]
    patch = encode_bytes(base, target)
    repository = device.world.repository
    repository.blob(patch)
    step = Step(
        base=digest_of(base),
        target=digest_of(target),
        target_bytes=len(target),
        sha256=digest_of(patch),
        size_bytes=len(patch),
    )
    index = DeltaIndex(model="detector", serial=2, steps=(step,))
    repository.put(roles.policy_role("detector"), roles.deltas_path("detector", 2), documents.encode(index))
    on_one(device)


def to_two_by_delta(device: Device) -> None:
    asked = len(device.world.server.asked)
    device.settle(2)
    artifacts = [line for line in device.world.server.asked[asked:] if "artifacts/" in line]
    must(len(artifacts) == 1 and digest_of(CONTENTS[2]) not in artifacts[0], f"no patch was taken: {artifacts}")


def with_a_folder(device: Device) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("weights.bin")
        member.size = len(CONTENTS[2])
        tar.addfile(member, io.BytesIO(CONTENTS[2]))
    content = made.getvalue()
    file = file_of(content, name="model.mlpackage", format="coreml", packed=True)
    device.world.repository.release("detector", 2, content, variants=(variant_of(content, files=(file,)),))
    on_one(device)


def with_several_files(device: Device) -> None:
    """Version 2 has two files more, in a subfolder, both with the bytes of version 1's only file."""
    kept = [file_of(CONTENTS[1], name=f"weights/{name}") for name in ("w.bin", "again.bin")]
    files = (file_of(CONTENTS[2]), *kept)
    device.world.repository.release("detector", 2, variants=(variant_of(CONTENTS[2], files=files),))
    on_one(device)


def to_two_by_one_file(device: Device) -> None:
    asked = len(device.world.server.asked)
    device.settle(2)
    fetched = [line.split()[1].rpartition("/")[2] for line in device.world.server.asked[asked:] if "artifacts/" in line]
    must(fetched == [digest_of(CONTENTS[2])], f"more than the changed file was fetched: {fetched}")


def crash_loop(device: Device) -> None:
    device.world.want(2)
    device.cycle()
    for _ in range(limits.TRIAL_FAILED_SESSIONS):
        device.crash_in_a_session()
        device.know(may_be=device.known.may_be | {1})
        device.know(inside=None)
        device.cycle()
    must(device.cycle()["serial"] == 1, "it does not go back")


def crash_loop_without_cycles(device: Device) -> None:
    """A committed version crashes again and again, and no agent runs: a session's start opens the version before."""
    for _ in range(limits.CRASH_LOOP - 1):
        device.crash_in_a_session()
    device.know(may_be=frozenset({1, 2}))
    device.crash_in_a_session()
    device.know(used=1, may_be=frozenset())
    device.look("after the last crash of the row")
    device.know(inside=None)
    device.use(1)
    must(device.known.used == 1, "the session after the last crash opens the same version again")
    must(device.cycle()["serial"] == 1, "the pointer does not follow")


def app_goes_back(device: Device) -> None:
    device.know(may_be=frozenset({1, 2}))
    device.agent.go_back("detector", "it answers nonsense")
    device.know(used=1, may_be=frozenset())
    device.use(1)
    must(device.known.used == 1, "the version that was left is opened again")
    must(device.cycle()["serial"] == 1, "the pointer does not follow")


def on_one_after_two(device: Device) -> None:
    on_two(device)
    app_goes_back(device)


def to_two_again(device: Device) -> None:
    """A person says that what was left may be tried again."""
    device.world.want(2, overrides=(2,))
    for _ in range(4):
        device.cycle()
        device.use()
    found = device.cycle()
    must((found["state"], found["serial"]) == ("committed", 2), f"it is not tried again: {found}")


def to_three(device: Device) -> None:
    device.settle(3)


def to_nothing(device: Device) -> None:
    device.world.repository.line("detector", revoked=(1,))
    device.world.want(1, on_revoked="stop")
    device.know(may_be=frozenset({None, 1}))
    device.cycle()


def to_stop(device: Device) -> None:
    """The policy alone offers no version: the device keeps its files."""
    device.world.want(1, on_revoked="stop", quarantine=(Quarantine(serial=1),))
    device.know(may_be=frozenset({None, 1}))
    device.cycle()


def stopped(device: Device) -> None:
    on_one(device)
    to_stop(device)


def to_one_again(device: Device) -> None:
    device.world.want(1)
    device.know(may_be=frozenset({None, 1}))
    device.cycle()


def new_root(device: Device) -> None:
    repository = device.world.repository
    repository.root.version += 1
    repository.publish_root()
    device.cycle()
    device.know(root=repository.root.version)
    device.look("a new root was taken")


def ended_then_on(device: Device) -> None:
    """The process ends after the download's last byte, and the next one goes on: what it finds was never synced."""

    class Ended(BaseException):
        pass

    inner = device.disk.before
    waiting = [True]

    def before(what: str, path: Path) -> None:
        if what == "sync" and path.name.endswith(".part") and waiting[0]:
            raise Ended
        if inner is not None:
            inner(what, path)

    device.disk.before = before
    device.world.want(2)
    try:
        device.cycle()
    except Ended:
        waiting[0] = False
    must(not waiting[0], "no download was ended")
    device.restart()
    device.settle(2)
    device.disk.before = inner


def in_shadow(device: Device) -> None:
    """Version 2 is tried beside version 1, which goes on serving."""
    tried = Arm(
        role="treated", name="shadow", stage=0, serial=2, start=0, end=1_000_000, shadow=Shadow(sample_ppm=1_000_000)
    )
    layers = (Layer(salt=7, entries=(Entry(rollout="r1", arms=(tried,)),)),)
    device.world.want(1, layers=layers)
    found = device.cycle()
    must((found["state"], found["serial"]) == ("shadowing", 1), f"nothing is tried: {found}")
    device.use()


def on_one_in_shadow(device: Device) -> None:
    on_one(device)
    in_shadow(device)


def from_shadow_to_two(device: Device) -> None:
    in_shadow(device)
    asked = len(device.world.server.asked)
    device.settle(2)
    fetched = [line for line in device.world.server.asked[asked:] if "artifacts/" in line]
    must(not fetched, f"what was held already was fetched again: {fetched}")


def out_of_the_shadow(device: Device) -> None:
    device.world.want(1)
    device.cycle()


WAYS = {
    way.name: way
    for way in (
        Way("first install", nothing, to_one, ("committed", 1)),
        Way("swap and commit", on_one, to_two),
        Way("back by policy", on_two, to_one, ("committed", 1)),
        Way("back by crash loop", on_one, crash_loop, ("quarantined", 1), ("committed", 2), ("2",)),
        Way("back without cycles", on_two, crash_loop_without_cycles, ("quarantined", 1), ("committed", 2), ("2",)),
        Way("back by an app", on_two, app_goes_back, ("quarantined", 1), ("committed", 2), ("2",)),
        Way("tried again", on_one_after_two, to_two_again, refused=("2",)),
        Way("delta apply", through_a_delta, to_two_by_delta),
        Way("folder of files", with_a_folder, to_two),
        Way("sealed", on_one_before_sealed, to_two),
        Way("sealed delta", on_one_before_sealed_delta, to_two_by_sealed_delta),
        Way("several files", with_several_files, to_two_by_one_file),
        Way("collect", on_two, to_three, ("committed", 3)),
        Way("no version any more", on_one, to_nothing, ("idle", None)),
        Way("stopped by the policy", on_one, to_stop, ("idle", None)),
        Way("on after a stop", stopped, to_one_again, ("committed", 1)),
        Way("a new root", on_one, new_root, ("committed", 1)),
        Way("ended, then on", on_one, ended_then_on),
        Way("in the shadow, then served", on_one, from_shadow_to_two),
        Way("out of the shadow", on_one_in_shadow, out_of_the_shadow, ("idle", 1), ("committed", 1)),
    )
}
