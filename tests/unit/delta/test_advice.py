"""The advice names the kind of change, and what made it larger than it should be."""

import numpy as np
import pytest

from support.delta import encode, float_bits, model, parse, safetensors
from whimbrel.delta.advice import advise


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def advice(old, new):
    return advise(parse(encode(safetensors(old), safetensors(new))))


def test_full_fine_tune_is_recognised(rng):
    found = advice(*model(rng, "bf16", 1500, 512))
    assert found.kind == "a full fine-tune"


def test_frozen_layers_lower_what_is_expected(rng):
    old, new = model(rng, "f16", 1500, 512)
    new = {**old, "dense": new["dense"]}
    found = advice(old, new)
    assert found.kind == "a fine-tune of some layers"
    assert found.expected[1] < 0.15


def test_merged_adapter_is_recognised(rng):
    weights = rng.normal(0, 0.04, (1024, 1536))
    merged = weights + rng.normal(0, 0.02, (1024, 8)) @ rng.normal(0, 0.02, (8, 1536))
    found = advice({"w": ("f32", float_bits(weights, "f32"))}, {"w": ("f32", float_bits(merged, "f32"))})
    assert found.kind == "a merged low-rank adapter"


def test_metadata_is_recognised(rng):
    old, _ = model(rng, "f16", 1500, 512)
    found = advise(parse(encode(safetensors(old), safetensors(old, {"note": "new"}))))
    assert found.kind == "a change of metadata only"
    assert found.because == ()


def test_tensors_without_an_ancestor_are_named(rng):
    old, new = model(rng, "f16", 1500, 512)
    new["head.of.another.shape"] = ("f16", float_bits(rng.normal(0, 1, (700, 300)), "f16"))
    found = advice(old, new)
    assert "head.of.another.shape" in found.because[0]
    assert "keep names and shapes" in str(found)


def test_new_model_is_recognised(rng):
    old, _ = model(rng, "f16", 1500, 512)
    new = {"other": ("f16", float_bits(rng.normal(0, 1, (1400, 700)), "f16"))}
    assert advice(old, new).kind.startswith("a new model")


def test_noise_of_f32_is_named(rng):
    weights = rng.normal(0, 0.05, (900, 700))
    strong = weights + rng.normal(0, 0.02, weights.shape)
    found = advice({"w": ("f32", float_bits(weights, "f32"))}, {"w": ("f32", float_bits(strong, "f32"))})
    assert "publish f16, bf16 or a quantised variant" in str(found)


def test_requantised_weights_are_named(rng):
    codes = rng.integers(0, 256, (1500, 2048), dtype=np.uint8)
    other = codes + rng.integers(0, 40, codes.shape, dtype=np.uint8)
    found = advice({"w": ("i8", codes)}, {"w": ("i8", other)})
    assert "quantised from rounded weights" in str(found)
