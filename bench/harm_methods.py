"""The methods that the gate is measured against: honest versions of peers', and an oracle that knows the effect.

Each sees the one metric that is about to get worse, as (events, units) of both arms a window, and is judged by the
first window at which it takes the version back.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harm_streams import CLASSES, FINE, WINDOWS, Latency, Scenario
from whimbrel.gate.batch_gate import Arm

Array = NDArray[Any]
Series = tuple[Array, Array, Array, Array]


def series(history: list[dict[int, tuple[Arm, Arm]]], metric: str, latency: Latency) -> Series:
    """(windows, runs) of treated events and units, control events and units."""
    rows: list[list[Array]] = []
    for cohorts in history:
        row = []
        for role in (0, 1):
            arms = [arms[role] for arms in cohorts.values()] if role == 0 else [cohorts[0][1]]
            row += [sum(part) for part in zip(*(_read(arm, metric, latency) for arm in arms), strict=True)]
        rows.append(row)
    stacked = [np.array([row[index] for row in rows], dtype=float) for index in range(4)]
    return stacked[0], stacked[1], stacked[2], stacked[3]


def _read(arm: Arm, metric: str, latency: Latency) -> tuple[Array, Array]:
    if metric == "crash":
        return arm.crashed.sum(axis=(1, 2)), arm.at_risk.sum(axis=(1, 2))
    if metric == "silence":
        return arm.overdue.sum(axis=(1, 2)), arm.due.sum(axis=(1, 2))
    if metric == "accuracy":
        return (arm.accuracy_n - arm.accuracy_sum).sum(axis=(1, 2)), arm.accuracy_n.sum(axis=(1, 2))
    over = arm.latency[:, :, latency.p[0.95 if metric == "p95" else 0.99] + 1 :]
    return over.sum(axis=(1, 2)), arm.at_risk.sum(axis=(1, 2))


def _first(stops: NDArray[np.bool_]) -> list[int | None]:
    return [int(np.argmax(column)) if column.any() else None for column in stops.T]


def _safe(x: Array, n: Array) -> Array:
    return np.asarray(np.where(n > 0, x / np.maximum(n, 1), 0.0))


def fixed_threshold(data: Series, *, base: float) -> list[int | None]:
    """A metric over 1.5 times a static baseline fails a window; the fourth failure takes it back (failureLimit 3)."""
    x_t, n_t, _, _ = data
    return _first(np.cumsum((_safe(x_t, n_t) > 1.5 * base) & (n_t > 0), axis=0) > 3)


def mann_whitney(data: Series, *, base: float) -> list[int | None]:  # noqa: ARG001 (a peer like the others)
    """Every hour, the windows' values of both arms so far, as Kayenta's default judge classifies them.

    The lower end of the 98% confidence interval of the shift (Hodges and Lehmann) must lie above a quarter of its
    estimate: a fraction of 0.25 and a confidence level of 0.98 are fixed in its source (NetflixACAJudge, 2017 to 2024),
    and so is the normal approximation of the interval. A single such hour takes the version back.
    """
    x_t, n_t, x_c, n_c = data
    t, c = _safe(x_t, n_t), _safe(x_c, n_c)
    stops = np.zeros(t.shape, dtype=bool)
    for end in range(12, len(t) + 1, 12):
        place = int(end * end / 2 - 2.326 * math.sqrt(end * end * (2 * end + 1) / 12))
        for run in range(t.shape[1]):
            if stops[:end, run].any():
                continue
            shifts = np.subtract.outer(t[:end, run], c[:end, run]).ravel()
            ordered = np.partition(shifts, (max(0, place), len(shifts) // 2))
            low, estimate = ordered[max(0, place)], ordered[len(shifts) // 2]
            stops[end - 1, run] = place >= 0 and low > max(0.0, 0.25 * estimate)
    return _first(stops)


def _z(data: Series) -> Array:
    x_t, n_t, x_c, n_c = (np.cumsum(each, axis=0) for each in data)
    pooled = _safe(x_t + x_c, n_t + n_c)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / np.maximum(n_t, 1) + 1 / np.maximum(n_c, 1)), 1e-12))
    return np.asarray((_safe(x_t, n_t) - _safe(x_c, n_c)) / spread)


def obrien_fleming(data: Series, *, base: float) -> list[int | None]:  # noqa: ARG001 (a peer like the others)
    """A pooled z-test at every window, with O'Brien-Fleming's boundary over the planned length, one-sided 1%."""
    fraction = (np.arange(len(data[0])) + 1)[:, None] / WINDOWS
    return _first(_z(data) >= 2.576 / np.sqrt(fraction))


def repeated_z(data: Series, *, base: float) -> list[int | None]:  # noqa: ARG001 (a peer like the others)
    """The same z-test at 1% after every window, as a dashboard is read."""
    return _first(_z(data) >= 2.326)


def oracle(data: Series, scenario: Scenario, latency: Latency) -> list[int | None]:
    """Wald's test of the true effect against no effect, from the treated share of the events, at 1%."""
    x_t, n_t, x_c, n_c = data
    base, after = rates(scenario, latency, best=True)
    ratio = after / base
    use = (n_t > 0) & (n_c > 0)
    p0 = np.where(use, n_t / np.maximum(n_t + n_c, 1), 0.5)
    p1 = ratio * p0 / (1 + p0 * (ratio - 1))
    change = np.where(use, x_t * np.log(p1 / p0) + x_c * np.log((1 - p1) / (1 - p0)), 0)
    return _first(np.cumsum(change, axis=0) >= math.log(100))


def rates(scenario: Scenario, latency: Latency, *, best: bool = False) -> tuple[float, float]:
    """The true rate of the metric's events before and after. `best`: of the oracle's own reading."""
    if scenario.metric == "crash":
        after = scenario.base + (scenario.after - scenario.base) / (CLASSES if scenario.one_class else 1)
        return scenario.base, after
    if scenario.metric == "accuracy":
        return 1 - scenario.base, 1 - scenario.after
    if scenario.metric == "silence":
        return scenario.silent, 1 - (1 - scenario.silent) * (1 - scenario.after)
    edge = latency.p[0.95 if best else 0.99] + 1
    return float(latency.plain[edge:].sum()), float(latency.slow[edge:].sum())


PEERS: dict[str, Callable[..., list[int | None]]] = {
    "fixed_threshold": fixed_threshold,
    "mann_whitney": mann_whitney,
    "obrien_fleming": obrien_fleming,
    "repeated_z": repeated_z,
}


def peers(history: list[dict[int, tuple[Arm, Arm]]], scenario: Scenario) -> dict[str, list[int | None]]:
    """The window at which every other method stops, for each run."""
    base = rates(scenario, FINE)[0]
    data = series(history, scenario.metric, FINE)
    stops = {name: method(data, base=base) for name, method in PEERS.items()}
    best = series(history, "p95", FINE) if scenario.metric == "latency" else data
    stops["oracle"] = oracle(best, scenario, FINE)
    return stops
