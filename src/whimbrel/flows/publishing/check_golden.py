"""Check that golden values fit their model: at publication, and not only in every device's probe."""

from whimbrel.model.release import Probe, Signature, Tensor, TensorSpec


def golden_objection(probe: Probe, signature: Signature) -> str | None:
    """A sentence, where `probe` cannot be run on a model with `signature` (names, types, shapes); else None."""
    takes = {spec.name: spec for spec in signature.inputs}
    gives = {spec.name: spec for spec in signature.outputs}
    if probe.inputs and (missing := sorted(takes.keys() - probe.inputs.keys())):
        return f"the golden values have no input {missing[0]!r}, which the model takes"
    for name in (*probe.output_ranges, *([probe.validation.output] if probe.validation else [])):
        if gives and name not in gives:
            return (
                f"the probe speaks of an output {name!r}, which is not one of the model's: {', '.join(sorted(gives))}"
            )
    if probe.validation and (missing := sorted(takes.keys() ^ probe.validation.inputs.keys())):
        return f"the validation samples and the model do not agree on the input {missing[0]!r}"
    for kind, specs, tensors in (("input", takes, probe.inputs), ("output", gives, probe.outputs)):
        for name, tensor in tensors.items():
            spec = specs.get(name)
            if spec is None:
                names = ", ".join(sorted(specs)[:8]) or "none"
                return f"the golden {kind} {name!r} is not one of the model's: {names}"
            if spec.dtype != tensor.dtype:
                return f"the golden {kind} {name!r} is of type {tensor.dtype}; the model says {spec.dtype}"
            if not _fits(tensor, spec):
                return (
                    f"the golden {kind} {name!r} has the shape {list(tensor.shape)}; the model says {list(spec.shape)}"
                )
    return None


def _fits(tensor: Tensor, spec: TensorSpec) -> bool:
    """A free or named dimension takes any size; a model that states no shape takes any."""
    if not spec.shape:
        return True
    return len(tensor.shape) == len(spec.shape) and all(
        not isinstance(asked, int) or asked == size for asked, size in zip(spec.shape, tensor.shape, strict=True)
    )
