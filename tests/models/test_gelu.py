"""The tanh GELU: PyTorch's values, by another form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from glassgpt.models.gelu import gelu_tanh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_and_gradient_are_those_of_pytorch(dtype: torch.dtype) -> None:
    x = torch.linspace(-30, 30, 10_001, dtype=dtype, requires_grad=True)
    ours, theirs = gelu_tanh(x), F.gelu(x, approximate="tanh")
    (ours_gradient,) = torch.autograd.grad(ours.sum(), x)
    (theirs_gradient,) = torch.autograd.grad(theirs.sum(), x)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=tolerance, atol=tolerance)


def test_gradient_equals_finite_differences() -> None:
    x = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(gelu_tanh, x)


def test_extreme_values_stay_finite() -> None:
    x = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    y = gelu_tanh(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 1e4, 0.0]
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 0.5]
