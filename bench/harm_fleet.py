"""Fleets whose devices differ and stay themselves, device by device, as tally windows like those of the server.

1. One canary: every device has the version, or its placebo, from the first window on. Each device has rates of its own
   (crashes, use, speed, accuracy, presence) that it keeps; a fleet is drawn anew for every rollout.
2. The server's rules, as health/tally.py and docs/reference/windows.md say them: a device that is heard in a window is
   one device-window; of its sessions one (a random one) is kept for latency; a metric is one value a device-window; and
   `pairs` hold, of each, what the device's windows before said.
3. Nothing here is the product's own simulator (`whimbrel.forecast`): it was written apart.

`pooled` is how a server that knows no devices would count: no pairs of rates, and every session's latency.

Used by the kinds of harm_differing.py and harm_blind_spots.py.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.gate.verdict import Counts
from whimbrel.health.pairs import Pairs
from whimbrel.health.sketch import keys_of
from whimbrel.health.tally import Cell, Moments, age_bucket

Array = NDArray[Any]
WINDOW_S = 300.0
DUE_AFTER = 3  # windows until a first report is due
HABIT = 2.0  # times its own longest silence: so long a device may be silent before it is missed
DAY = 288  # windows
SESSION_SD = 0.6  # of the logarithm of one session's latency, around its device's own
MEDIAN_MS = 20.0
LEVEL_SD = 0.2  # of a device's battery and memory from one window to the next, as a share


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """What the new version does from window `onset` on; as given, nothing. Ratios but for `accuracy`, a difference.

    `dies`: the share of its devices that are never heard again. `labels`: of right answers and of wrong ones, the
    share that is still labelled.
    """

    onset: int = 0
    crash: float = 1.0
    usage: float = 1.0
    latency: float = 1.0
    accuracy: float = 0.0
    battery: float = 1.0
    memory: float = 1.0
    dies: float = 0.0
    labels: tuple[float, float] = (1.0, 1.0)


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet, and how its devices differ. A spread of 0 (or no shape) means that they are alike.

    `crash`: of a device-window in use. `sessions`: of a device and window, on average; None: each window has one.
    `*_sd`: the deviation of the logarithm of devices' own levels; `accuracy_sd`: of their own accuracies.
    `online`: of a window; `online_shape`: a and b of devices' own share of windows offline come from it (beta).
    """

    devices: int = 1000
    treated: float = 0.1
    windows: int = DAY
    classes: int = 1
    crash: float = 0.01
    crash_shape: float | None = None
    sessions: float | None = None
    usage_sd: float = 0.0
    habits: bool = False  # devices use it nearly always or hardly ever: own use from a beta distribution, .5 and .5
    errors: float = 0.0
    timed: bool = False  # latency is told
    speed_sd: float = 0.0
    accuracy: float | None = None
    accuracy_sd: float = 0.0
    labelled: float = 0.4  # of sessions
    battery_sd: float | None = None  # None: neither battery nor memory is told
    online: float = 1.0
    online_shape: float | None = None
    due_again: bool = True


class Drawn(msgspec.Struct):
    """Arrays of (devices, windows): who was heard, what it counted, and what it told."""

    heard: Array
    sessions: Array
    crashed: Array
    error_share: Array
    metrics: dict[str, tuple[Array, Array]]  # which windows told it, and the value
    timed: Array | None  # (sessions, 3): device, window, sketch bucket


