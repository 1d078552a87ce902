"""An experiment begins, or is explained before it begins: versions are found, refusals are made, devices counted.

1. The control is the model's baseline: what everybody runs is what an arm must beat, and where a stopped arm returns
   to.
2. Refused: a variant that is retired or was taken back; a range of buckets that a live rollout or experiment of the
   model has (a device runs one version at a time).
3. The layer's salt is drawn anew where nothing lives in it, so that who was treated together before is not again.
"""

from collections.abc import Iterable

import msgspec

from whimbrel import limits
from whimbrel.errors import Conflict, Refused
from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.flows.records import AuditRecord, ExperimentRecord, ModelRecord, RolloutRecord
from whimbrel.flows.versions import find_version
from whimbrel.gate.differences import two_sided_bound, two_sided_rho
from whimbrel.health.panel import LEAST_DEVICES
from whimbrel.plan.experiment import Experiment, ExperimentFile
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.plan import VersionName
from whimbrel.plan.ranges import Range, in_the_way
from whimbrel.policy.bucket import BUCKETS, bucket
from whimbrel.policy.delays import longest_wait_s


def read_experiment(text: str, *, what: str) -> Experiment:
    """The experiment in `text` (YAML). `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    return parse_yaml(ExperimentFile, text, what=what).experiment


def start_experiment(
    registry: RegistryPort,
    experiments: ExperimentsPort,
    plan: Experiment,
    *,
    plan_text: str,
    tag: str,
    salt: int,
    hour_s: float,
    actor: str,
    now: float,
) -> ExperimentRecord:
    """Write the experiment; the controller publishes.

    `tag` (random) ends its id; `salt` (random): for an empty layer.
    """
    model = registry.model(plan.model, lock=True)  # two starts at once: one of them finds the other
    serials = _serials(registry, model, plan)
    rollouts, others = registry.rollouts(model=model.name, live=True), experiments.all(model=model.name, live=True)
    if meet := in_the_way(plan.range, taken(rollouts, others)):
        raise Conflict(
            f"{' and '.join(meet)} of {model.name} {'has' if len(meet) == 1 else 'have'} devices between "
            f"{plan.range.words()} of the buckets, and a device runs one version at a time; end it, or name another "
            "range_percent"
        )
    if plan.id is not None and any(each.id == plan.id for each in registry.rollouts()):
        raise Conflict(f"{plan.id!r} is the id of a rollout; give the experiment another")
    if plan.reshuffle and not rollouts and not others:
        registry.change_model(model.name, salt=salt)
    else:
        salt = model.salt
    record = ExperimentRecord(
        namespace=registry.namespace,
        id=plan.id or f"{model.name[:40]}-ab-{tag}",
        model=model.name,
        plan=plan,
        phase=Phase.RUNNING,
        serials=serials,
        hour_s=hour_s,
        created_at=now,
        because=f"started by {actor}",
        # Who runs an arm's version already (A/A) fetches nothing, and its controls wait for nothing.
        delays=(longest_wait_s(hour_s),) if len(set(serials.values())) > 1 else (),
    )
    experiments.add(record, plan_text=plan_text)
    shares = {name: own.buckets / BUCKETS for name, own in plan.ranges().items()}
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action="start experiment",
            because=", ".join(f"{name} (serial {serials[name]}) {share:.2%}" for name, share in shares.items()),
            model=model.name,
            rollout=record.id,
            evidence={"shares": shares, "serials": serials, "salt": salt},
        )
    )
    return record


def taken(rollouts: Iterable[RolloutRecord], experiments: Iterable[ExperimentRecord]) -> list[tuple[str, Range]]:
    """What lives in a model's layer, with its buckets."""
    found = [(f"rollout {each.id}", each.plan.range) for each in rollouts]
    return found + [(f"experiment {each.id}", each.plan.range) for each in experiments]


def _serials(registry: RegistryPort, model: ModelRecord, plan: Experiment) -> dict[str, int]:
    versions = registry.versions(model.name)
    refused = {entry.serial: entry.because for entry in registry.quarantines(model.name)}
    serials = {}
    for variant in plan.variants:
        version = find_version(versions, VersionName.parse(variant.model_version))
        if version.retired:
            raise Refused(f"{variant.id}: {version.model} {version.version} is retired; publish a new version")
        if version.serial in refused and version.serial != model.baseline:
            raise Refused(
                f"{variant.id}: {version.model} {version.version} was taken back before ({refused[version.serial]})"
            )
        serials[variant.id] = version.serial
    if model.baseline is None:
        raise Refused(f"{model.name} has no baseline to compare with; its first publication becomes it")
    if serials[plan.control_id] != model.baseline:
        known = {version.serial: version.version for version in versions}
        raise Refused(
            f"the control {plan.control_id} is {known[serials[plan.control_id]]}, and the baseline of {model.name} is "
            f"{known[model.baseline]}: compare with what devices run"
        )
    return serials


