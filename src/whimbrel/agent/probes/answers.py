"""Find faults in a model's outputs, whatever was expected. Called for golden, validation and made-up inputs."""

from typing import Any

import numpy as np


def not_finite(outputs: dict[str, Any]) -> str:
    """A sentence where an output has NaN or infinity, else ""."""
    for name, value in outputs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fc" and not np.isfinite(value).all():
            return f"output {name!r} has values that are not finite"
    return ""