def draw_fleet(fleet: Fleet, harm: Harm, draw: np.random.Generator) -> Drawn:
    """One fleet over its windows. The first devices are the treated ones: they were drawn alike."""
    n, windows = fleet.devices, fleet.windows
    harmed = np.zeros((n, windows), dtype=bool)
    harmed[: treated_of(fleet), harm.onset :] = True
    heard = draw.random((n, windows)) < _own_presence(fleet, draw)[:, None]
    heard &= ~(harmed & (draw.random(n) < harm.dies)[:, None])
    mean = _own_usage(fleet, draw)[:, None] * np.where(harmed, harm.usage, 1.0)
    if fleet.sessions is not None:
        sessions = draw.poisson(mean)
    elif fleet.habits or harm.usage != 1:
        sessions = (draw.random((n, windows)) < mean).astype(np.int64)
    else:
        sessions = np.ones((n, windows), dtype=np.int64)
    sessions = np.where(heard, sessions, 0)
    own = fleet.crash * (draw.gamma(fleet.crash_shape, 1 / fleet.crash_shape, n) if fleet.crash_shape else np.ones(n))
    rate = np.minimum(1.0, own[:, None] * np.where(harmed, harm.crash, 1.0))
    crashed = (draw.random((n, windows)) < rate) & (sessions > 0)
    errors = draw.binomial(sessions, fleet.errors) / np.maximum(sessions, 1)
    return Drawn(
        heard=heard,
        sessions=sessions,
        crashed=crashed,
        error_share=errors,
        metrics=_metrics(fleet, harm, draw, heard=heard, sessions=sessions, harmed=harmed),
        timed=_latencies(fleet, harm, draw, sessions=sessions, harmed=harmed) if fleet.timed else None,
    )


def treated_of(fleet: Fleet) -> int:
    """How many devices are treated."""
    return round(fleet.devices * fleet.treated)


def _own_presence(fleet: Fleet, draw: np.random.Generator) -> Array:
    if fleet.online_shape is None or fleet.online == 1:
        return np.full(fleet.devices, fleet.online)
    shape = fleet.online_shape
    return 1 - draw.beta(shape * (1 - fleet.online), shape * fleet.online, fleet.devices)


def _own_usage(fleet: Fleet, draw: np.random.Generator) -> Array:
    if fleet.habits:
        return draw.beta(0.5, 0.5, fleet.devices)
    spread = fleet.usage_sd
    return (fleet.sessions or 1.0) * np.exp(draw.normal(-spread * spread / 2, spread, fleet.devices))


def _metrics(
    fleet: Fleet, harm: Harm, draw: np.random.Generator, *, heard: Array, sessions: Array, harmed: Array
) -> dict[str, tuple[Array, Array]]:
    told = {}
    shape = heard.shape
    if fleet.accuracy is not None:
        own = np.clip(draw.normal(fleet.accuracy, fleet.accuracy_sd, fleet.devices), 0, 1)[:, None]
        right = draw.binomial(sessions, np.clip(own - np.where(harmed, harm.accuracy, 0.0), 0, 1))
        of_right, of_wrong = (np.where(harmed, share, 1.0) * fleet.labelled for share in harm.labels)
        known_right, known_wrong = draw.binomial(right, of_right), draw.binomial(sessions - right, of_wrong)
        known = known_right + known_wrong
        told["accuracy"] = (known > 0, known_right / np.maximum(known, 1))
    if fleet.battery_sd is not None:
        for name, level, ratio in (("battery", 5.0, harm.battery), ("memory_mb", 200.0, harm.memory)):
            own = level * np.exp(draw.normal(0, fleet.battery_sd, fleet.devices))[:, None]
            values = own * np.where(harmed, ratio, 1.0) * np.maximum(0.05, draw.normal(1.0, LEVEL_SD, shape))
            told[name] = (heard, values)
    return told


def _latencies(fleet: Fleet, harm: Harm, draw: np.random.Generator, *, sessions: Array, harmed: Array) -> Array:
    own = MEDIAN_MS * np.exp(draw.normal(0, fleet.speed_sd, fleet.devices))
    device, window = (each.repeat(sessions.ravel()) for each in (part.ravel() for part in np.indices(sessions.shape)))
    slower = np.where(harmed[device, window], harm.latency, 1.0)
    values = own[device] * slower * np.exp(draw.normal(0, SESSION_SD, len(device)))
    return np.stack([device, window, keys_of(values)], axis=1)


# --- the server's part ---


