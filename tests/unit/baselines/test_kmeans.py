"""k-means: by hand, seeded, and with fewer rows than clusters."""

from __future__ import annotations

import numpy as np
import pytest

from umscosod.baselines.dvfdvd import fit_clusters, nearest

ROWS = np.array([[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 2.0], [9.0, 1.0]])


def fit(count: int, seed: int = 0, restarts: int = 4) -> tuple[np.ndarray, float]:
    return fit_clusters(ROWS, count, rounds=20, restarts=restarts, generator=np.random.default_rng(seed))


def test_one_and_two_clusters_by_hand() -> None:
    centres, objective = fit(1)
    np.testing.assert_allclose(centres, [[5.4, 1.0]])
    assert objective == pytest.approx(np.mean([(5.4**2 + 1), (5.4**2 + 1), 3.6**2 + 1, 3.6**2 + 1, 3.6**2]))
    centres, objective = fit(2)
    assert sorted(centres.tolist()) == [[0.0, 1.0], [9.0, 1.0]]
    assert objective == pytest.approx(0.8)  # four rows at distance 1, one at 0


def test_equal_seeds_give_equal_bits() -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(60, 5))
    found = [
        fit_clusters(rows, 7, rounds=50, restarts=3, generator=np.random.default_rng(5))[0].tobytes() for _ in range(2)
    ]
    assert found[0] == found[1]


def test_more_clusters_than_different_rows() -> None:
    same = np.ones((4, 2))
    centres, objective = fit_clusters(same, 3, rounds=5, restarts=2, generator=np.random.default_rng(0))
    assert centres.tolist() == [[1.0, 1.0]]
    assert objective == 0.0


def test_ties_go_to_the_lower_label() -> None:
    labels, squared = nearest(np.array([[1.0]]), np.array([[0.0], [2.0]]))
    assert (labels.tolist(), squared.tolist()) == ([0], [1.0])
