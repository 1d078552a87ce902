"""What will devices do when a model goes back? The sentences that a person reads before and after it."""

from collections.abc import Collection

from whimbrel.flows.records import QuarantineRecord, VersionRecord
from whimbrel.flows.rollouts.roll_back_model import WayBack
from whimbrel.flows.wording import devices_words, selector_words


def way_back_sentences(
    way: WayBack,
    *,
    devices: int,
    refresh_s: float,
    unknown_labels: Collection[str] = (),
    quarantines: Collection[QuarantineRecord] = (),
) -> list[str]:
    """What devices do, for people.

    `devices`: how many run the version that is left; where there are labels, how many have these. `refresh_s`: how
    often devices look for news now. `unknown_labels`: labels of the selector that devices do not tell the server.
    `quarantines`: those of the model.
    """
    leaves, to = version_words(way.leaves), version_words(way.to)
    labels = "" if way.selector.everyone else f" with {selector_words(way.selector)}"
    what = "are known to run it" if way.selector.everyone else "are known"
    if devices <= 1:
        what = what.replace("are", "is", 1)
    words = [f"{way.model} goes back from {leaves} to {to}: {devices_words(devices)}{labels} {what}"]
    if unknown_labels:
        words[0] += (
            f" (devices do not tell the server their {' and '.join(sorted(unknown_labels))}; they decide by it all the "
            "same, and more may go back)"
        )
    words += [
        f"{other.model} goes back with it, from {version_words(other.leaves)} to {version_words(other.to)}: their "
        "versions go together, and every device changes all of them at once"
        for other in way.others
    ]
    words.append(
        f"Devices look for news every {refresh_s:g} s, so each one in reach hears of it within {refresh_s:g} s. It "
        "goes back at once where that version is in its other slot, and fetches it otherwise. One out of reach goes "
        "back when it hears of it"
    )
    own = f"{way.model} " if way.others else ""
    refused = " and ".join(
        [own + version_words(version) for version in way.quarantined]
        + [f"{other.model} {version_words(version)}" for other in way.others for version in other.quarantined]
    )
    who = "every device" if way.selector.everyone else f"devices{labels}"
    words.append(f"{refused}: refused by {who} from now on, until somebody lifts it (whimbrel version unquarantine)")
    further = [entry for entry in quarantines if entry.serial == way.to.serial and not entry.selector.everyone]
    words += [
        f"{to} was taken back from devices with {selector_words(entry.selector)} before ({entry.because}): these go to "
        "the newest good version that they do not refuse"
        for entry in further
    ]
    return words


def version_words(version: VersionRecord) -> str:
    """A version by both of its names."""
    return f"{version.version} ({version.semantic_version})"