def cells_of_fleet(fleet: Fleet, harm: Harm, *, seed: int, pooled: bool = False) -> Iterator[Cell]:
    """The cells of one rollout's canary, in order."""
    for cells, _ in windows_of_fleet(fleet, harm, seed=seed, pooled=pooled):
        yield from cells


def windows_of_fleet(
    fleet: Fleet, harm: Harm, *, seed: int, pooled: bool = False
) -> Iterator[tuple[list[Cell], Counts]]:
    """Each window of one rollout's canary: its cells, and the counts of devices after it."""
    draw = np.random.default_rng(seed)
    drawn = draw_fleet(fleet, harm, draw)
    classes = np.arange(fleet.devices) % fleet.classes
    kept = _kept(drawn.timed, draw) if drawn.timed is not None and not pooled else drawn.timed
    due, overdue, missed = looks(drawn.heard, again=fleet.due_again and not pooled)
    used = drawn.sessions > 0
    told = {name: moments for name, moments in drawn.metrics.items() if moments[0].any()}
    pairs = {name: _past(mask, values) for name, (mask, values) in told.items()}
    if not pooled:
        pairs["crash"] = _past(drawn.heard, drawn.crashed)
        pairs["usage"] = _past(drawn.heard, used)
        if fleet.errors:
            pairs["error"] = _past(used, drawn.error_share)
        if kept is not None:
            pairs["latency"] = _past(*_grid(kept, drawn.heard.shape))
    counted = {
        "at_risk": drawn.heard,
        "sessions": drawn.sessions,
        "unused": drawn.heard & ~used,
        "crashed": drawn.crashed,
        "error_units": used,
        "error_share": drawn.error_share,
        "error_squares": drawn.error_share**2,
        "due": due,
        "overdue": overdue,
    }
    treated = np.arange(fleet.devices) < treated_of(fleet)
    arms = [
        (role, index, np.flatnonzero((treated == (role == "treated")) & (classes == index)))
        for role in ("treated", "control")
        for index in range(fleet.classes)
    ]
    made = []
    for role, index, group in arms:
        sums = {name: values[group].sum(axis=0).tolist() for name, values in counted.items()}
        moments = {
            name: [part[group].sum(axis=0).tolist() for part in (mask, mask * values, mask * values**2)]
            for name, (mask, values) in told.items()
        }
        sums_of_pairs = {name: [part[group].sum(axis=0).tolist() for part in past] for name, past in pairs.items()}
        sketches = _sketches(kept, group, fleet.windows) if kept is not None else {}
        made.append((role, index, sums, moments, sums_of_pairs, sketches))
    reported, ever_used = np.cumsum(drawn.heard, axis=1) > 0, np.cumsum(used, axis=1) > 0
    silent = [(missed & reported)[each].sum(axis=0) for each in (treated, ~treated)]
    spoke = [reported[each].sum(axis=0) for each in (treated, ~treated)]
    unused = (reported & ~ever_used)[treated].sum(axis=0)
    for window in range(fleet.windows):
        cells = [_cell(window, *each) for each in made]
        counts = Counts(
            assigned_t=int(treated.sum()),
            assigned_c=int((~treated).sum()),
            activated_t=int(treated.sum()),
            placebo_c=int((~treated).sum()),
            reported_t=int(spoke[0][window]),
            reported_c=int(spoke[1][window]),
            silent_t=int(silent[0][window]),
            silent_c=int(silent[1][window]),
            unused_t=int(unused[window]),
        )
        yield [cell for cell in cells if cell.at_risk or cell.due], counts


