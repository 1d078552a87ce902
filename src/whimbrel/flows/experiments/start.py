"""An experiment begins: its versions are found, refusals are made, and its record is written.

1. The control is the model's baseline: what everybody runs is what an arm must beat, and where a stopped arm returns
   to.
2. Refused: a variant that is retired or was taken back; a range of buckets that a live rollout or experiment of the
   model has (a device runs one version at a time).
3. Where devices fall into arms by a label's value, nothing else of the model may be live, and no policy may ask devices
   to tell that label.
4. The layer's salt is drawn anew where nothing lives in it, so that who was treated together before is not again.
"""

from collections.abc import Mapping

from msgspec import UnsetType

from whimbrel.errors import Conflict, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import ExperimentsPort, RegistryPort
from whimbrel.flows.records import Comparison, ExperimentRecord, ModelRecord, NewSettings
from whimbrel.flows.rollouts.one_word import OneWord, one_word
from whimbrel.flows.versions import find_version, required_by
from whimbrel.plan.experiment import Experiment
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.plan import VersionName
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.delays import longest_wait_s


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
    started_by: str | None = None,
) -> ExperimentRecord:
    """Write the experiment; the controller publishes.

    `tag` (random) ends its id; `salt` (random): for an empty layer. `started_by`: the person whose wish it is; "" where
    a machine starts it; None: the actor.
    """
    model = registry.model(plan.model, lock=True)  # two starts at once: one of them finds the other
    serials = find_serials(registry, model, plan)
    _check_second_person(plan, serials, word=one_word(registry, [model.name]))
    live = live_comparisons(registry, experiments, model=model.name)
    if blocking := titles_in_the_way(plan, live):
        has = "has" if len(blocking) == 1 else "have"
        if plan.bucket_label is not None:
            raise Conflict(
                f"{' and '.join(blocking)} of {model.name} {has} devices, and an experiment by {plan.bucket_label} "
                "needs all buckets of the model: another key divides its devices, so no range_percent keeps them "
                "apart; end it"
            )
        raise Conflict(
            f"{' and '.join(blocking)} of {model.name} {has} devices from {plan.range.words()} of the buckets, and "
            "a device runs one version at a time; end it, or name another range_percent"
        )
    if plan.id is not None and any(each.id == plan.id for each in registry.rollouts()):
        raise Conflict(f"{plan.id!r} is the id of a rollout; give the experiment another")
    if plan.reshuffle and not live:
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
        started_by=actor if started_by is None else started_by,
        # Who runs an arm's version already (A/A) fetches nothing, and its controls wait for nothing.
        delays=(longest_wait_s(hour_s),) if len(set(serials.values())) > 1 else (),
    )
    experiments.add(record, plan_text=plan_text)
    shares = {name: own.buckets / BUCKETS for name, own in plan.ranges().items()}
    audit(
        registry,
        record,
        actor=actor,
        action="start experiment",
        because=", ".join(f"{name} (serial {serials[name]}) {share:.2%}" for name, share in shares.items()),
        now=now,
        evidence={"shares": shares, "serials": serials, "salt": salt},
    )
    return record


def _check_second_person(plan: Experiment, serials: Mapping[str, int], *, word: OneWord | None) -> None:
    """Raises `Refused` where one person's experiment would bring devices past the share that needs two."""
    if word is None:
        return
    other = [arm for arm in plan.treated if serials[arm.id] != serials[plan.control_id]]
    percent = 100 * sum(plan.ranges()[arm.id].buckets for arm in other) / BUCKETS
    if other and percent > word.room_percent:
        taken = f", of which others have {word.taken_percent:.3g}%" if word.taken_percent else ""
        raise Refused(
            f"its arms have {percent:g}% of the devices, and this model needs a second person above "
            f"{word.above_percent:g}%{taken}, which an experiment cannot wait for; give its arms less"
        )
    if other and plan.on_decision == "baseline" and word.above_percent < 100:
        raise Refused(
            "on_decision: baseline makes an arm everybody's by one person's word, and this model needs a second person "
            f"above {word.above_percent:g}%; write on_decision: rollout, whose rollout waits for one"
        )


def live_comparisons(registry: RegistryPort, experiments: ExperimentsPort, *, model: str) -> list[Comparison]:
    """The rollouts and experiments that have devices in a model's layer."""
    return [*registry.rollouts(model=model, live=True), *experiments.all(model=model, live=True)]


def titles_in_the_way(plan: Experiment, live: list[Comparison]) -> list[str]:
    """Those of `live` whose range of buckets meets the plan's, as a sentence names them."""
    return [each.title for each in live if each.range.meets(plan.taken)]


def find_serials(registry: RegistryPort, model: ModelRecord, plan: Experiment) -> dict[str, int]:
    """The version of every variant. Raises `Refused` where one may not run, or the control is not the baseline."""
    _check_bucket_label(registry, plan)
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
    for variant in plan.variants:
        _check_requirements(registry, model.name, serials[variant.id], variant=variant.id)
    if serials[plan.control_id] != model.baseline:
        names = {version.serial: version.version for version in versions}
        raise Refused(
            f"the control {plan.control_id} is {names[serials[plan.control_id]]}, and the baseline of {model.name} is "
            f"{names[model.baseline]}: compare with what devices run"
        )
    return serials


def _check_bucket_label(registry: RegistryPort, plan: Experiment) -> None:
    """Raises `Refused` where devices are asked to tell the label by whose value they are divided."""
    label = plan.bucket_label
    for model in registry.models() if label is not None else ():
        settings = model.settings
        asked = {"report_labels": settings.report_labels, "slice_labels": settings.slice_labels}
        asked["hardware_label"] = (settings.hardware_label,)
        for name, labels in asked.items():
            if label in labels:
                raise Refused(
                    f"bucket_by: the policy of {model.name} asks devices to tell {label} ({name}), and its values are "
                    "to stay on devices; take it out there (whimbrel model set), or name another label"
                )


def check_told_labels(experiments: ExperimentsPort, changes: NewSettings) -> None:
    """Raises `Refused` where new settings ask devices to tell a label by which a live experiment divides them."""
    asked: set[str] = set()
    for labels in (changes.report_labels, changes.slice_labels, changes.hardware_label):
        if not isinstance(labels, UnsetType):
            asked.update((labels,) if isinstance(labels, str) else labels)
    for experiment in experiments.all(live=True):
        if experiment.bucket_label in asked:
            raise Refused(
                f"experiment {experiment.id} divides devices by their {experiment.bucket_label}, whose values are to "
                "stay on devices; leave the label out, or end the experiment first"
            )


def _check_requirements(registry: RegistryPort, model: str, serial: int, *, variant: str) -> None:
    """Raises `Refused` where a version requires of another model what devices do not run."""
    for each in required_by(registry, model, serial):
        if registry.model(each.model).baseline != each.serial:
            raise Refused(
                f"{variant}: it requires {each.model} at serial {each.serial}, which is not what devices run, and an "
                "experiment moves one model; roll out the set, or compare versions that need no other model to change"
            )
