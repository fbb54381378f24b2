"""What is packed is unpacked: numbers as they were, at places where a browser can read them without copying."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from glassgpt.server.wire import pack, unpack

dtypes = st.sampled_from([np.float32, np.float64, np.uint8, np.int32])
any_array = dtypes.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))


@given(st.dictionaries(st.text(max_size=5), any_array, max_size=4), st.text())
def test_round_trip(given: dict[str, NDArray[np.generic]], text: str) -> None:
    meta, found = unpack(pack({"text": text, "n": [1, None]}, given))
    assert meta == {"text": text, "n": [1, None]}
    assert list(found) == list(given)
    for name, array in given.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_every_array_begins_at_a_multiple_of_8() -> None:
    packed = pack({}, {"a": np.zeros(3, np.uint8), "b": np.zeros(1, np.float64)})
    assert len(packed) % 8 == 0
    assert b'"offset":8' in packed


def test_no_other_dtype_and_no_nan_in_the_header() -> None:
    with pytest.raises(KeyError):
        pack({}, {"a": np.zeros(3, np.float16)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"loss": float("nan")}, {})
