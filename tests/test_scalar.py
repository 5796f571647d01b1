"""The words mean the same on a float, an array, a tensor and in a kernel, and widen nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseopt import scalar
from sparseopt.jit import kernel

# The domain's interior, and what the word means, from the standard library.
WORDS = {
    "sqrt": (0.0, 9.0, math.sqrt),
    "exp": (-30.0, 30.0, math.exp),
    "expm1": (-30.0, 30.0, math.expm1),
    "log": (1e-9, 50.0, math.log),
    "log1p": (-0.9, 50.0, math.log1p),
    "sin": (-9.0, 9.0, math.sin),
    "cos": (-9.0, 9.0, math.cos),
    "tan": (-1.5, 1.5, math.tan),
    "cosh": (-9.0, 9.0, math.cosh),
    "arcsin": (-1.0, 1.0, math.asin),
    "arccos": (-1.0, 1.0, math.acos),
    "arctan": (-50.0, 50.0, math.atan),
    "arccosh": (1.0, 50.0, math.acosh),
}


def test_every_word_is_in_the_table() -> None:
    assert set(WORDS) | {"where", "maximum", "minimum", "use"} == set(scalar.__all__)


@kernel
def all_words(x, out):
    for i in range(x.shape[1]):
        out[0, i] = scalar.sqrt(x[0, i])
        out[1, i] = scalar.exp(x[1, i])
        out[2, i] = scalar.expm1(x[2, i])
        out[3, i] = scalar.log(x[3, i])
        out[4, i] = scalar.log1p(x[4, i])
        out[5, i] = scalar.sin(x[5, i])
        out[6, i] = scalar.cos(x[6, i])
        out[7, i] = scalar.tan(x[7, i])
        out[8, i] = scalar.cosh(x[8, i])
        out[9, i] = scalar.arcsin(x[9, i])
        out[10, i] = scalar.arccos(x[10, i])
        out[11, i] = scalar.arctan(x[11, i])
        out[12, i] = scalar.arccosh(x[12, i])


def test_words_in_a_kernel() -> None:
    x = np.array([np.linspace(low, high, 7) for low, high, _ in WORDS.values()])
    out = np.empty_like(x)
    all_words(x, out)
    expected = [[function(value) for value in row] for row, (_, _, function) in zip(x, WORDS.values(), strict=True)]
    np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", WORDS)
def test_words_on_floats_and_arrays(name: str) -> None:
    low, high, function = WORDS[name]
    word = getattr(scalar, name)
    x = np.linspace(low, high, 11)
    expected = np.array([function(value) for value in x])
    np.testing.assert_allclose(word(x), expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose([word(float(value)) for value in x], expected, rtol=1e-14, atol=1e-15)
    assert type(word(1)) is float
    assert type(word(1.0)) is float
    assert type(word(np.float64(1.0))) is float
    assert isinstance(word(np.float32(1.0)), np.float32)
    assert math.isnan(word(math.nan))


@pytest.mark.parametrize("name", WORDS)
def test_words_on_tensors(name: str) -> None:
    torch = pytest.importorskip("torch", reason="words on tensors need torch")
    import sparseopt.nn  # noqa: F401

    low, high, function = WORDS[name]
    x = torch.linspace(low, high, 11, dtype=torch.float64)
    y = getattr(scalar, name)(x)
    assert y.dtype == torch.float64
    np.testing.assert_allclose(y.numpy(), [function(float(value)) for value in x], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", WORDS)
def test_a_word_of_a_parameter_does_not_widen_float32(name: str) -> None:
    u = np.ones(2, np.float32)
    assert (getattr(scalar, name)(1.0) * u).dtype == np.float32
    assert getattr(scalar, name)(u).dtype == np.float32


def test_choices_do_not_widen_float32() -> None:
    u = np.array([0.5, 2.0], np.float32)
    for answer in (
        scalar.where(u > 1.0, 0.0, u),
        scalar.maximum(u, 1.0),
        scalar.minimum(u, 1.0),
        scalar.maximum(1.0, u),
    ):
        assert answer.dtype == np.float32
    np.testing.assert_array_equal(scalar.where(u > 1.0, 0.0, u), [0.5, 0.0])
    np.testing.assert_array_equal(scalar.maximum(u, 1.0), [1.0, 2.0])
    np.testing.assert_array_equal(scalar.minimum(u, 1.0), [0.5, 1.0])
    np.testing.assert_array_equal(scalar.where(True, u, 0.0), u)


def test_choices_on_tensors() -> None:
    torch = pytest.importorskip("torch", reason="words on tensors need torch")
    import sparseopt.nn  # noqa: F401

    u = torch.tensor([0.5, 2.0])
    for answer in (
        scalar.where(u > 1.0, 0.0, u),
        scalar.maximum(u, 1.0),
        scalar.minimum(u, 1.0),
        scalar.maximum(1.0, u),
    ):
        assert answer.dtype == torch.float32
    assert scalar.maximum(u, 1.0).tolist() == [1.0, 2.0]
    assert scalar.minimum(1.0, u).tolist() == [0.5, 1.0]


@kernel
def choices(a, b, out):
    out[0] = scalar.where(a > b, a, b)
    out[1] = scalar.maximum(a, b)
    out[2] = scalar.minimum(a, b)


NUMBERS = st.floats(allow_nan=True, width=32)


@given(a=NUMBERS, b=NUMBERS)
def test_choices_agree(a: float, b: float) -> None:
    """Kernel, float and array choose alike; NaN in the first place stays, whatever the second."""
    out = np.empty(3)
    choices(a, b, out)
    floats = [scalar.where(a > b, a, b), scalar.maximum(a, b), scalar.minimum(a, b)]
    x, y = np.array([a]), np.array([b])
    arrays = [scalar.where(x > y, x, y), scalar.maximum(x, y), scalar.minimum(x, y)]
    np.testing.assert_array_equal(out, floats)
    np.testing.assert_array_equal(out, np.ravel(arrays))
    if math.isnan(a):
        assert np.isnan(out[1:]).all()


def test_another_array_library_can_join() -> None:
    class Boxed:
        def __init__(self, value: float) -> None:
            self.value = value

    class Library:
        @staticmethod
        def sqrt(x: Boxed) -> Boxed:
            return Boxed(math.sqrt(x.value))

    before = dict(scalar._NAMESPACES)
    try:
        scalar.use(Boxed, Library)
        assert scalar.sqrt(Boxed(9.0)).value == 3.0
    finally:
        scalar._NAMESPACES.clear()
        scalar._NAMESPACES.update(before)
