"""Check a world's promises. Checkers see what an observer outside sees, and share no code with the product.

They get what passes over the network, the bytes that a session opens, the pointer file after each cycle, the results
of probes, and the server's rows after each round. Each rule is one promise:

1. `verified`: an app opens only bytes of a signed release that this device has probed. A device that had a committed
   version always has one.
2. `stopped`: a version that is quarantined, revoked or below the floor starts no trial on a device that knows it, or
   that could have known it within the age that a policy may have.
3. `counted`: the server's tallies are the sums of all acknowledged reports: nothing counts twice, nothing is lost. A
   device is one device in a tally window, with at most one crash.
4. `bucket`: shares only grow, salts stay, a treated device is never a control again.
5. `refused`: a version that failed on a device starts no second trial there.
6. `rollout`: a rollout visits no state twice by itself, goes no stage back, and does not rise from its end.
7. `converged`: when the faults stopped, every device runs what the policy says, committed.
8. `unbroken`: nothing that goes wrong leaves the agent's cycles, the sessions or the server as an exception.
9. `assigned`: a version that an app opens was at some time the baseline, a version to go back to, or that of an arm
   with the device's bucket. A shadow stage serves nobody, and an arm of an experiment serves only its own devices.
10. `ways`: a device reports no more bytes of a way than came by it.
11. `exposed`: a device begins to count as treated only when it has what its arm runs or tries, and as a control only
    when the conditions let it, and not sooner than the policy says that an update takes.
12. `recorded`: a device's signed run history agrees with what its apps opened (sim/run_checker.py).
"""

import functools
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import xxhash

from whimbrel.device.journal import Journal, Membership
from whimbrel.device.slots import Pointer
from whimbrel.flows.records import RolloutRecord
from whimbrel.health.tally import Cell
from whimbrel.model.release import Line, Release
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy
from whimbrel.sim.run_checker import RunChecker
from whimbrel.sim.world import ACTIVATE_MAX_AGE_S, T0, Timeline

_LISTED = 20  # at most so many violations of one world are kept
_BUCKETS = 1_000_000
_SLACK_S = 120.0  # a cycle that began in time may end later
_MISLED_S = 7200.0  # how long a device that got wrong answers is excused

Sums = dict[tuple[int, str], list[int]]  # (stage, role) -> device-windows, sessions, crashed, inputs in the shadow


class Violation(msgspec.Struct, frozen=True):
    """A promise that was not kept. `at`: seconds since the world began."""

    promise: str
    at: float
    what: str


