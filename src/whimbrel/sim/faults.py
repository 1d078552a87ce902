"""The faults of a world and their rates, drawn from the seed. Each world has some kinds of faults, not all.

A world in which everything fails at once makes no progress and finds little. A few kinds at changing rates find more
(swarm testing: Groce et al., ISSTA 2012).
"""

import random

import msgspec

LINK = (
    "request lost",
    "answer lost",
    "server error",
    "cut short",
    "stale timestamp",
    "bit flipped",
    "too long",
    "range ignored",
    "not found",
    "said twice",
    "said again later",
    "slow",
)
DEVICE = (
    "power cut",
    "process killed",
    "off for long",
    "clock jump",
    "disk full",
    "partition",
    "app killed",
    "policy missing",
    "probe unavailable",
    "power cut while probing",
)
SERVER = ("server away", "round broken off", "messages taken twice", "server restarted")
PATCH = ("patch damaged", "patch lost")  # in worlds with patches


class Faults(msgspec.Struct):
    """Rates by kind: a chance for each request (LINK), or events in an hour of a device (DEVICE) or of the server."""

    rates: dict[str, float]
    on: bool = True

    @classmethod
    def drawn(cls, chance: random.Random) -> "Faults":
        """Draw the faults of one world."""
        rates: dict[str, float] = {}
        for kinds, most in ((LINK, 0.12), (DEVICE, 1.2), (SERVER, 3.0), (PATCH, 12.0)):
            for kind in kinds:
                if chance.random() < 0.5:
                    rates[kind] = most * chance.random() ** 2
        return cls(rates)

    def rate(self, kind: str) -> float:
        """The rate of a kind of fault. 0 once the faults have stopped."""
        return self.rates.get(kind, 0.0) if self.on else 0.0
