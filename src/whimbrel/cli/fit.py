"""Which devices can run a version, as a table and in sentences: for publishing, versions and plans."""

from collections.abc import Sequence

from whimbrel.cli.connect import Client, quoted
from whimbrel.cli.output import print_json, print_table, say
from whimbrel.flows.version_fit import Needing, NoFit, VariantNeeds, VariantsToFit, VersionFit


def tell_fit(fit: VersionFit, *, what: str) -> None:
    """Print how many devices take which variant of `what`, and why others take none."""
    if not fit.fleet:
        say(f"No device follows {fit.model} yet, so nothing can be counted for {what}")
        return
    rows = [[each.name, f"{each.devices:,}", f"{fit.running.get(each.name, 0):,}"] for each in fit.variants]
    rows += [[f"({name})", f"{count:,}", ""] for name, count in _others(fit) if count]
    columns = ["variant", "fits first", "run it"]
    if not fit.running:
        columns, rows = ["variant", "devices"], [row[:2] for row in rows]
    print_table(columns, rows, title=f"{what}: {_devices(fit.fleet)} of {fit.model}")
    for line in fit_sentences(fit):
        say(f"  {line}")


def tell_fit_of_variants(client: Client, model: str, variants: Sequence[Needing], *, json: bool) -> None:
    """Print which devices could run a version of these variants, which is not published."""
    asked = VariantsToFit(variants=tuple(VariantNeeds(name=each.name, selector=each.selector) for each in variants))
    fit = client.send("POST", f"models/{quoted(model)}/fit", asked, as_=VersionFit)
    if json:
        print_json(fit)
        return
    tell_fit(fit, what="this version")
    say("Nothing was published")


def tell_fit_shortly(fit: VersionFit) -> None:
    """Print how many devices can run it, and why others cannot, where any device follows the model."""
    if fit.fleet:
        say(f"  {_summed(fit)}")
        for line in fit_sentences(fit):
            say(f"    {line}")


def fit_sentences(fit: VersionFit) -> list[str]:
    """Why devices take no variant, and what would have to be known of the others."""
    lines = [_why(reason) for reason in fit.reasons]
    if fit.untold:
        lines.append(f"not known for {_untold(fit.some + fit.unknown, fit.untold)}")
    if fit.assumed:
        lines.append(f"assumed for {_untold(fit.assumed, fit.assumed_for)}")
    if asked := sorted({*fit.untold, *fit.assumed_for}):
        options = " ".join(f"--report-label {label}" for label in (*fit.told, *asked))
        lines.append(f"to ask for it: whimbrel model set {fit.model} {options}")
    return lines


def _summed(fit: VersionFit) -> str:
    """How many devices of the fleet can run it, in one sentence."""
    can = sum(variant.devices for variant in fit.variants) + fit.some
    unknown = f", and {fit.unknown:,} perhaps" if fit.unknown else ""
    follow = "1 device follows" if fit.fleet == 1 else f"{fit.fleet:,} devices follow"
    return f"{follow} {fit.model}: {can:,} can run it{unknown}"


def _others(fit: VersionFit) -> list[tuple[str, int]]:
    return [
        ("one of these", fit.some),
        ("not known", fit.unknown),
        ("none", fit.none),
    ]


def _why(reason: NoFit) -> str:
    has = "; ".join(f"{value}: {count:,}" for value, count in reason.has.items())
    rest = reason.devices - sum(reason.has.values())
    others = f"; others: {rest:,}" if rest else ""
    return f"none for {_devices(reason.devices)}: variant {reason.variant} needs {reason.needs} ({has}{others})"


def _untold(count: int, labels: Sequence[str]) -> str:
    return f"{_devices(count)} that {'does' if count == 1 else 'do'} not tell {', '.join(labels)}"


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count:,} devices"
