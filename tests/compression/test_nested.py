"""Output layers at every width: against plain least squares at each width alone."""

import numpy as np
import pytest
import torch

from deadweight.compression.nested import Nested


@pytest.mark.parametrize("bias", [False, True])
def test_every_width_is_its_own_ridge_regression(bias):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(200, 12, generator=generator)
    if bias:
        h = torch.cat([h, torch.ones(200, 1)], dim=1)
    weight = torch.randn(12 + bias, 5, generator=generator)
    order = torch.randperm(12, generator=generator)
    ridge = 0.05
    found = Nested(h.T @ h, order, bias=bias, ridge=ridge).refitted(weight, [3, 7, 12])
    x, w = h.double().numpy(), weight.double().numpy()
    pull = ridge * np.mean(np.diag(x.T @ x)[:12])
    for count, layer in found.items():
        kept = [*order[:count].tolist(), *([12] if bias else [])]
        penalty = pull * np.diag([1.0] * count + [0.0] * bias)
        gone = [unit for unit in range(12) if unit not in kept]
        missing = x[:, gone] @ w[gone]
        change = np.linalg.solve(x[:, kept].T @ x[:, kept] + penalty, x[:, kept].T @ missing)
        np.testing.assert_allclose(layer[kept].numpy(), w[kept] + change, rtol=1e-4, atol=1e-5)
        assert not layer[gone].any()
    torch.testing.assert_close(found[12], weight, rtol=1e-4, atol=1e-5)


def test_a_change_is_fitted_to_what_is_missing():
    generator = torch.Generator().manual_seed(1)
    h, true = torch.randn(300, 6, generator=generator), torch.randn(6, 4, generator=generator)
    solver = Nested(h.T @ h, torch.arange(6).flip(0), bias=False, ridge=1e-9)
    torch.testing.assert_close(solver.solve(h.T @ (h @ true)), true, rtol=1e-3, atol=1e-4)


def test_a_dead_layer_has_no_solution():
    assert Nested(torch.zeros(4, 4), torch.arange(4), bias=False, ridge=0.1).refitted(torch.ones(4, 2), [2]) == {}
