"""What can lying devices do? Invented ones, and n of N that were enrolled, against the real intake and gate.

    python bench/sybil.py --quick --json

* 800 devices that a shared token let in after the rollout began say that all is well, beside 20 honest ones on which
  the version crashes: it must never go on.
* 5 such devices go back by themselves at once, beside honest ones on which all is well: it must never be taken back.
* n of N devices were enrolled before, with keys that the server drew. They say that all is well where the version
  crashes, or that it crashes where all is well. How often does that change what is decided? Nothing is asked here: the
  figures are what docs/explain/lying-devices.md speaks of.

The peer is the same fleet with `evidence = "all"`, which is what every device counted as before.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.devices.records import EnrolledDevice
from whimbrel.flows.records import ModelRecord, ModelSettings, RolloutRecord, VersionRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.proven import EvidenceRule
from whimbrel.flows.rollouts.judge import verdict_for
from whimbrel.health.report import Announcement, Batch, Cohort, Role, Window
from whimbrel.model.documents import encode
from whimbrel.model.release import File, Release, Variant
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.plan import Plan, Stage
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import bucket, device_key
from whimbrel.stores import schema
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores

T0, HOUR_S, WINDOW_S = 1_767_225_600.0, 3600.0, 300.0
SALT = 42
SHARE = 100_000  # buckets of the canary: 10%
USUAL_CRASHES, BAD_CRASHES = 0.01, 0.3  # of a device-window
PLAN = Plan(
    model_version="wake@2.0.0",
    stages=(
        Stage(name="canary", target_percent=10, duration_hours=1, success_criteria=SuccessCriteria(error_rate_max=0.2)),
        Stage(name="all", target_percent=100, duration_hours=1),
    ),
    min_reports=6,
)
ROLLOUT = RolloutRecord(
    namespace="default",
    id="r1",
    model="wake",
    baseline=1,
    target=2,
    plan=PLAN,
    state=State.RUNNING,
    stage=0,
    shares=(SHARE,),
    hour_s=HOUR_S,
    created_at=T0,
    stage_since=T0,
    because="started",
)

Told = Callable[[str, Random], tuple[bool, bool]]  # role -> whether the device crashed, and whether it goes back


class Town:
    """One namespace in memory with a live rollout, and devices whose cohort keys the server drew."""

    def __init__(self, stores: Stores, chance: Random) -> None:
        self.stores, self.chance = stores, chance
        self.roles: dict[str, Role] = {}
        self.told: dict[str, Told] = {}

    def enrol(self, count: int, *, name: str, at: float, told: Told, role: Role | None = None) -> None:
        """Devices that say what `told` says. `role`: the arm that their keys lie in; None: where chance puts them."""
        made = 0
        while made < count:
            key = f"{self.chance.getrandbits(128):032x}"
            lies_in: Role = "treated" if bucket(device_key(key), salt=SALT) < SHARE else "control"
            if role is not None and lies_in != role:
                continue
            device = f"{name}-{role or ''}{made}"
            self.stores.enrolments.save(
                EnrolledDevice(
                    device_id=device,
                    credential_sha256="0" * 64,
                    admission="shared",
                    enrolled_at=at,
                    admitted_at=at,
                    cohort_key=key,
                ),
                labels={},
                at=at,
            )
            self.roles[device], self.told[device] = lies_in, told
            made += 1

    def play(self, *, windows: int, evidence: EvidenceRule) -> str:
        """The first verdict that moves the rollout, or the last one."""
        move = "wait"
        for number in range(1, windows + 1):
            at = T0 + WINDOW_S * number
            said: list[DeviceMessage] = []
            for device, role in self.roles.items():
                crashed, goes_back = self.told[device](role, self.chance)
                said += _messages(device, role, number=number, crashed=crashed, goes_back=goes_back, at=at)
            ingest(
                self.stores.registry,
                self.stores.fleet,
                said,
                now=at,
                devices=self.stores.inventory,
                evidence=evidence,
            )
            if number % 4 and number < windows:
                continue
            move = verdict_for(self.stores.registry, self.stores.fleet, ROLLOUT, now=at + WINDOW_S).move
            if move in {"advance", "roll_back", "slice_back"}:
                return move
        return move


def _messages(
    device: str, role: Role, *, number: int, crashed: bool, goes_back: bool, at: float
) -> list[DeviceMessage]:
    serial = 2 if role == "treated" else 1
    documents: list[tuple[str, Any]] = []

    def step(name: Any) -> None:
        documents.append(
            ("announce", Announcement(model="wake", step=name, serial=serial, rollout="r1", stage=0, role=role))
        )

    if number == 1:
        step("activating" if role == "treated" else "placebo")
    if goes_back and role == "treated" and number == 2:
        step("went_back")
    cohort = Cohort(rollout="r1", stage=0, role=role, age_s=WINDOW_S * number)
    window = Window(
        model="wake",
        serial=serial,
        first=number,
        last=number,
        cohorts=(cohort,),
        sessions=1,
        inferences=10,
        crashed=int(crashed),
    )
    documents.append(("reports", Batch(epoch="0123456789abcdef", windows=(window,))))
    return [
        DeviceMessage(namespace="default", device_id=device, kind=kind, body=encode(body), at=at)  # type: ignore[arg-type]
        for kind, body in documents
    ]


def honest(crashes: float) -> Told:
    """A device that tells the truth about a version that crashes in this share of device-windows."""
    return lambda role, chance: (chance.random() < (crashes if role == "treated" else USUAL_CRASHES), False)


def healthy(_role: str, _chance: Random) -> tuple[bool, bool]:
    """A device that says that all is well."""
    return False, False


def failing(role: str, _chance: Random) -> tuple[bool, bool]:
    """A device that says that the version crashes and that it went back."""
    return role == "treated", True


def outcomes(
    runs: int, seed: int, *, windows: int, evidence: EvidenceRule, people: Callable[[Town], None]
) -> Counter[str]:
    """What became of so many rollouts. `people`: enrols the devices of one."""
    moves: Counter[str] = Counter()
    for run in range(runs):
        database = Database("sqlite://")
        try:
            with database.engine.begin() as connection:
                schema.metadata.create_all(connection)
                town = Town(_begun(Stores(connection, "default")), Random(f"{seed}/{run}"))
                people(town)
                moves[town.play(windows=windows, evidence=evidence)] += 1
        finally:
            database.close()
    return moves


def _begun(stores: Stores) -> Stores:
    file = File(name="model.onnx", size_bytes=100, sha256="a" * 64, format="onnx")
    stores.registry.add_model(
        ModelRecord(namespace="default", name="wake", created_at=T0, salt=SALT, settings=ModelSettings(), baseline=1)
    )
    for serial in (1, 2):
        version = f"2026.01.01.{serial}"
        release = Release(
            model="wake",
            serial=serial,
            version=version,
            semantic_version=f"{serial}.0.0",
            build_hash="0" * 12,
            created="2026-01-01T00:00:00Z",
            variants=(Variant(name="any", files=(file,)),),
        )
        record = VersionRecord(
            namespace="default",
            model="wake",
            serial=serial,
            version=version,
            semantic_version=f"{serial}.0.0",
            build_hash="0" * 12,
            created_at=T0,
            size_bytes=100,
            good=serial == 1,
        )
        stores.registry.add_version(record, release=encode(release), digests=["a" * 64])
    stores.registry.add_rollout(ROLLOUT, plan_text="")
    return stores


def promoted_by_invented(town: Town) -> None:
    """20 honest devices on which it crashes, their controls, and 800 invented healthy ones in the canary."""
    before = T0 - 24 * HOUR_S
    town.enrol(20, name="honest", at=before, told=honest(1.0), role="treated")
    town.enrol(100, name="honest", at=before, told=honest(1.0), role="control")
    town.enrol(800, name="invented", at=T0 + 60, told=healthy, role="treated")


def killed_by_invented(town: Town) -> None:
    """20 honest devices on which all is well, their controls, and 5 invented failing ones in the canary."""
    before = T0 - 24 * HOUR_S
    town.enrol(20, name="honest", at=before, told=honest(USUAL_CRASHES), role="treated")
    town.enrol(100, name="honest", at=before, told=honest(USUAL_CRASHES), role="control")
    town.enrol(5, name="invented", at=T0 + 60, told=failing, role="treated")


def enrolled_liars(liars: int, devices: int, *, crashes: float, lie: Told) -> Callable[[Town], None]:
    """`liars` of `devices` that were all enrolled before, where chance puts them."""

    def people(town: Town) -> None:
        before = T0 - 24 * HOUR_S
        town.enrol(devices - liars, name="honest", at=before, told=honest(crashes))
        town.enrol(liars, name="liar", at=before, told=lie)

    return people


def upper_bound(bad: int, runs: int) -> float:
    """The 95% upper bound of a share of which `bad` of `runs` were seen, by Wilson's score."""
    z = 1.645
    p = bad / runs
    centre = p + z * z / (2 * runs)
    spread = z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs))
    return (centre + spread) / (1 + z * z / runs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play all of it, print the table, and the figures as JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rollouts of each kind: a minute")
    parser.add_argument("--json", action="store_true", help="the figures alone")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    runs, windows = (3, 12) if options.quick else (40, 24)
    devices = 200 if options.quick else 1000
    began = time.monotonic()
    figures: dict[str, Any] = {"seed": options.seed, "runs": runs, "windows": windows, "devices": devices}

    def played(name: str, people: Callable[[Town], None], *, evidence: EvidenceRule = "proven") -> Counter[str]:
        moves = outcomes(runs, options.seed, windows=windows, evidence=evidence, people=people)
        figures[name] = dict(moves)
        if not options.json:
            print(f"{name:56}", ", ".join(f"{move} {n}" for move, n in sorted(moves.items())), flush=True)
        return moves

    promoted = played("invented_healthy", promoted_by_invented)["advance"]
    killed = played("invented_failing", killed_by_invented)
    back = killed["roll_back"] + killed["slice_back"]
    played("invented_failing_evidence_all", killed_by_invented, evidence="all")
    for percent in (1, 5, 20) if options.quick else (1, 2, 5, 10, 20, 50):
        liars = devices * percent // 100
        hidden = enrolled_liars(liars, devices, crashes=BAD_CRASHES, lie=healthy)
        slandered = enrolled_liars(liars, devices, crashes=USUAL_CRASHES, lie=failing)
        played(f"enrolled_{percent}_percent_hide_a_bad_version", hidden)
        played(f"enrolled_{percent}_percent_slander_a_good_version", slandered)
    figures["promoted"], figures["killed"] = promoted, back
    figures["promoted_at_most"] = round(upper_bound(promoted, runs), 4)
    figures["killed_at_most"] = round(upper_bound(back, runs), 4)
    figures["took_s"] = round(time.monotonic() - began, 1)
    figures["ok"] = promoted == 0 and back == 0
    print(json.dumps(figures, sort_keys=True))
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
