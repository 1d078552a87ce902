"""How much the windows of one device are alike: sums over pairs, each window with all earlier ones of its device.

1. Devices differ from one another and stay themselves, so two windows of one device are two looks at one device. What
   they share is the mean product of two windows of one device, around the means: their covariance.
2. Sums over device-windows with k windows before them, whose values add up to t, and the value y now: of k, k^2, k y,
   t and t y. They merge in any order, and no window that is over changes. A device-window is one tally window of a
   device; when more is told in it, y changes, and k and t do not.
3. Around the means of its own window and age group, weighed by k: the time of day is nobody's own.

4. Of metrics whose means are tested, and of the values of every window (health/device_window.py): whether it had a
   crash, its share of errors, whether the model was used, and the bucket of the session that stands for its latency.

Called by the tally (sums), and by the tests of means and of rates (the covariance).
"""

from typing import Annotated

from msgspec import Meta

from whimbrel.model.documents import Document

_Sum = Annotated[int, Meta(ge=0)]


class Pairs(Document, frozen=True):
    """Sums over device-windows: `pairs` of k, `squares` of k^2, `now` of k y, `then` of t, `both` of t y."""

    pairs: _Sum = 0
    squares: _Sum = 0
    now: float = 0.0
    then: float = 0.0
    both: float = 0.0

    @classmethod
    def of(cls, value: float, *, before: int, total: float) -> "Pairs":
        """One device's window, after `before` earlier windows whose values add up to `total`."""
        return cls(pairs=before, squares=before * before, now=before * value, then=total, both=total * value)

    def plus(self, other: "Pairs") -> "Pairs":
        """Both together."""
        return Pairs(
            pairs=self.pairs + other.pairs,
            squares=self.squares + other.squares,
            now=self.now + other.now,
            then=self.then + other.then,
            both=self.both + other.both,
        )

    def less(self, other: "Pairs") -> "Pairs":
        """What brings sums that hold `other` to sums that hold this instead."""
        return Pairs(
            pairs=self.pairs - other.pairs,
            squares=self.squares - other.squares,
            now=self.now - other.now,
            then=self.then - other.then,
            both=self.both - other.both,
        )

    @property
    def product(self) -> float:
        """The sum of products around the means, over all pairs."""
        return self.both - self.now * self.then / self.pairs if self.pairs else 0.0

    @property
    def freedom(self) -> float:
        """The pairs that `product` is worth: the means were taken from the same devices. 0 of a single device."""
        return self.pairs - self.squares / self.pairs if self.pairs else 0.0


NO_PAIRS = Pairs()
