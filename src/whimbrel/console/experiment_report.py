"""The report of an experiment, for people who were not there: as Markdown, HTML or a picture.

1. All forms have the same sections: what was asked, the answer and why, the arms, the interval over time, guardrails,
   what the past of devices explained, what happened, and what the report cannot say.
2. HTML is one file: its plots are inside. Markdown names PNG files that are written beside it.
3. The figures are those of the verdict, which anyone may recompute (`whimbrel experiment replay`).

Called by the command line, with the admin API's view of an experiment (`history=true`).
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from whimbrel.console.charts import draw
from whimbrel.console.experiment_plots import plots_of
from whimbrel.console.report_forms import Page, Section, as_html, as_markdown

View = Mapping[str, Any]

_ANSWERS = {
    "shipped": "Ship",
    "kept": "Keep the control",
    "inconclusive": "Inconclusive",
    "stopped": "Stopped by a person",
    "running": "Still running",
}
_TONES = {"shipped": "#2f7d4f", "inconclusive": "#a06a00", "stopped": "#b03040"}
_SRM = 0.01


def write_report(view: View, *, form: str, stem: str, now: float) -> dict[str, bytes]:
    """The files of a report: the report itself under "", and the files beside it by their names."""
    plots = plots_of(view)
    if form == "png":
        return {"": draw(plots["interval"], "png")}
    page = page_of(view, now=now)
    if form == "html":
        return {"": as_html(page, {name: draw(spec, "svg") for name, spec in plots.items()})}
    names = {name: f"{stem}-{name}.png" for name in plots}
    return {"": as_markdown(page, names)} | {names[name]: draw(spec, "png") for name, spec in plots.items()}


def page_of(view: View, *, now: float) -> Page:
    """The whole report."""
    ended = f", ended {_when(view['ended_at'])} UTC" if view["ended_at"] is not None else ""
    because = view["because"] if view["phase"] != "running" else view["verdict"]["because"]
    return Page(
        title=view["name"],
        about=f"Experiment {view['id']} on {view['model']}, begun {_when(view['created_at'])} UTC{ended}",
        answer=_ANSWERS[view["phase"]] + (f" {view['winner']}" if view["winner"] else ""),
        because=because[:1].upper() + because[1:] + ("" if because.endswith(".") else "."),
        sections=tuple(sections_of(view, now=now)),
        tone=_TONES.get(view["phase"], "#1f6f8b"),
    )


def sections_of(view: View, *, now: float) -> list[Section]:
    """The report's sections, in order."""
    evidence = view["verdict"]["evidence"]
    sections = [_question(view), _arms(view, evidence), _primary(view, evidence)]
    if _before(view, evidence):
        sections.append(_cuped(evidence))
    return [*sections, _guardrails(evidence), _acts(view), _limits(view, evidence, now=now)]


def _question(view: View) -> Section:
    primary = view["primary"]
    aim = {"increase": "more", "decrease": "less"}[primary["direction"]]
    sentences = [
        f"Which version of {view['model']} gives {aim} {primary['name']}? {_arms_named(view)}",
        f"Decided once {view['minimum_sample_size']:,} devices have reported, after {view['duration_days']:g} "
        f"days at the latest; at most {100 * view['alpha']:g}% of such experiments may call a difference that is "
        "not there, however often they are looked at.",
    ]
    if view["bucket_by"] != "device":
        label = view["bucket_by"].removeprefix("label:")
        sentences.append(
            f"Devices with the same {label} are in the same arm. Which these are is known to the devices alone, so "
            f"{view['devices_per_value']:g} devices count as one in all that is proven."
        )
    if primary.get("minimum_effect"):
        sentences.append(f"The smallest effect worth shipping was set to {primary['minimum_effect']:g} beforehand.")
    return Section("What was asked", tuple(sentences))


