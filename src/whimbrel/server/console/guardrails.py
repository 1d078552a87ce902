"""What each guardrail of a rollout shows, as its page has it: both arms in figures, a chart, and how much is proven."""

from whimbrel.console.graphics import RatioChart, ratio_chart
from whimbrel.console.views.rollout import GuardrailLine
from whimbrel.console.words import events, figure, plan_hours
from whimbrel.flows.rollouts.effects import Effect, Effects

_LOOKED_AT = ("crash", "error", "silence", "usage")  # shown whatever they say, where anything was told of them


def guardrail_lines(effects: Effects | None) -> tuple[list[GuardrailLine], list[GuardrailLine], list[str]]:
    """Those to look at, most evidence first; those that see no harm; and those of which nothing was told."""
    if effects is None:
        return [], [], []
    ordered = sorted(effects.effects, key=lambda each: (-max(0.0, each.log_e), each.guardrail not in _LOOKED_AT))
    told = [each for each in ordered if each.treated is not None or each.control is not None]
    first = [each for each in told if each.guardrail in _LOOKED_AT or part_of_proof(each.log_e, effects.needed) >= 1]
    return (
        [_guardrail(each, needed=effects.needed) for each in first],
        [_guardrail(each, needed=effects.needed) for each in told if each not in first],
        [each.words for each in ordered if each not in told],
    )


def _guardrail(effect: Effect, *, needed: float) -> GuardrailLine:
    treated, control = figure(effect.treated, effect.form), figure(effect.control, effect.form)
    name = effect.words[0].upper() + effect.words[1:]
    happened = effect.events is not None and any(effect.events)
    chart = _chart(effect, name) if effect.points and effect.limit is not None and happened else None
    part = part_of_proof(effect.log_e, needed)
    tone = "harm" if part >= 100 else "doubt" if part >= 50 or (chart is not None and chart.harm) else "good"
    small = ""
    if effect.events is not None and effect.exposure is not None:
        (of_treated, of_control), (in_treated, in_control) = effect.events, effect.exposure
        small = f"{events(of_treated)} of {in_treated:,.0f} against {events(of_control)} of {in_control:,.0f}"
    return GuardrailLine(
        name=name,
        effect=f"{treated} against {control}",
        tone=tone,
        state={"harm": "harm is proven", "doubt": "in doubt", "good": "no harm seen"}[tone],
        evidence=part,
        evidence_words=f"{part:.0f}% of what proves harm",
        severity={"rollback": "takes it back", "hold": "holds it", "warn": "warns"}[effect.severity],
        chart=chart,
        small=small,
    )


def _chart(effect: Effect, name: str) -> RatioChart:
    last = effect.points[-1]
    high = "open" if last.high is None else f"{last.high:.2g} times"
    below = effect.direction == "lower_is_worse"
    side = "below" if below else "above"
    says = (
        f"{name}: the new version's rate lies between {last.low:.2g} times and {high} the control's; harm is what lies "
        f"{side} {effect.limit or 1:.2g} times"
    )
    first = effect.points[0].hours
    return ratio_chart(
        [(each.hours, each.ratio, each.low, each.high) for each in effect.points],
        limit=effect.limit or 1.0,
        says=says,
        x_words=(plan_hours(first), plan_hours(last.hours)),
        worse_below=below,
    )


def part_of_proof(log_e: float, needed: float) -> float:
    """How much of what proves harm the evidence is, in percent."""
    return round(min(100.0, max(0.0, 100 * log_e / needed)), 2) if needed > 0 else 0.0


def evidence_words(log_e: float, needed: float) -> str:
    if log_e >= needed:
        return "Harm is proven"
    if log_e <= 0:
        return "No evidence of harm"
    return f"{part_of_proof(log_e, needed):.0f}% of the evidence that would prove harm"