# --- what a plan would do, in plain words ---


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """What `experiment check` tells. `effect`: the smallest difference that is seen as a rule; in `unit`."""

    devices: dict[str, int]
    elsewhere: int
    effect: float | None
    unit: str
    sentences: tuple[str, ...]


def foresee(
    registry: RegistryPort,
    fleet: FleetPort,
    experiments: ExperimentsPort,
    plan: Experiment,
) -> Foreseen:
    """Count the enrolled devices by arm and say what can be found with them. Raises as `start_experiment` would."""
    model = registry.model(plan.model)
    serials = _serials(registry, model, plan)
    devices, elsewhere = _by_arm(fleet, plan, salt=model.salt)
    told = [
        f"{name} ({'control, ' * (name == plan.control_id)}serial {serials[name]}): {plan.share(name):.4g} of the "
        f"devices, {count} of those that are enrolled now"
        for name, count in devices.items()
    ]
    total = sum(devices.values())
    told.append(f"{elsewhere} enrolled devices are in no arm and run the baseline")
    if total < plan.minimum_sample_size:
        share = sum(plan.share(name) for name in devices)
        told.append(
            f"minimum_sample_size is {plan.minimum_sample_size}, and {total} enrolled devices are in its arms: "
            f"nothing is decided unless {_enrolled_for(plan, share, total, elsewhere)} are enrolled within "
            f"{plan.duration_days:g} days"
        )
    else:
        told.append(
            f"once {plan.minimum_sample_size} devices have reported (as a rule within a day: every enrolled "
            "device that is online joins at its next refresh) it is decided as soon as something is proven, and at the "
            f"latest after {plan.duration_days:g} days"
        )
    effect, unit = _smallest_effect(plan, devices)
    told += _about_effects(plan, devices, effect, unit)
    told += _about_the_end(plan)
    meet = in_the_way(
        plan.range, taken(registry.rollouts(model=model.name, live=True), experiments.all(model=model.name, live=True))
    )
    if meet:
        told.append(f"it could not start now: {' and '.join(meet)} of {model.name} has devices in its range")
    return Foreseen(devices=devices, elsewhere=elsewhere, effect=effect, unit=unit, sentences=tuple(told))


def _by_arm(fleet: FleetPort, plan: Experiment, *, salt: int) -> tuple[dict[str, int], int]:
    ranges = plan.ranges()
    count = fleet.count_devices()
    if plan.selector.everyone and count > limits.EXPERIMENT_COUNTED:
        devices = {name: round(count * own.buckets / BUCKETS) for name, own in ranges.items()}
        return devices, count - sum(devices.values())
    devices, elsewhere = dict.fromkeys(ranges, 0), 0
    for key, labels in fleet.keys_and_labels():
        place = bucket(key, salt=salt)
        arm = next((name for name, own in ranges.items() if own.start <= place < own.end), None)
        if arm is None or not plan.selector.matches(labels):
            elsewhere += 1
        else:
            devices[arm] += 1
    return devices, elsewhere


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
    if min(control, smallest) < LEAST_DEVICES or plan.primary.is_ratio:
        return None, unit
    information = 1 / (spread**2 * (1 / control + 1 / smallest))
    rho = two_sided_rho(v_opt=information, alpha=plan.arm_alpha)
    power_80 = 0.8416  # the normal quantile
    bound = two_sided_bound(information, rho=rho, alpha=plan.arm_alpha)
    return (bound + power_80 * information**0.5) / information, unit


def _about_effects(plan: Experiment, devices: dict[str, int], effect: float | None, unit: str) -> list[str]:
    primary = plan.primary
    if primary.is_ratio:
        return ["crash_rate is compared as a ratio: what can be seen depends on how many crashes there are"]
    if effect is None:
        return [
            f"an arm has fewer than {LEAST_DEVICES} devices: no interval can be given for it, so nothing is decided"
        ]
    told = [
        f"the smallest difference of {primary.name} that is proven in four of five experiments: {effect:.3g} "
        f"{unit}, with all {sum(devices.values())} devices heard (less where devices know their past: the effect "
        "shrinks with the square root of what that explains)"
    ]
    if primary.minimum_effect is not None and primary.spread is not None and effect > primary.minimum_effect:
        told.append(
            f"that is more than the minimum effect {primary.minimum_effect:g}: an effect of that size would as a "
            "rule stay unproven; enrol more devices, give larger shares, or ask for less"
        )
    return told


def _about_the_end(plan: Experiment) -> list[str]:
    follow = {
        "record": "the result is recorded, and devices return to the baseline",
        "baseline": "it becomes the baseline of every device at once",
        "rollout": "a rollout of it begins",
    }[plan.on_decision]
    arms = len(plan.treated)
    told = [f"when an arm is shipped, {follow}"]
    if arms > 1:
        told.append(
            f"alpha {plan.alpha:g} is split over {arms} arms: each interval holds with {100 * (1 - plan.arm_alpha):g}%"
        )
    told.append(
        "every arm is watched for crashes, errors, silence, latency, accuracy and failed installs as a rollout "
        "is; an arm whose harm is proven is stopped at once"
    )
    return told