class Checkers:
    """All checkers of one world."""

    def __init__(self, timeline: Timeline) -> None:
        self.violations: list[Violation] = []
        self.salt = 0
        self.releases: dict[int, Release] = {}
        self._timeline = timeline
        self._passed: dict[str, set[str]] = defaultdict(set)
        self._last: dict[str, Pointer] = {}
        self._committed: set[str] = set()
        self._sessions: dict[str, int] = defaultdict(int)
        self._reported: dict[str, int] = defaultdict(int)
        self._known: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._misled: dict[str, float] = {}
        self._forbidden: dict[int, float] = {}  # serial -> since when devices could know that it must not run
        self._failed: dict[str, set[int]] = defaultdict(set)
        self._windows: dict[tuple[str, str, int], Any] = {}
        self._roles: dict[tuple[str, str], tuple[str, int]] = {}
        self._accepted: list[tuple[str, dict[str, Any]]] = []
        self._expected: dict[str, Sums] = defaultdict(dict)
        self._counted: dict[tuple[str, int, str], list[Any]] = {}  # (rollout, stage, device): window, role, crashed
        self._shares: dict[str, int] = {}
        self._states: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._lives: set[str] = set()  # rollouts and experiments in the policy
        self._shadows: dict[str, int] = {}  # rollout -> its first stages, which serve nobody
        self._policy: Policy | None = None
        self._served: set[tuple[int, int, int, int]] = set()  # serial, salt, and the buckets that it was for
        self._for_everyone: set[int] = set()  # serials that a policy once gave to every device
        self.leads_to: dict[str, str] = {}  # patches, and the artifacts that they make
        self._treats: dict[tuple[str, int], set[int]] = defaultdict(set)  # (rollout, stage) -> serials of its arm
        self._shortest_s: dict[str, float] = {}  # rollout -> the least delay that a policy told of
        self._counts: dict[str, set[tuple[str, int, str]]] = defaultdict(set)  # device -> cohorts that it counts in
        self._carried: dict[tuple[str, str], int] = defaultdict(int)  # (device, artifact, or "" for all patches)
        self.runs = RunChecker(self.violated)

    def violated(self, promise: str, what: str) -> None:
        """Write down a violation."""
        if len(self.violations) < _LISTED:
            self.violations.append(Violation(promise, round(self._timeline.now - T0, 3), what))

    # --- verified ---

    def probed(self, device: str, content: bytes, *, passed: bool) -> None:
        """A probe ran a version's entry file."""
        if passed:
            self._passed[device].add(_sha(content))

    def session_begins(self, device: str) -> None:
        """An app is about to use the model. This session may be reported once, whatever happens to it."""
        self._sessions[device] += 1

    def session(self, device: str, serial: int, entry: str, contents: Mapping[str, bytes]) -> None:
        """An app opened a version: the files of its folder."""
        digests = {name: _sha(content) for name, content in contents.items()}
        release = self.releases.get(serial)
        signed = release is not None and any(
            entry == variant.files[0].name and {file.name: file.sha256 for file in variant.files} == digests
            for variant in release.variants
        )
        if not signed:
            self.violated("verified", f"{device} opened serial {serial}, and its bytes are in no such release")
        elif digests[entry] not in self._passed[device]:
            self.violated("verified", f"{device} opened serial {serial}, which it never probed")
        given = (
            salt for each, salt, start, end in self._served if each == serial and start <= place(device, salt) < end
        )
        if serial not in self._for_everyone and next(given, None) is None:
            self.violated("assigned", f"{device} opened serial {serial}, which no policy gave it")

    def without_version(self, device: str) -> None:
        """An app found no version."""
        if device in self._committed and not (self._policy and self._policy.on_revoked == "stop"):
            self.violated("verified", f"{device} had a committed version and has none now")

    # --- stopped, refused ---

    def delivered(self, device: str, path: str, content: bytes) -> None:
        """A whole file reached a device as it was."""
        kind = "policy" if "/targets/policy/" in path else "line" if path.endswith(".line.json") else ""
        if kind:
            document = json.loads(content)
            newest = self._known[device].get(kind)
            if newest is None or document["sequence"] > newest["sequence"]:
                self._known[device][kind] = document

    def restarted(self, device: str) -> None:
        """The device forgets documents that it did not keep durably."""
        self._known.pop(device, None)

    def misled(self, device: str) -> None:
        """The edge or the clock gave the device wrong facts: for a while it is excused."""
        self._misled[device] = self._timeline.now

    def pointer(self, device: str, pointer: Pointer | None) -> None:
        """What is active on a device now."""
        if pointer is None:
            self.violated("verified", f"the pointer of {device} is torn")
            return
        before = self._last.get(device)
        self._last[device] = pointer
        if pointer.active is None:
            return
        if not pointer.trial:
            self._committed.add(device)
        elif before is None or before.active != pointer.active:
            self._trial_begins(device, pointer.active.serial)

    def _trial_begins(self, device: str, serial: int) -> None:
        if serial in self._failed[device]:
            self.violated("refused", f"{device} tries serial {serial} again, which failed there")
        known = self._known[device]
        if "policy" in known and "line" in known:
            quarantined = {each["serial"] for each in known["policy"].get("quarantine", ())}
            if serial in quarantined or _forbids(known["line"], serial):
                self.violated("stopped", f"{device} was told that serial {serial} must not run, and tries it")
        now = self._timeline.now
        since = self._forbidden.get(serial, now)
        excused = now - self._misled.get(device, 0.0) < _MISLED_S
        if now - since > ACTIVATE_MAX_AGE_S + _SLACK_S and not excused:
            self.violated("stopped", f"{device} tries serial {serial}, {now - since:.0f} s after it was stopped")

    # --- counted ---

    def sent(self, device: str, name: str, body: bytes) -> None:
        """The server got a message of a device."""
        if name == "announce":
            announcement = json.loads(body)
            if announcement["step"] in {"failed", "went_back"} and announcement.get("serial") is not None:
                self._failed[device].add(announcement["serial"])
            self._check_ways(device, announcement)

    def carried(self, device: str, digest: str, size_bytes: int) -> None:
        """An artifact, or a part of it, was sent to a device."""
        self._carried[device, "" if digest in self.leads_to else digest] += size_bytes

    def _check_ways(self, device: str, announcement: Mapping[str, Any]) -> None:
        serial, moved = announcement.get("serial"), announcement.get("moved_by", {})
        release = self.releases.get(serial or 0)
        whole = sum(self._carried[device, each] for each in release.digests) if release is not None else 0
        patches = sum(count for way, count in moved.items() if way != "whole")
        if moved.get("whole", 0) > whole or patches > self._carried[device, ""]:
            came = f"{whole} bytes of its files and {self._carried[device, '']} of patches"
            self.violated("ways", f"{device} says {moved} of serial {serial}; it was sent {came}")
        if announcement["step"] == "activated":
            self._timeline.occurred.update(f"update: {way}" for way in moved)

    def accepted(self, device: str, name: str, headers: Mapping[str, str], body: bytes) -> None:
        """The server acknowledged a message of a device: it must not be lost."""
        if name != "reports":
            return
        batch = json.loads(gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body)
        for window in batch.get("windows", ()):
            key = device, batch["epoch"], window["first"]
            if key in self._windows:
                if self._windows[key] != window:
                    self.violated("counted", f"{device} used number {window['first']} for two different windows")
                continue
            self._windows[key] = window
            self._accepted.append((device, window))
            self._reported[device] += window.get("sessions", 0)
            self._role(device, window)
        if self._reported[device] > self._sessions[device]:
            self.violated("counted", f"{device} reported {self._reported[device]} sessions of {self._sessions[device]}")

    def before_round(self, rollouts: Iterable[RolloutRecord]) -> None:
        """The server is about to tally: compute the sums that must come out."""
        live = {rollout.id: rollout for rollout in rollouts if rollout.live}
        for device, window in self._accepted:
            bucket = place(device, self.salt)
            for cohort in window.get("cohorts", ()):
                rollout = live.get(cohort["rollout"])
                stage, role = cohort["stage"], cohort["role"]
                if rollout is None or stage >= len(rollout.shares):
                    continue
                share, shadows = rollout.shares[stage], rollout.plan.shadows
                # A later stage may treat devices of a shadow stage, and a shadow stage treats its whole share.
                earlier = 0 if stage < shadows else max(rollout.shares[shadows:stage], default=0)
                if earlier <= bucket < share if role == "treated" else bucket >= share:
                    sums = self._expected[rollout.id].setdefault((stage, role), [0, 0, 0, 0])
                    number = int((self._timeline.now - rollout.created_at) // rollout.window_s)
                    counted = self._counted.get((rollout.id, stage, device), [])
                    if counted[:1] != [number]:
                        counted = self._counted[rollout.id, stage, device] = [number, role, 0]
                        sums[0] += 1
                    if counted[1] != role:
                        continue  # it counts in one arm of a window
                    sums[1] += window.get("sessions", 0)
                    sums[2] += max(0, window.get("crashed", 0) - counted[2])
                    counted[2] = max(counted[2], window.get("crashed", 0))
                    beside = window.get("shadow") or {}
                    if stage < shadows and role == "treated" and beside.get("serial") == rollout.target:
                        sums[3] += beside.get("inputs", 0)
        self._accepted.clear()

    def tallied(self, rollout: str, cells: Iterable[Cell]) -> None:
        """The server's tally of a rollout."""
        tallied: Sums = {}
        for cell in cells:
            if cell.at_risk:
                sums = tallied.setdefault((cell.stage, cell.role), [0, 0, 0, 0])
                inputs = cell.shadow.inputs if cell.shadow is not None else 0
                for index, value in enumerate((cell.at_risk, cell.sessions, cell.crashed, inputs)):
                    sums[index] += value
        if tallied != self._expected[rollout]:
            self.violated("counted", f"{rollout}: tallied {tallied}, and devices sent {self._expected[rollout]}")

    # --- bucket ---

    def _role(self, device: str, window: Mapping[str, Any]) -> None:
        for cohort in window.get("cohorts", ()):
            key = device, cohort["rollout"]
            now = cohort["role"], cohort["stage"]
            before = self._roles.get(key, now)
            served = before[1] >= self._shadows.get(cohort["rollout"], 0)
            if before[0] == "treated" and served and now != before:
                self.violated("bucket", f"{device} was {before} of {cohort['rollout']} and is {now}")
            self._roles[key] = now

    def policy(self, policy: Policy, line: Line) -> None:
        """The documents that the server has signed."""
        now = self._timeline.now
        self._policy = policy
        stopped = {each.serial for each in policy.quarantine} | set(line.revoked) | set(range(1, line.minimum_serial))
        for serial in stopped:
            self._forbidden.setdefault(serial, now)
        self._for_everyone |= {*policy.known_good} | ({policy.baseline} if policy.baseline is not None else set())
        for layer in policy.layers:
            lives = {entry.rollout for entry in layer.entries}
            if layer.salt != self.salt and lives & self._lives:
                self.violated("bucket", f"the salt became {layer.salt} under {', '.join(lives & self._lives)}")
            self.salt, self._lives = layer.salt, lives
            for entry in layer.entries:
                for arm in entry.arms:
                    if arm.role == "treated":
                        self._treats[entry.rollout, arm.stage].add(arm.serial)
                tables = (entry.delays_s, *entry.delays_by_class.values())
                shortest_s = min((delay for table in tables for delay in table), default=0.0)
                self._shortest_s[entry.rollout] = min(shortest_s, self._shortest_s.get(entry.rollout, shortest_s))
                serving = [arm for arm in entry.arms if arm.shadow is None]
                self._served |= {(arm.serial, self.salt, arm.start, arm.end) for arm in serving}
                if entry.rollout not in self._shadows:
                    continue  # an experiment, whose arms end one by one
                share = max((arm.end for arm in serving if arm.role == "treated"), default=0)
                if not share:
                    continue  # a shadow stage
                if share < self._shares.get(entry.rollout, 0):
                    self.violated("bucket", f"{entry.rollout}: the share fell to {share}")
                self._shares[entry.rollout] = share

    # --- exposed ---

    def journal(self, device: str, journal: Journal, pointer: Pointer | None, *, charging: bool) -> None:
        """What a device has written down, after a cycle."""
        counts = {(each.rollout, each.stage, each.role): each for each in journal.memberships if each.since is not None}
        before, self._counts[device] = self._counts[device], set(counts)
        for member in (member for cohort, member in counts.items() if cohort not in before):
            if member.role == "treated":
                self._treated(device, member, journal, pointer)
            else:
                self._control(device, member, charging=charging)

    def _treated(self, device: str, member: Membership, journal: Journal, pointer: Pointer | None) -> None:
        has = {pointer.serial if pointer is not None else None}
        if journal.candidate is not None and journal.state.value in {"on trial", "shadowing"}:
            has.add(journal.candidate.serial)
        if not has & self._treats[member.rollout, member.stage]:
            self.violated("exposed", f"{device} counts as treated in {member.rollout}/{member.stage}, and has {has}")

    def _control(self, device: str, member: Membership, *, charging: bool) -> None:
        cohort = f"{member.rollout}/{member.stage}"
        if self._policy is not None and self._policy.conditions.charging and not charging:
            self.violated("exposed", f"{device} took its placebo of {cohort} without the charger that is asked for")
        took_s = (member.since or 0.0) - (member.permitted_at or 0.0)
        if device not in self._misled and took_s < self._shortest_s.get(member.rollout, 0.0) - 1:
            self.violated("exposed", f"{device} took its placebo of {cohort} after {took_s:.0f} s")

    # --- rollout ---

    def moved_by_person(self, rollout: str) -> None:
        """A person moved a rollout: it may visit earlier states again."""
        self._states[rollout] = self._states[rollout][-1:]

    def rollouts(self, rollouts: Iterable[RolloutRecord]) -> None:
        """The rollouts' rows after a round."""
        for rollout in rollouts:
            self._shadows[rollout.id] = rollout.plan.shadows
            path, now = self._states[rollout.id], (rollout.state.value, rollout.stage)
            if path and path[-1] == now:
                continue
            if now in path or (path and now[1] < path[-1][1]):
                self.violated("rollout", f"{rollout.id} was {path} and is {now} again")
            if path and path[-1][0] in {"completed", "rolled_back", "aborted"}:
                self.violated("rollout", f"{rollout.id} had ended {path[-1]} and is {now}")
            path.append(now)

    # --- converged ---

    def difference(self, device: str, labels: Mapping[str, str], policy: Policy, line: Line) -> str:
        """How a device differs from the policy, as a sentence. Empty where it does not differ."""
        profile = Profile(device, labels, frozenset(self._failed[device]), cohort_key=cohort_key_of(device))
        decision = decide(policy, line, profile)
        pointer = self._last.get(device)
        serial = pointer.serial if pointer else None
        if decision.serial is None:
            stays = decision.offer == "stop" and serial is not None
            return f"{device} runs {serial}; no version is offered" if stays else ""
        if serial != decision.serial:
            return f"{device} runs {serial}; the policy says {decision.serial} ({decision.because})"
        return f"{device} is still trying serial {serial}" if pointer is not None and pointer.trial else ""


def cohort_key_of(device: str) -> str:
    """The cohort key that a server of these worlds draws for a device: nobody can tell it from the id's own bucket."""
    return f"cohort key of {device}"


@functools.cache
def place(device: str, salt: int) -> int:
    """A device's bucket (the documented hash, without our own function)."""
    key = xxhash.xxh64_intdigest(cohort_key_of(device).encode(), seed=0)
    return xxhash.xxh64_intdigest(key.to_bytes(8, "little"), seed=salt) % _BUCKETS


def _forbids(line: Mapping[str, Any], serial: int) -> bool:
    return serial < line.get("minimum_serial", 1) or serial in line.get("revoked", ())


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
