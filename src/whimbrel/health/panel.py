"""One value for each device of an experiment, and panels: sums of these values over an arm.

1. A device has one value: the mean over its windows so far, each less what the control showed just before (so the time
   of day is taken out, the same for every arm). A panel holds sums over devices: n, value, its square, and, of devices
   that know their mean from before the experiment, that one, its square and the product. When a device's value moves,
   what changed is added: panels are sums, so they merge in any order and the newest sum is the present state.

Called by the tally. How two arms' panels are compared: gate/differences.py.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel.model.documents import Document

LEAST_DEVICES = 30  # of each arm before its variance is believed

_Sum = Annotated[int, Meta(ge=-(2**53), le=2**53)]


class Panel(Document, frozen=True):
    """Sums over devices: `y` values, `x` their means from before; `both_*` of the `both` devices that have an x."""

    n: _Sum = 0
    y: float = 0.0
    yy: float = 0.0
    both: _Sum = 0
    both_y: float = 0.0
    both_yy: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def plus(self, other: "Panel") -> "Panel":
        """Both together."""
        return Panel(
            n=self.n + other.n,
            y=self.y + other.y,
            yy=self.yy + other.yy,
            both=self.both + other.both,
            both_y=self.both_y + other.both_y,
            both_yy=self.both_yy + other.both_yy,
            x=self.x + other.x,
            xx=self.xx + other.xx,
            xy=self.xy + other.xy,
        )

    @property
    def mean(self) -> float | None:
        """The mean value of its devices; None without any."""
        return self.y / self.n if self.n else None


def moved(*, old: float | None, new: float, before: float | None) -> Panel:
    """What changes when a device's value goes from `old` (None: it had none yet) to `new`."""
    y, yy = new - (old or 0.0), new * new - (old or 0.0) ** 2
    first = old is None
    if before is None:
        return Panel(n=int(first), y=y, yy=yy)
    return Panel(
        n=int(first),
        y=y,
        yy=yy,
        both=int(first),
        both_y=y,
        both_yy=yy,
        x=before if first else 0.0,
        xx=before * before if first else 0.0,
        xy=before * y,
    )


class Value(Document, frozen=True):
    """A device's value over windows that are over: how many, their sum, and what it was before it was assigned."""

    n: Annotated[int, Meta(ge=0)] = 0
    total: float = 0.0
    before: float | None = None

    def plus(self, value: float) -> "Value":
        """The value with one window more."""
        return Value(n=self.n + 1, total=self.total + value, before=self.before)

    def change(self, *, old: float | None, new: float) -> Panel:
        """What changes in the panel when the open window says `new`, after it said `old` (None: nothing yet)."""
        if old is not None:
            mean: float | None = (self.total + old) / (self.n + 1)
        else:
            mean = self.total / self.n if self.n else None
        return moved(old=mean, new=(self.total + new) / (self.n + 1), before=self.before)