def _arms_named(view: View) -> str:
    named = [
        f"{arm['id']} is {arm['version']}" + (f", {_plain(arm['description'])}" if arm["description"] else "")
        for arm in view["arms"]
    ]
    return "; ".join(named) + "."


def _plain(text: str) -> str:
    return text.strip().rstrip(".")


def _arms(view: View, evidence: View) -> Section:
    rows = []
    for arm in view["arms"]:
        state = "control" if arm["role"] == "control" else "stopped" if arm["stopped"] else "treated"
        if arm["without"] and not arm["stopped"]:
            state = f"treated, but for {', '.join(arm['without'])}"
        rows.append(
            (
                arm["id"],
                state,
                arm["version"],
                f"{100 * arm['share']:g}%",
                *(f"{arm[name]:,}" for name in ("assigned", "active", "reported", "failed")),
            )
        )
    sentences = []
    for arm in view["arms"]:
        if arm["stopped"]:
            sentences.append(f"{arm['stopped']}.")
        elif arm["without"]:
            sentences.append(
                f"{arm['id']} was stopped in {', '.join(arm['without'])}, where it did harm: these devices run the "
                "baseline, and its figures, the control's among them, are those of all others."
            )
    ratio = evidence.get("sample_ratio")
    if ratio:
        worst = max(ratio.values())
        needed = math.log(1 / _SRM)
        odds = f"the strongest evidence against it is a Bayes factor of {_factor(worst)}, and {1 / _SRM:g} would block"
        clean = worst < needed
        sentences.append(
            f"Devices fall into the arms as their buckets say: {odds} a decision."
            if clean
            else f"Devices do NOT fall into the arms as their buckets say ({odds}): one arm loses devices."
        )
    columns = ("arm", "role", "version", "share", "assigned", "active", "reported", "failed or went back")
    return Section(
        "The arms", tuple(sentences), columns, tuple(rows), "counts", "Devices of each arm, by how far they came."
    )


def _factor(log: float) -> str:
    return f"{math.exp(log):.3g}" if abs(log) < 50 else f"e^{log:.0f}"


def _primary(view: View, evidence: View) -> Section:
    primary, ratio = view["primary"], view["primary"]["name"] == "crash_rate"
    sure = f"{100 * (1 - view['arm_alpha']):g}%"
    rows = []
    for name, arm in evidence["arms"].items():
        plain, deciding = arm["plain"], arm["deciding"]
        rows.append(
            (
                name,
                f"{arm['devices']:,} / {arm['devices_control']:,}",
                _number(deciding, "estimate", ratio=ratio),
                _interval(deciding, ratio=ratio),
                _interval(plain, ratio=ratio),
            )
        )
    what = "the control's crash rate that the arm has" if ratio else f"{primary['name']}, arm less control"
    sentences = [
        f"The interval holds at every moment of the experiment at once, with {sure} for each arm; so it may be "
        "read, and the experiment stopped, at any time.",
    ]
    if len(evidence["arms"]) > 1:
        sentences.append("Over all arms together it holds with the whole budget: alpha is split evenly (Bonferroni).")
    effect = "ratio" if ratio else "difference"
    columns = ("arm", "devices (arm / control)", effect, f"{sure} interval that decides", "without the past of devices")
    return Section(
        f"{primary['name']} over time",
        tuple(sentences),
        columns,
        tuple(rows),
        "interval",
        f"Line: {what}. Band: the interval that decides; dashed: without the past of devices.",
    )


def _number(look: View | None, name: str, *, ratio: bool = False) -> str:
    if look is None or look[name] is None:
        return "not bounded" if look is not None else "none yet"
    return f"{look[name]:.3g}" if ratio else f"{look[name]:+.3g}"


def _interval(look: View | None, *, ratio: bool = False) -> str:
    if look is None:
        return "none yet"
    return f"{_number(look, 'low', ratio=ratio)} to {_number(look, 'high', ratio=ratio)}"


