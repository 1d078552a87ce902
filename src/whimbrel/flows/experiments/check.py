"""What an experiment would do, in plain words, before it begins: devices by arm, and what can be found with them.

1. Devices are counted as they are enrolled now; of a large fleet without a selector, by the shares of the buckets. So
   are those that fall into arms by a label's value, which only the devices know.
2. The smallest difference is the one that the worst-off arm proves in four of five experiments.
3. Nothing here changes anything. What `start_experiment` refuses is refused here too, except a range that is taken:
   that is one of the sentences.
"""

import msgspec

from whimbrel import limits
from whimbrel.flows.experiments.start import find_serials, live_comparisons, titles_in_the_way
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.gate.differences import two_sided_bound, two_sided_rho
from whimbrel.health.panel import LEAST_DEVICES
from whimbrel.plan.experiment import Experiment, GuardrailMetric, PrimaryMetric
from whimbrel.plan.known_metrics import KNOWN_METRICS
from whimbrel.plan.ranges import Range
from whimbrel.policy.bucket import BUCKETS, bucket


class ExperimentCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What `experiment check` tells. `devices`: by arm; `effect`: the smallest difference that is proven as a rule."""

    name: str
    model: str
    devices: dict[str, int]
    elsewhere: int
    effect: float | None
    unit: str
    sentences: tuple[str, ...]


def check_experiment(
    registry: RegistryPort,
    fleet: FleetPort,
    experiments: ExperimentsPort,
    plan: Experiment,
) -> ExperimentCheck:
    """Count the enrolled devices by arm and say what can be found with them. Raises as `start_experiment` would."""
    model = registry.model(plan.model)
    serials = find_serials(registry, model, plan)
    devices, elsewhere = _by_arm(fleet, plan, salt=model.salt)
    sentences = [
        f"{name} ({'control, ' * (name == plan.control_id)}serial {serials[name]}): {plan.share(name):.4g} of the "
        f"devices, {count} of those that are enrolled now"
        for name, count in devices.items()
    ]
    total = sum(devices.values())
    sentences += _label_sentences(plan)
    sentences.append(f"{elsewhere} enrolled devices are in no arm and run the baseline")
    if total < plan.minimum_sample_size:
        share = sum(plan.share(name) for name in devices)
        sentences.append(
            f"minimum_sample_size is {plan.minimum_sample_size}, and {total} enrolled devices are in its arms: "
            f"nothing is decided unless {_enrolled_for(plan, share, total, elsewhere)} are enrolled within "
            f"{plan.duration_days:g} days"
        )
    else:
        sentences.append(
            f"once {plan.minimum_sample_size} devices have reported (as a rule within a day: every enrolled "
            "device that is online joins at its next refresh) it is decided as soon as something is proven, and at the "
            f"latest after {plan.duration_days:g} days"
        )
    effect, unit = _smallest_effect(plan, devices)
    sentences += _effect_sentences(plan, devices, effect, unit)
    sentences += _metric_sentences(plan)
    sentences += direction_warnings(plan)
    sentences += _end_sentences(plan)
    if blocking := titles_in_the_way(plan, live_comparisons(registry, experiments, model=model.name)):
        sentences.append(f"it could not start now: {' and '.join(blocking)} of {model.name} has devices in its range")
    return ExperimentCheck(
        name=plan.name,
        model=plan.model,
        devices=devices,
        elsewhere=elsewhere,
        effect=effect,
        unit=unit,
        sentences=tuple(sentences),
    )


def _by_arm(fleet: FleetPort, plan: Experiment, *, salt: int) -> tuple[dict[str, int], int]:
    ranges = plan.ranges()
    count = fleet.count_devices(plan.model)
    by_label = plan.bucket_label is not None
    if plan.selector.everyone and (by_label or count > limits.EXPERIMENT_COUNTED):
        return _by_share(count, ranges, count=count)
    if by_label:
        matching = sum(plan.selector.matches(labels) for _, labels in fleet.keys_and_labels(plan.model))
        return _by_share(matching, ranges, count=count)
    devices, elsewhere = dict.fromkeys(ranges, 0), 0
    for key, labels in fleet.keys_and_labels(plan.model):
        place = bucket(key, salt=salt)
        arm = next((name for name, own in ranges.items() if own.start <= place < own.end), None)
        if arm is None or not plan.selector.matches(labels):
            elsewhere += 1
        else:
            devices[arm] += 1
    return devices, elsewhere


def _by_share(reached: int, ranges: dict[str, Range], *, count: int) -> tuple[dict[str, int], int]:
    devices = {name: round(reached * own.buckets / BUCKETS) for name, own in ranges.items()}
    return devices, count - sum(devices.values())


def _label_sentences(plan: Experiment) -> list[str]:
    """What is not known where devices fall into arms by a label's value, and what follows from that."""
    label = plan.bucket_label
    if label is None:
        return []
    return [
        f"devices fall into arms by their {label}, whose value stays on them: how many have one, and how many share "
        "one, is not known here, so the numbers above are shares of all devices; devices without it are in no arm and "
        "run the baseline",
        f"{plan.cluster:g} devices are taken to share a value of {label} (devices_per_value) and to be all alike, so "
        "they count as one in every interval and guardrail",
        f"nothing else of {plan.model} can be tried while the experiment runs",
    ]


