"""The K-quants that the benchmark makes are llama.cpp's: its own package reads them, near to what they should be."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from delta_pairs import kquants


@pytest.mark.parametrize(
    ("kind", "simple", "error"), [("Q4_K", "Q4_0", 0.085), ("Q5_K", "Q5_0", 0.043), ("Q6_K", "Q5_0", 0.022)]
)
def test_blocks_are_read_by_the_reference_and_lose_less_than_a_simple_type(kind, simple, error):
    weight = np.random.default_rng(3).normal(0, 0.04, (64, 1024)).astype(np.float32)
    content = np.frombuffer(kquants.quantise(weight, kind), np.uint8).reshape(64, -1)
    lost = {}
    for name, blocks in {kind: content, simple: quants.quantize(weight, GGMLQuantizationType[simple])}.items():
        back = quants.dequantize(blocks, GGMLQuantizationType[name])
        lost[name] = float(np.sqrt(np.mean((back - weight) ** 2))) / 0.04
    assert lost[kind] < error
    assert lost[kind] < lost[simple]


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
@pytest.mark.parametrize("weight", [np.zeros((2, 256)), np.full((2, 256), 0.5), -np.arange(512.0).reshape(2, 256)])
def test_plain_blocks_come_back(kind, weight):
    content = np.frombuffer(kquants.quantise(weight, kind), np.uint8).reshape(2, -1)
    back = quants.dequantize(content, GGMLQuantizationType[kind])
    assert np.abs(back - weight).max() <= 0.035 * max(np.abs(weight).max(), 1e-9)


def test_rows_that_are_no_whole_blocks_are_refused():
    with pytest.raises(ValueError, match="no whole blocks"):
        kquants.quantise(np.zeros((2, 300)), "Q4_K")
