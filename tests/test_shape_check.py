"""check_shape: passes the right shape, names the wrong dimension."""

import numpy as np
import pytest
import torch

from tiny_transformer.utils import check_shape


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_right_shapes_pass(make):
    check_shape(make((2, 5, 5)), (2, 5, 5))
    check_shape(make((2, 5, 5)), ("batch", "seq", "seq"))
    check_shape(make((2, 5, 7)), (None, 5, None))
    check_shape(make(()), ())


@pytest.mark.parametrize(
    ("shape", "expected", "words"),
    [
        ((2, 3), (2, 4), "dimension 1 is 3, must be 4"),
        ((2, 3), (2, 3, 1), "it has 2 dimensions, must have 3"),
        ((2, 5, 6), ("batch", "seq", "seq"), "dimension 2 (seq) is 6, must be 5"),
        ((0,), (1,), "dimension 0 is 0, must be 1"),
    ],
)
def test_wrong_shapes_name_the_dimension(shape, expected, words):
    with pytest.raises(ValueError) as error:
        check_shape(np.zeros(shape), expected, "query")
    assert str(error.value).startswith(f"query has shape {shape}")
    assert words in str(error.value)
