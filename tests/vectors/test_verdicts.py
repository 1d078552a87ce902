"""Verdicts of pinned windows, to the last byte: stored verdicts are replayed, so a change here is a change of format.

A plan that asks for nothing new gets no new key of evidence and no other figure. Other weights of the guardrails are
such a change: verdicts that are stored with older ones are no longer given again. The words of the sentences are pinned
apart from the figures, since a replay takes the stored sentence: words may become better, figures may not change.
"""

import hashlib
import random

import msgspec
import pytest

from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.health.tally import Cell, Moments
from whimbrel.model.documents import convert, encode
from whimbrel.plan.plan import Plan

EVERYTHING = {
    "accuracy_drop_max": 0.02,
    "error_rate_max": 0.03,
    "latency_p99_max_ms": 120.0,
    "crash_ratio_max": 2.0,
    "latency_increase_max": 0.5,
    "battery_increase_max": 0.2,
}


def plan(**changes: object) -> Plan:
    stages = [
        {"name": "canary", "target_percent": 5.0, "duration_hours": 1.0},
        {"name": "all", "target_percent": 100.0, "success_criteria": changes.pop("criteria", {})},
    ]
    return convert(Plan, {"model_version": "wake@2.0.0", "stages": stages} | changes, what="a plan")


PLANS = {
    "bare": plan(),
    "limits": plan(criteria=EVERYTHING),
    "proof": plan(criteria=EVERYTHING, promote="when_proven"),
    "gentle": plan(on_small_harm="hold", alpha=0.01),
}


def cells(chance: random.Random, window: int, *, harm: float) -> list[Cell]:
    made = []
    for stage in range(1 + window // 12):
        for role, n in (("treated", 40), ("control", 400)):
            times = harm if role == "treated" else 1.0
            for name in ("pi5", "jetson", "phone"):
                for age in (0, 2):
                    mean = 0.9 - 0.01 * (times - 1)
                    values = [chance.gauss(mean, 0.05) for _ in range(12)]
                    drains = [chance.gauss(1.0 * times, 0.1) for _ in range(6)]
                    made.append(
                        Cell(
                            stage=stage,
                            window=window,
                            role=role,
                            hardware_class=name,
                            age_bucket=age,
                            at_risk=n,
                            sessions=2 * n,
                            crashed=sum(chance.random() < 0.01 * times for _ in range(n)),
                            error_units=n,
                            error_share=sum(chance.random() < 0.02 * times for _ in range(n)) / 2,
                            metrics={"accuracy": moments(values), "battery": moments(drains)},
                            latency={150 + chance.randrange(30): chance.randrange(40) for _ in range(6)},
                            due=n // 8,
                            overdue=sum(chance.random() < 0.02 * times for _ in range(n // 8)),
                        )
                    )
    return made


def moments(values: list[float]) -> Moments:
    return Moments(n=len(values), sum=sum(values), sumsq=sum(value * value for value in values))


def digests(plan: Plan, *, harm: float) -> tuple[str, str]:
    """Of the moves and figures, and of the sentences."""
    chance, ledger, figures, words = random.Random(20260101), Ledger(plan), hashlib.sha256(), hashlib.sha256()
    for window in range(24):
        stage = window // 12
        counts = {
            n: Counts(
                assigned_t=240,
                assigned_c=2400,
                activated_t=240,
                placebo_c=2400,
                reported_t=238,
                reported_c=2390,
                failed_t=1,
                went_back_t=1,
            )
            for n in range(stage + 1)
        }
        now = GateInput(
            stage=stage,
            soaked_s=300.0 * (window % 12 + 1),
            cells=cells(chance, window, harm=harm),
            counts=counts,
            shares=(90_909, 900_000)[: stage + 1],
        )
        verdict = judge(plan, now, ledger)
        figures.update(encode(msgspec.structs.replace(verdict, because="")))
        words.update(f"{verdict.because}\n".encode())
    return figures.hexdigest()[:16], words.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "harm", "figures", "words"),
    [
        ("bare", 1.0, "562f93aa9d2ccc07", "657d52ccc6e097fc"),
        ("bare", 1.5, "43cbb8b689417ff4", "0b9de4169353038c"),
        ("bare", 4.0, "38e12e89dc7042e0", "b5acff7bbec957af"),
        ("limits", 1.0, "69a7fcc89325b5d9", "657d52ccc6e097fc"),
        ("limits", 1.5, "1babd4d22317dac0", "51cdb14a688b2686"),
        ("limits", 4.0, "f58f69a944cc914b", "3a5b241ac2a06934"),
        ("proof", 1.0, "f51bacfb48319c62", "606f9256e1800a7a"),
        ("proof", 1.5, "1babd4d22317dac0", "51cdb14a688b2686"),
        ("proof", 4.0, "f58f69a944cc914b", "3a5b241ac2a06934"),
        ("gentle", 1.0, "597e4389fb285c66", "8aa8f8fc0bd923d0"),
        ("gentle", 1.5, "c565ed60d6d4b7d4", "8fdf2e94ee74616b"),
        ("gentle", 4.0, "ab369d2766f480b2", "6f8e12d571c64d78"),
    ],
)
def test_the_verdicts_of_pinned_windows(name: str, harm: float, figures: str, words: str) -> None:
    assert digests(PLANS[name], harm=harm) == (figures, words)