def _before(view: View, evidence: View) -> bool:
    return view["primary"]["name"] != "crash_rate" and any(arm["with_before"] for arm in evidence["arms"].values())


def _cuped(evidence: View) -> Section:
    rows = []
    for name, arm in evidence["arms"].items():
        gain = _narrower(arm)
        rows.append(
            (
                name,
                f"{arm['with_before']:,}",
                f"{arm['explained']:.0%}",
                f"{arm['theta']:.4g}",
                f"{gain:.0%}" if gain is not None else "none yet",
            )
        )
    return Section(
        "What devices were before",
        (
            "Every device notes its mean of the metric until it was assigned, and never later. What that explains of "
            "the differences between devices is taken off (CUPED), so the interval is narrower at the same guarantee.",
        ),
        ("arm", "devices with a past, an arm", "variance explained", "slope", "interval narrower by"),
        tuple(rows),
    )


def _narrower(arm: View) -> float | None:
    plain, deciding = arm["plain"], arm["deciding"]
    if not plain or not deciding or plain["high"] is None or deciding["high"] is None:
        return None
    return float(1 - (deciding["high"] - deciding["low"]) / (plain["high"] - plain["low"]))


def _guardrails(evidence: View) -> Section:
    arms = list(evidence["arms"])
    rows = []
    for guard in sorted({name for arm in evidence["arms"].values() for name in arm.get("guardrails", {})}):
        logs = (evidence["arms"][name].get("guardrails", {}).get(guard) for name in arms)
        rows.append((f"{guard} (ln E of harm)", *("" if log is None else f"{log:.2f}" for log in logs)))
    together = [arm.get("log_e") for arm in evidence["arms"].values()]
    if rows:
        needed = max(arm.get("log_e_needed", 0.0) for arm in evidence["arms"].values())
        shown = ("" if log is None else f"{log:.2f} of {needed:.2f}" for log in together)
        rows.append(("all together, of what stops the arm", *shown))
    for guard in sorted({name for arm in evidence["arms"].values() for name in arm["own_guardrails"]}):
        looks = (evidence["arms"][name]["own_guardrails"].get(guard) for name in arms)
        shown = ("" if look is None else f"{_number(look, 'estimate')} ({_interval(look)})" for look in looks)
        rows.append((f"{guard} (difference and interval)", *shown))
    return Section(
        "Guardrails",
        (
            "Each arm was watched as a rollout is: crashes, errors, silence, latency, accuracy and failed "
            "installs against the control, under one budget. ln E is the logarithm of a bet on harm: 0 where there is "
            "no evidence (or nothing was reported), below 0 where there is evidence of none.",
        ),
        ("guardrail", *arms),
        tuple(rows),
    )


def _acts(view: View) -> Section:
    rows = [(_when(act["at"]), act["actor"], act["action"], act["because"]) for act in view.get("acts", ())]
    return Section("What happened", (), ("at (UTC)", "who", "what", "because"), tuple(rows))


def _limits(view: View, evidence: View, *, now: float) -> Section:
    days, ratio = evidence["days"], view["primary"]["name"] == "crash_rate"
    sentences = [
        f"It ran {_span(days)}. What changes with the day of the week, or wears off when the new is no longer "
        "new, shows in whole weeks only.",
        "It is about the devices that reported, on average over them: an effect on some kinds of devices only is "
        "spread over all.",
        "The intervals are asymptotic: they need some tens of devices an arm, and more where a few devices have "
        "extreme values."
        if not ratio
        else "Crashes are counted at most once a device and window; devices that crash "
        "again and again make the interval of the ratio too narrow.",
        "Devices that never reported are compared by their number only (silence, and the split of the arms).",
    ]
    sentences.append(
        f"Written {_when(now)} UTC from {evidence['windows']:,} closed windows; `whimbrel experiment replay "
        f"{view['id']}` asks for every verdict again."
    )
    return Section("What this cannot say", tuple(sentences))


def _span(days: float) -> str:
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
