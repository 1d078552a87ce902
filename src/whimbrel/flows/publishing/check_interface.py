"""Check that a new version takes and gives what the one before does: the app that runs it was written for that.

1. A variant is compared with the variant of its name in the version before. Where that has another format, or there is
   none of the name, it is compared with all variants of its format, and must be like one of them.
2. Names, types, shapes and order of inputs and outputs must be equal. A size that is free stays free; its name is free.
3. A version none of whose variants says what it takes and gives is no proof of the same: it must be meant. Beside
   others that do, a variant that says nothing is not compared: its format may have none.

Called at publication; `--interface-change` goes without.
"""

from collections.abc import Sequence

from whimbrel.model.release import Dimension, Signature, TensorSpec, Variant


def interface_objection(before: Sequence[Variant], after: Sequence[Variant]) -> str:
    """A sentence, where the inputs or outputs of a variant differ from those before; else ""."""
    known = [variant for variant in before if variant.signature is not None]
    if known and all(variant.signature is None for variant in after):
        formats = ", ".join(sorted({variant.files[0].format for variant in after}))
        return f"the inputs and outputs were known, and those of the new version ({formats}) cannot be read here"
    for variant in after:
        changes = [
            change
            for other in _counterparts(before, variant)
            for change in [_change(other.signature, variant.signature)]
        ]
        if changes and all(changes):
            return f"the interface of the variant {variant.name!r} changes: {changes[0]}"
    return ""


def _counterparts(before: Sequence[Variant], variant: Variant) -> list[Variant]:
    alike = [other for other in before if other.files[0].format == variant.files[0].format]
    return [other for other in alike if other.name == variant.name] or alike


def _change(before: Signature | None, after: Signature | None) -> str:
    if before is None or after is None:
        return ""
    for kind, old, new in (("input", before.inputs, after.inputs), ("output", before.outputs, after.outputs)):
        names, new_names = [spec.name for spec in old], [spec.name for spec in new]
        if names != new_names:
            order = ", in this order" * (sorted(names) == sorted(new_names))
            return f"its {kind}s were {_listed(names)} and become {_listed(new_names)}{order}"
        for one, other in zip(old, new, strict=True):
            if one.dtype != other.dtype or not _same_shape(one.shape, other.shape):
                return f"its {kind} {one.name!r} was {_words(one)} and becomes {_words(other)}"
    return ""


def _same_shape(one: Sequence[Dimension], other: Sequence[Dimension]) -> bool:
    return [size if isinstance(size, int) else None for size in one] == [
        size if isinstance(size, int) else None for size in other
    ]


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype} {'x'.join('?' if size is None else str(size) for size in spec.shape)}".strip()


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:8]) or 'none'}{f' and {len(names) - 8} more' * (len(names) > 8)}"
