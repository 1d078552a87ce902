"""The promise `recorded`: what a device's run history says agrees with what apps opened, and the server has the same.

It is an observer's check, which shares no code with the product: it reads the log's bytes at the end of a world, and
computes the chain and the signature anew. Sessions are noted with the time that the device's clock showed. A device
whose clock jumped is asked less: which versions its apps opened, and not when.
"""

import hashlib
import json
from base64 import urlsafe_b64decode
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_SLACK_S = 1.0  # two clocks that are read one after the other


class RunChecker:
    """The sessions of one world's devices, against their logs. `violated`: told of each contradiction, in words."""

    def __init__(self, violated: Callable[[str, str], None]) -> None:
        self._violated = violated
        self._opened: dict[str, list[tuple[float, int]]] = defaultdict(list)  # device -> its clock, serial
        self._jumped: set[str] = set()
        self._lags_s: dict[str, float] = defaultdict(float)
        self.checked = 0  # sessions

    def opened(self, device: str, serial: int, *, clock: float) -> None:
        """An app opened a version."""
        self._opened[device].append((clock, serial))

    def jumped(self, device: str) -> None:
        """A device's clock jumped."""
        self._jumped.add(device)

    def lagged(self, device: str, lag_s: float) -> None:
        """A pass took so long, and sessions that began beside it saw its end before its clock did."""
        self._lags_s[device] = max(self._lags_s[device], lag_s)

    def log(self, device: str, content: bytes | None, *, active: int | None, until: float) -> None:
        """A device's log at the end. `active`: what its pointer says. `until`: its clock at its last whole cycle."""
        if content is None:
            if self._opened[device]:
                self._violated("recorded", f"{device} has no log, and its apps opened versions")
            return
        log = json.loads(content.partition(b"\n")[2])
        if wrong := _chain(device, log):
            self._violated("recorded", f"{device}: {wrong}")
        entries = [json.loads(text) for text in log.get("entries", ())]
        if entries and entries[-1].get("serial") != active:
            self._violated("recorded", f"{device} runs {active}, and its log ends with {entries[-1].get('serial')}")
        whole = log.get("dropped", 0) == 0
        for clock, serial in self._opened[device]:
            if clock > until or (not whole and clock < entries[0]["at"]):
                continue
            self.checked += 1
            moment = None if device in self._jumped else clock
            if not _allows(entries, serial, moment, slack_s=_SLACK_S + self._lags_s[device]):
                self._violated("recorded", f"{device} opened serial {serial} at {clock:.0f}, and its log denies that")

    def kept(self, device: str, content: bytes | None, branches: Mapping[int, tuple[str, list[str]]]) -> None:
        """What the server has of a device: its branches, each with why it is one and its entries."""
        log = json.loads(content.partition(b"\n")[2]) if content else {}
        texts, dropped = log.get("entries", []), log.get("dropped", 0)
        if [origin for origin, _ in branches.values()] not in ([], ["log"]):
            self._violated("recorded", f"the server has {branches.keys()} branches of {device}, which never forked")
        for _, entries in branches.values():
            first = json.loads(entries[0])["number"] if entries else 1
            mine = texts[max(0, first - 1 - dropped) :][: len(entries)]
            if not dropped and mine != entries:
                self._violated("recorded", f"the server's entries of {device} are not those of its log")


def _allows(entries: list[dict[str, Any]], serial: int, clock: float | None, *, slack_s: float) -> bool:
    for entry, after in zip(entries, [*entries[1:], None], strict=True):
        if entry.get("serial") != serial:
            continue
        begins = min(entry["not_before"], entry["at"]) - slack_s
        ends = max(after["at"], after["not_before"]) + slack_s if after is not None else None
        if clock is None or (begins <= clock and (ends is None or clock <= ends)):
            return True
    return False


def _chain(device: str, log: Mapping[str, Any]) -> str:
    """What is wrong with a log; "" for nothing."""
    before = log["dropped_digest"]
    if not log.get("dropped", 0):
        before = hashlib.sha256(f"whimbrel run history 1\n{device}\n{log['log']}".encode()).hexdigest()
    digests = {log.get("dropped", 0): before}
    for number, text in enumerate(log.get("entries", ()), start=log.get("dropped", 0) + 1):
        entry = json.loads(text)
        if (entry["number"], entry["previous"]) != (number, before):
            return f"entry {number} does not follow the one before"
        before = digests[number] = hashlib.sha256(text.encode()).hexdigest()
    if not log.get("head"):
        return ""
    head = json.loads(log["head"])
    if digests.get(head["number"], head["digest"]) != head["digest"]:
        return f"the head of entry {head['number']} vouches for another one"
    try:
        key = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(log["public_key"] + "="))
        key.verify(urlsafe_b64decode(log["signature"] + "=="), b"whimbrel run head 1\n" + log["head"].encode())
    except InvalidSignature:
        return "its head is not signed by its key"
    return ""
