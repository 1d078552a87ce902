"""What should a model's policy say now? One document, from the model's settings, live rollouts and experiments.

1. Pure: the same registry gives the same document; the sequence is all that a new publication adds.
2. A rollout is one entry, in its own range of buckets. Its treated arms hold the buckets of each stage entered; those
   beyond the current share are the control of every stage that is still compared.
3. A shadow stage has arms only while it is the present one; those that it tried the version on are then controls like
   all others, but for those that are served next.
4. A first version has no control: whoever is not treated is in no arm, and runs no version.
5. An experiment is an entry too: its k-th arm is treated in stage k, and the control is that of every stage. An arm
   that was stopped is left out: its devices run the baseline, and are compared no more.
6. A rollout that another one carries has a layer of its own before the model's, with the other's salt: a device is in
   the same arm of both.
7. While something rolls out, and for a day after it, devices refresh more often: so it is taken back within seconds.
8. A version that came in a set names the version that led the set, after the rollout too: where the lead fails on a
   device, that device keeps none of the set.
9. The length of the document depends on stages and rollouts, never on devices.
"""

from collections.abc import Sequence

from whimbrel import limits
from whimbrel.flows.records import (
    Comparison,
    ExperimentRecord,
    ModelRecord,
    QuarantineRecord,
    RolloutRecord,
    VersionRecord,
)
from whimbrel.health.report import Role
from whimbrel.plan.rehearsal import rehearsed_s
from whimbrel.plan.rollout_states import State
from whimbrel.policy.policy import Arm, Entry, Layer, Policy, Quarantine, SetLead

_OVERRIDES = 1000  # the policy's own bound; the newest
_KNOWN_GOOD = 16  # versions to go back to that a policy names


def render_policy(
    model: ModelRecord,
    *,
    versions: Sequence[VersionRecord],
    rollouts: Sequence[RolloutRecord],
    quarantine: Sequence[QuarantineRecord],
    sequence: int,
    overrides: Sequence[int] = (),
    experiments: Sequence[ExperimentRecord] = (),
    set_leads: Sequence[SetLead] = (),
) -> Policy:
    """The policy of `model` with those of its `rollouts` and `experiments` that are live.

    `rollouts`: those that have not ended, and those that ended less than a day ago. `set_leads`: of all versions.
    """
    settings = model.settings
    live = [rollout for rollout in rollouts if rollout.live]
    # While a rollout is judged, its window is the cadence: evidence must come as fast as the plan wants to look. While
    # it goes back too, so that it is known soon which devices are off it.
    watched = [rollout for rollout in rollouts if rollout.live or rollout.state is State.ROLLING_BACK]
    compared = [experiment for experiment in experiments if experiment.live]
    judged: list[Comparison] = [*watched, *compared]
    report_s = min([settings.report_s, *(each.window_s for each in judged)])
    begun: list[Comparison] = [*(rollout for rollout in rollouts if rollout.shares), *compared]
    # In a rehearsal devices look as often as its hours are short, else a stage is over before they hear of it.
    often_s = min(settings.refresh_s, settings.rollout_refresh_s)
    refresh_s = min([settings.refresh_s, *(rehearsed_s(often_s, hour_s=each.hour_s) for each in begun)])
    own = [rollout for rollout in live if rollout.salt is None]
    carried = [Layer(each.salt, (_rollout_entry(each),)) for each in live if each.salt is not None]
    entries = (*(_rollout_entry(rollout) for rollout in own), *(_experiment_entry(each) for each in compared))
    good = known_good(versions, quarantine)
    offered = {model.baseline, *good, *(each.target for each in live)}
    return Policy(
        model=model.name,
        sequence=sequence,
        baseline=model.baseline,
        known_good=good,
        layers=(*carried, Layer(salt=model.salt, entries=entries)),
        quarantine=tuple(Quarantine(serial=entry.serial, selector=entry.selector) for entry in quarantine),
        overrides=tuple(overrides[-_OVERRIDES:]),
        conditions=settings.conditions,
        on_revoked=settings.on_revoked,
        refresh_s=refresh_s,
        report_s=report_s,
        activate_max_age_s=settings.activate_max_age_s,
        report_labels=settings.report_labels,
        hardware_label=settings.hardware_label,
        slice_labels=settings.slice_labels,
        set_leads=tuple(each for each in set_leads if each.serial in offered)[-limits.SET_LEADS :],
        local_limits=settings.local_limits,
    )


def known_good(versions: Sequence[VersionRecord], quarantine: Sequence[QuarantineRecord]) -> tuple[int, ...]:
    """The serials that devices may go back to where the baseline is not for them, in the order in which they try."""
    refused = {entry.serial for entry in quarantine if entry.selector.everyone}
    good = [v.serial for v in versions if v.good and not v.retired and v.serial not in refused]
    return tuple(sorted(good, reverse=True)[:_KNOWN_GOOD])


def _experiment_entry(experiment: ExperimentRecord) -> Entry:
    plan, own, ranges = experiment.plan, experiment.plan.range, experiment.plan.ranges()
    arms = []
    for stage, variant in experiment.arms:
        pair: tuple[tuple[Role, str], ...] = (("treated", variant.id), ("control", plan.control_id))
        for role, name in pair:
            arms.append(
                Arm(
                    role=role,
                    name=name,
                    stage=stage,
                    serial=experiment.serials[name],
                    start=ranges[name].start,
                    end=ranges[name].end,
                )
            )
    return Entry(
        rollout=experiment.id,
        arms=tuple(arms),
        selector=plan.selector,
        start=own.start,
        end=own.end,
        before=plan.compared[: limits.BEFORE],
        delays_s=experiment.delays,
        delays_by_class=experiment.delays_by_class,
        bucket_by=plan.bucket_label,
    )


def _rollout_entry(rollout: RolloutRecord) -> Entry:
    arms: list[Arm] = []
    plan, own = rollout.plan, rollout.plan.range
    shadow = plan.stages[rollout.stage].shadow
    stages = [rollout.stage] if shadow else list(range(plan.shadows, len(rollout.shares)))
    # First match wins among the treated, so a later, larger share leaves the earlier cohort in its own stage.
    for stage, share in ((stage, rollout.shares[stage]) for stage in stages):
        arms.append(
            Arm(
                role="treated",
                name=plan.stages[stage].name,
                stage=stage,
                serial=rollout.target,
                start=own.start,
                end=share,
                selector=plan.stages[stage].selector,
                conditions=plan.stages[stage].conditions,
                shadow=shadow.order if shadow else None,
            )
        )
    if rollout.baseline is not None:
        arms += _controls(rollout, rollout.baseline, stages)
    return Entry(
        rollout=rollout.id,
        arms=tuple(arms),
        start=own.start,
        end=own.end,
        delays_s=rollout.delays,
        delays_by_class=rollout.delays_by_class,
    )


def _controls(rollout: RolloutRecord, baseline: int, stages: Sequence[int]) -> list[Arm]:
    """The control arms of some stages: devices beyond the newest share."""
    plan = rollout.plan
    return [
        Arm(
            role="control",
            name="control",
            stage=stage,
            serial=baseline,
            start=rollout.shares[-1],
            end=plan.range.end,
            selector=plan.stages[stage].selector,
            conditions=plan.stages[stage].conditions,
        )
        for stage in stages
    ]
