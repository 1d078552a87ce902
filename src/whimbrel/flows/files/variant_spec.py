"""The devices that a file is for, from `--variant platform=android,precision=int8` and the labels of a manifest.

1. `name`, `runtime` and `precision` describe the variant, and `entry` says which file of a folder its runtime opens;
   every other key is a device's label and must match.
2. `min_<label>=1.8.0` asks for that version or a newer one of the label.
3. A file that tells how new its runtime must be leaves out devices with an older one. A publisher who says anything of
   that label (`min_runtime.onnxruntime=1.20`) decides alone.
4. Without `name` the variant is named after its platform, runtime and precision, in that order.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.document_errors import sentence
from whimbrel.model.ids import Name, check_name, dotted_key
from whimbrel.model.selector import Expression, Selector

_PART = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_./-]{0,63})=(.{1,128})\Z")
_PLATFORM = "platform"
# The published names, and the label and platform that each is about.
_MINIMA = {"min_ios_version": ("ios_version", "ios"), "min_android_api": ("android_api", "android")}


class VariantSpec(msgspec.Struct, frozen=True):
    """What `--variant` says: the fields of a `Variant`, before its files."""

    name: Name
    selector: Selector
    runtime: str = ""
    precision: str = ""
    entry: str = ""  # a path within the folder that is published; "": what is found there
    part_of: str = ""  # the name that a person gave, where the variant was taken apart by platform

    @property
    def given_name(self) -> str:
        """The name by which a card speaks of it."""
        return self.part_of or self.name


def parse_variant(text: str, *, otherwise: str = "default") -> VariantSpec:
    """Read `key=value,...`. `otherwise` is the name where nothing gives one. Raises `UntrustedInput`."""
    words: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PART.match(part)
        if not match:
            raise UntrustedInput(f"--variant {part[:80]!r} is not key=value; expected for example platform=android")
        if match[1] in words:
            raise UntrustedInput(f"--variant says {match[1]!r} twice; say it once")
        words[match[1]] = match[2]
    if len(words) > limits.EXPRESSIONS:
        raise UntrustedInput(f"--variant has {len(words)} parts; at most {limits.EXPRESSIONS} are taken")
    name, runtime, precision, entry = (words.pop(key, "") for key in ("name", "runtime", "precision", "entry"))
    for kind, word in (("runtime", runtime), ("precision", precision)):
        if len(word) > limits.NAME_CHARS:
            raise UntrustedInput(f"--variant {kind} has {len(word)} characters; at most {limits.NAME_CHARS} are taken")
    minima = {key: words.pop(key) for key in list(words) if key.startswith("min_")}
    try:
        terms = tuple(minimum(key.removeprefix("min_"), value) for key, value in minima.items())
        selector = Selector(match_labels=words, match_expressions=terms)
        chosen = check_name(name or _named((words.get(_PLATFORM, ""), runtime, precision)) or otherwise, kind="variant")
    except ValueError as error:
        raise UntrustedInput(f"--variant {text[:80]!r}: {sentence(str(error))}") from error
    return VariantSpec(chosen, selector, runtime, precision, entry)


def minimum(label: str, version: str) -> Expression:
    """The term "`version` or newer" for a label. Raises `ValueError` where that is no dotted number."""
    dotted_key(version)
    return Expression(key=label, operator="Version", values=(f">={version}",))


def leave_out(spec: VariantSpec, too_old: Expression | None) -> VariantSpec:
    """`spec` without the devices of the term `too_old`, unless the publisher says something of its label."""
    if too_old is None or too_old.key in spec.selector.labels:
        return spec
    return _with(spec, terms=[too_old])


def restrict(spec: VariantSpec, minima: Mapping[str, str]) -> tuple[VariantSpec, ...]:
    """`spec` for the devices that a manifest's `compatibility` leaves (`min_ios_version`, ...).

    `min_ios_version` is about iOS devices only, and `min_android_api` about Android ones. A build for one platform is
    one variant still. A build for all platforms becomes a variant a named platform, and one for all the others, as a
    selector has no "or". Raises `UntrustedInput` where a name becomes too long or a version is none.
    """
    try:
        return _restricted(spec, minima)
    except ValueError as error:
        raise UntrustedInput(f"the variant {spec.name!r} cannot be made: {sentence(str(error))}") from error


def _restricted(spec: VariantSpec, minima: Mapping[str, str]) -> tuple[VariantSpec, ...]:
    everywhere = [minimum(key.removeprefix("min_"), minima[key]) for key in minima if key not in _MINIMA]
    own = {_MINIMA[key][1]: minimum(_MINIMA[key][0], minima[key]) for key in minima if key in _MINIMA}
    platform = spec.selector.match_labels.get(_PLATFORM)
    if platform is not None or not own:
        return (_with(spec, terms=[*everywhere, *([own[platform]] if platform in own else [])]),)
    others = Expression(key=_PLATFORM, operator="NotIn", values=tuple(sorted(own)))
    unnamed = [Expression(key=term.key, operator="DoesNotExist") for term in own.values()]
    return (
        *(_with(spec, terms=[*everywhere, term], platform=name) for name, term in own.items()),
        _with(spec, terms=[*everywhere, others, *unnamed]),
    )


def _with(spec: VariantSpec, *, terms: Sequence[Expression], platform: str = "") -> VariantSpec:
    selector = Selector(
        match_labels={**spec.selector.match_labels, **({_PLATFORM: platform} if platform else {})},
        match_expressions=(*spec.selector.match_expressions, *terms),
    )
    if not platform:
        return msgspec.structs.replace(spec, selector=selector)
    name = check_name(f"{spec.name}-{platform}", kind="variant")
    return msgspec.structs.replace(spec, name=name, selector=selector, part_of=spec.given_name)


def _named(words: tuple[str, ...]) -> str:
    return (
        re.sub(r"[^a-z0-9_]+", "-", "-".join(filter(None, words)).lower()).strip("-_")[: limits.NAME_CHARS].strip("-_")
    )
