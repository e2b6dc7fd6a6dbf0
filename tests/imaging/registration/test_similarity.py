"""The normal equations: against finite differences, and blind to what they ought to be blind to."""

import numpy as np
import pytest

from fluoronav.imaging.registration.similarity import (
    normal_equations,
    normalise_patches,
    patch_correlations,
    patch_weights,
)

SIZE, PATCHES = 7, 5
N = SIZE * SIZE * PATCHES


@pytest.fixture
def problem(rng):
    frame = rng.random((60, 60)).astype(np.float32)
    rows, cols = (rng.integers(0, 50, PATCHES).astype(np.int32) for _ in range(2))
    hat, contrast = np.zeros(N, np.float32), np.zeros(PATCHES, np.float32)
    normalise_patches(frame, rows, cols, SIZE, hat, contrast)
    model = rng.random((7, N)).astype(np.float32)
    return frame, rows, cols, hat, model


def equations(hat, model, weights):
    A, g = np.zeros((6, 6)), np.zeros(6)
    cost = normal_equations(hat, model, SIZE, weights, np.zeros((7, SIZE * SIZE), np.float32), A, g)
    return A, g, cost


def test_the_gradient_is_that_of_the_cost(problem):
    *_, hat, model = problem
    weights = np.linspace(0.2, 1, PATCHES)
    _, g, _ = equations(hat, model, weights)
    for c in range(6):
        costs = []
        for step in (1e-2, -1e-2):
            moved = model.copy()
            moved[0] += step * model[1 + c]
            costs.append(equations(hat, moved, weights)[2])
        # The cost is |r|^2 and g = -J^T r... with r = F^ - I^, so dcost = -2 g step.
        assert (costs[0] - costs[1]) / 2e-2 == pytest.approx(-2 * g[c], rel=2e-2, abs=2e-3)


def test_the_matrix_is_symmetric_and_positive(problem):
    *_, hat, model = problem
    A, _, _ = equations(hat, model, np.ones(PATCHES))
    np.testing.assert_allclose(A, A.T)
    assert np.linalg.eigvalsh(A).min() > 0


def test_gain_and_offset_of_the_frame_change_nothing(problem):
    frame, rows, cols, hat, _ = problem
    again, contrast = np.zeros_like(hat), np.zeros(PATCHES, np.float32)
    normalise_patches(3 * frame + 11, rows, cols, SIZE, again, contrast)
    np.testing.assert_allclose(again, hat, atol=1e-4)


def test_a_patch_fits_itself_and_a_flat_patch_fits_nothing(problem):
    frame, rows, cols, hat, _ = problem
    ncc = np.zeros(PATCHES)
    patch_correlations(hat, hat * 5 + 2, SIZE, ncc)
    np.testing.assert_allclose(ncc, 1, atol=1e-4)
    flat, contrast = np.zeros_like(hat), np.zeros(PATCHES, np.float32)
    normalise_patches(np.full_like(frame, 7), rows, cols, SIZE, flat, contrast)
    assert not flat.any()
    patch_correlations(hat, np.zeros_like(hat), SIZE, ncc)
    assert not ncc.any()


def test_patches_that_do_not_fit_have_no_weight():
    ncc = np.array([0.9, 0.85, 0.8, 0.1, -0.5])
    weights = np.zeros(5)
    patch_weights(ncc, weights)
    assert (weights[:3] > 0).all() and (weights[3:] == 0).all() and weights[0] > weights[2]