def _cell(
    window: int,
    role: str,
    index: int,
    sums: dict[str, list[Any]],
    moments: dict[str, list[list[Any]]],
    sums_of_pairs: dict[str, list[list[Any]]],
    sketches: dict[int, dict[int, int]],
) -> Cell:
    of_metrics = {}
    for name, (n, total, squares) in moments.items():
        if n[window]:
            of_metrics[name] = Moments(n=n[window], sum=float(total[window]), sumsq=float(squares[window]))
    of_pairs = {}
    for name, (k, squared, now, then, both) in sums_of_pairs.items():
        if k[window]:
            of_pairs[name] = Pairs(
                pairs=int(k[window]),
                squares=int(squared[window]),
                now=float(now[window]),
                then=float(then[window]),
                both=float(both[window]),
            )
    return Cell(
        stage=0,
        window=window,
        role=role,  # type: ignore[arg-type]
        hardware_class=f"class-{index:02d}",
        age_bucket=age_bucket((window + 0.5) * WINDOW_S, hour_s=3600.0),
        metrics=of_metrics,
        pairs=of_pairs,
        latency=sketches.get(window, {}),
        **{name: values[window] for name, values in sums.items()},
    )


def looks(heard: Array, *, again: bool) -> tuple[Array, Array, Array]:
    """(due, overdue, missed) of each device and window: who was looked at, who was silent, and who is missed since.

    First some windows after the version was taken. `again`: from then on in every window each device that was heard
    since it was missed last. It is overdue once, when it is silent for longer than it may and than twice its own
    longest silence so far.
    """
    due, overdue, missed = np.zeros_like(heard), np.zeros_like(heard), np.zeros_like(heard)
    due[:, DUE_AFTER] = True
    overdue[:, DUE_AFTER] = ~heard[:, : DUE_AFTER + 1].any(axis=1)
    if not again:
        return due, overdue, missed
    newest = np.full(len(heard), -1)  # window in which it was heard; each is taken to be heard in the middle of one
    longest = np.zeros(len(heard))
    away = np.ones(len(heard), dtype=bool)  # never heard yet, or missed
    for window in range(heard.shape[1]):
        here = heard[:, window]
        longest = np.where(here, np.maximum(longest, window - newest), longest)
        newest, away = np.where(here, window, newest), away & ~here
        if window > DUE_AFTER:
            due[:, window] = ~away
            overdue[:, window] = ~away & (window + 0.5 - newest > np.maximum(DUE_AFTER, HABIT * longest))
            away |= overdue[:, window]
        missed[:, window] = away & (newest >= 0)
    return due, overdue, missed


def _past(mask: Array, values: Array) -> list[Array]:
    """The five sums of pairs (health/pairs.py) of each device-window, still by device."""
    k = np.cumsum(mask, axis=1) - mask
    kept = mask * values
    then = np.cumsum(kept, axis=1) - kept
    k, then = k * mask, then * mask
    return [k, k * k, k * kept, then, then * kept]


def _kept(timed: Array, draw: np.random.Generator) -> Array:
    """One random session of each device-window that had any."""
    shuffled = timed[draw.permutation(len(timed))]
    _, first = np.unique(shuffled[:, 0] * (timed[:, 1].max(initial=0) + 1) + shuffled[:, 1], return_index=True)
    return np.asarray(shuffled[first])


def _grid(kept: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    mask, values = np.zeros(shape, dtype=bool), np.zeros(shape)
    mask[kept[:, 0], kept[:, 1]] = True
    values[kept[:, 0], kept[:, 1]] = kept[:, 2]
    return mask, values


def _sketches(kept: Array, group: Array, windows: int) -> dict[int, dict[int, int]]:
    """The arm's latency by window: counts by sketch bucket."""
    of_group = np.zeros(int(kept[:, 0].max(initial=0)) + 1, dtype=bool)
    of_group[group[group < len(of_group)]] = True
    of_arm = kept[of_group[kept[:, 0]]]
    if not len(of_arm):
        return {}
    low = int(of_arm[:, 2].min())
    width = int(of_arm[:, 2].max()) - low + 1
    counts = np.bincount(of_arm[:, 1] * width + of_arm[:, 2] - low, minlength=windows * width).reshape(windows, width)
    sketches: dict[int, dict[int, int]] = {}
    at = np.nonzero(counts)
    for window, place, count in zip(*(each.tolist() for each in (*at, counts[at])), strict=True):
        sketches.setdefault(window, {})[place + low] = count
    return sketches
