"""Whitening: uncorrelated unit channels, the same from JSON, and damage that is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from umscosod.errors import CheckpointError
from umscosod.features.group import Whitening, fit_whitening

SHRINKAGE = 1e-3


def correlated(count: int = 4000, dim: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim) * 3


def test_whitened_tokens_are_centred_uncorrelated_and_of_unit_variance() -> None:
    tokens = correlated()
    got = fit_whitening([tokens], 1e-9).apply(tokens)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.cov(got.T, bias=True), np.eye(5), atol=1e-3)


def test_the_matrix_is_symmetric_so_channels_keep_their_meaning() -> None:
    matrix = fit_whitening([correlated()], SHRINKAGE).matrix_DD
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_shrinkage_by_hand() -> None:
    fitted = fit_whitening([np.array([[1.0, 5.0], [3.0, 5.0]])], 0.5)  # variances 1 and 0, mean variance 0.5
    np.testing.assert_allclose(fitted.mean_D, [2.0, 5.0])
    np.testing.assert_allclose(fitted.matrix_DD, np.diag([1 / np.sqrt(1.25), 1 / np.sqrt(0.25)]), atol=1e-12)


def test_a_stream_of_parts_equals_the_whole_whatever_their_length() -> None:
    tokens = correlated(100)
    whole = fit_whitening([tokens], SHRINKAGE)
    parts = fit_whitening(iter([tokens[:1], tokens[1:60], tokens[60:]]), SHRINKAGE)
    np.testing.assert_allclose(parts.mean_D, whole.mean_D)
    np.testing.assert_allclose(parts.matrix_DD, whole.matrix_DD)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3])
def test_tokens_that_never_vary_become_zero(value: float) -> None:
    tokens = np.full((9, 3), value, np.float16)
    got = fit_whitening([tokens], SHRINKAGE).apply(tokens)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, 0.0, atol=1e-6)


def test_a_single_token_is_enough() -> None:
    got = fit_whitening([np.array([[1.0, 2.0]])], SHRINKAGE).apply(np.array([[1.0, 3.0]]))
    np.testing.assert_allclose(got, [[0.0, 1.0]])


def test_leading_axes_are_free() -> None:
    fitted, tokens = fit_whitening([correlated()], SHRINKAGE), correlated(6)
    np.testing.assert_array_equal(fitted.apply(tokens.reshape(2, 3, 5)).reshape(6, 5), fitted.apply(tokens))


def test_json_gives_back_equal_bits() -> None:
    fitted = fit_whitening([correlated()], SHRINKAGE)
    read = Whitening.from_json(json.loads(json.dumps(fitted.to_json())))
    assert read.mean_D.tobytes() == fitted.mean_D.tobytes()
    assert read.matrix_DD.tobytes() == fitted.matrix_DD.tobytes()


def test_two_fits_give_equal_bits() -> None:
    one, other = (fit_whitening([correlated()], SHRINKAGE) for _ in range(2))
    assert one.matrix_DD.tobytes() == other.matrix_DD.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"mean": [1.0]},
        {"mean": [], "matrix": []},
        {"mean": [1.0, 2.0], "matrix": [[1.0]]},
        {"mean": 1.0, "matrix": [[1.0]]},
        {"mean": [1.0, 2.0], "matrix": [[1.0, 0.0], [0.0]]},
        {"mean": ["x"], "matrix": [[1.0]]},
        {"mean": {"a": 1}, "matrix": [[1.0]]},
        {"mean": [float("nan")], "matrix": [[1.0]]},
        {"mean": [1.0], "matrix": [[float("inf")]]},
        {"mean": [1.0], "matrix": [[1e300]]},
        {"mean": [-1e300], "matrix": [[1.0]]},
        {"mean": [1.0], "matrix": [[0.0]]},
        {"mean": [1.0], "matrix": [[-1.0]]},
        {"mean": [1.0, 2.0], "matrix": [[1.0, 0.5], [0.0, 1.0]]},
        *(None, 5, "x", []),
    ],
)
def test_damaged_json_is_a_checkpoint_error(data: Any) -> None:
    with pytest.raises(CheckpointError, match="whitening in the checkpoint is damaged") as caught:
        Whitening.from_json(data)
    assert "subscriptable" not in str(caught.value)