def _enrolled_for(plan: Experiment, share: float, total: int, elsewhere: int) -> str:
    reach = total / (total + elsewhere) if total else share * plan.range.buckets / BUCKETS
    return f"about {round(plan.minimum_sample_size / reach):,} devices"


def _smallest_effect(plan: Experiment, devices: dict[str, int]) -> tuple[float | None, str]:
    """The difference that the worst-off arm proves in four of five experiments, with all devices heard."""
    control = devices[plan.control_id]
    smallest = min(count for name, count in devices.items() if name != plan.control_id)
    spread, unit = plan.primary.spread, plan.primary.name
    if spread is None:
        spread, unit = 1.0, "standard deviations between devices"
    if min(control, smallest) < LEAST_DEVICES * plan.cluster or plan.primary.is_ratio:
        return None, unit
    information = 1 / (spread**2 * plan.cluster * (1 / control + 1 / smallest))
    rho = two_sided_rho(v_opt=information, alpha=plan.arm_alpha)
    power_80 = 0.8416  # the normal quantile
    bound = two_sided_bound(information, rho=rho, alpha=plan.arm_alpha)
    return (bound + power_80 * information**0.5) / information, unit


def _effect_sentences(plan: Experiment, devices: dict[str, int], effect: float | None, unit: str) -> list[str]:
    primary = plan.primary
    if primary.is_ratio:
        return ["crash_rate is compared as a ratio: what can be seen depends on how many crashes there are"]
    if effect is None:
        return [
            f"an arm has fewer than {LEAST_DEVICES * plan.cluster:g} devices: no interval can be given for it, so "
            "nothing is decided"
        ]
    sentences = [
        f"the smallest difference of {primary.name} that is proven in four of five experiments: {effect:.3g} "
        f"{unit}, with all {sum(devices.values())} devices heard (less where devices know their past: the effect "
        "shrinks with the square root of what that explains)"
    ]
    if primary.minimum_effect is not None and primary.spread is not None and effect > primary.minimum_effect:
        sentences.append(
            f"that is more than the minimum effect {primary.minimum_effect:g}: an effect of that size would as a "
            "rule stay unproven; enrol more devices, give larger shares, or ask for less"
        )
    return sentences


def direction_warnings(plan: Experiment) -> list[str]:
    """The metrics whose direction in the plan is against what their name means to everybody, a sentence each."""
    own: list[tuple[str, PrimaryMetric | GuardrailMetric]]
    own = [("primary metric", plan.primary), *(("guardrail", guard) for guard in plan.own_guardrails)]
    sentences = []
    for kind, metric in own:
        known = KNOWN_METRICS.get(metric.name)
        if known is not None and metric.rises != (known.better == "increase"):
            name, meant = metric.name, "increase" if metric.rises else "decrease"
            better, effect = ("more", "rises") if known.better == "increase" else ("less", "falls")
            follows = "is stopped as harmful" if kind == "guardrail" else "loses"
            sentences.append(
                f"{kind} {name} is said to {meant} where it gets better, and {better} of a metric of this name is "
                f"better as a rule: an arm whose {name} {effect} {follows}. If that is not meant, write direction: "
                f"{known.better}"
            )
    return sentences


def _metric_sentences(plan: Experiment) -> list[str]:
    """What decides and what must not get worse, with the directions that the file may have left out."""
    primary = plan.primary
    better = "more" if primary.rises else "less"
    sentences = [f"{primary.name} decides, and {better} of it is better"]
    for name, measures in plan.watched_guardrails.items():
        if measures != (name,):
            sentences.append(f"guardrail {name}: it is watched as in a rollout, by {', '.join(measures)}")
    for guard in plan.own_guardrails:
        worse = "falls" if guard.rises else "rises"
        sentences.append(
            f"guardrail {guard.name}: an arm is stopped when its mean {worse} by more than {guard.margin:g} against "
            f"{plan.control_id}'s; the app records it by this name"
        )
    return sentences


def _end_sentences(plan: Experiment) -> list[str]:
    follow = {
        "record": "the result is recorded, and devices return to the baseline",
        "baseline": "it becomes the baseline of every device at once",
        "rollout": "a rollout of it begins",
    }[plan.on_decision]
    arms = len(plan.treated)
    sentences = [f"when an arm is shipped, {follow}"]
    if arms > 1:
        sentences.append(
            f"alpha {plan.alpha:g} is split over {arms} arms: each interval holds with {100 * (1 - plan.arm_alpha):g}%"
        )
    sentences.append(
        "every arm is watched for crashes, errors, silence, latency, accuracy and failed installs as a rollout "
        "is; an arm whose harm is proven is stopped at once"
    )
    return sentences
