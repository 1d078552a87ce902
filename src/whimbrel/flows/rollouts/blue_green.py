"""What a blue-green plan does to devices, and what protects them, in words. For `plan check`.

1. All devices of its selector change colours at once; each keeps the old colour in its other slot, verified and ready.
2. At the switch no device is left as a control, unless the plan keeps a holdback. What protects its devices then is
   said as it is for a fleet that is too small for a control (`small_fleet`).
3. A shadow stage before it is what a blue-green plan has for a canary. It also brings the files, so that the switch
   needs no download.
"""

from whimbrel.plan.plan import Plan


def blue_green_sentences(plan: Plan) -> tuple[str, ...]:
    """What devices do, and how they are back."""
    stage = plan.stages[-1]
    brought = (
        f"Devices of {_names(plan)} hold the version before the switch, and change to it without a download; others "
        "fetch it first."
        if plan.shadows
        else "Each device changes when it has fetched and tried the version."
    )
    return (
        f"Blue-green: in {stage.name} all of its devices change to the new version at once. {brought}",
        "The version before stays in the other slot of each device, so going back is one verb and needs no download: "
        "rollout rollback, also after it is complete, or model rollback. It stays there until a later version needs "
        "the slot; from then on a device that goes back fetches it.",
    )


def blue_green_warnings(plan: Plan, *, first: bool) -> list[str]:
    """What is dangerous about it."""
    warnings: list[str] = []
    if not plan.shadows and not first:
        warnings.append(
            "blue_green without a shadow stage: all of its devices have the version before anything is known of it; "
            "put a stage with shadow before it"
        )
    if not plan.stages[-1].duration_hours:
        warnings.append(f"stage {plan.stages[-1].name}: it does not soak, so it is complete with the first reports")
    return warnings


def _names(plan: Plan) -> str:
    return " and ".join(stage.name for stage in plan.stages[: plan.shadows])
