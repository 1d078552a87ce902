"""Quantised blocks are cut and joined as llama.cpp reads them."""

import gguf as gguf_package
import numpy as np
import pytest

from support.delta import GGUF_TYPES, QUANTISED, blocks
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.delta.layouts import LAYOUTS


@pytest.mark.parametrize("dtype", QUANTISED)
def test_any_bytes_survive_split_and_join(dtype):
    content = np.random.default_rng(1).integers(0, 256, (64, BY_NAME[dtype].block_bytes), dtype=np.uint8)
    layout = LAYOUTS[dtype]
    assert (layout.join(layout.split(content)) == content).all()


@pytest.mark.parametrize("dtype", QUANTISED)
def test_scale_times_code_plus_offset_is_the_value_that_llama_cpp_gives(dtype):
    content = blocks(np.random.default_rng(2), dtype, 64)
    layout = LAYOUTS[dtype]
    fields = layout.split(content)
    scales, offsets = layout.scales(fields)
    values = scales[:, :, None] * fields.codes.reshape(64, -1, layout.sub_elements)
    if offsets is not None:
        values = values + offsets[:, :, None]
    theirs = gguf_package.quants.dequantize(content, gguf_package.GGMLQuantizationType(GGUF_TYPES[dtype]))
    np.testing.assert_allclose(values.reshape(64, -1), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", QUANTISED)
def test_every_dtype_of_the_family_has_a_layout_of_its_size(dtype):
    layout = LAYOUTS[dtype]
    fields = layout.split(np.zeros((2, BY_NAME[dtype].block_bytes), np.uint8))
    assert fields.codes.shape == (2, BY_NAME[dtype].block_elements)
    assert fields.halves.shape == (2, layout.halves)
    assert fields.subs.shape == (2, layout.subs)
