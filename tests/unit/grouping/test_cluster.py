"""Groups of points: found, counted, of the asked number and size, whatever the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from umscosod.config import GroupingConfig
from umscosod.errors import ConfigError
from umscosod.grouping import cluster
from umscosod.grouping.cluster import cluster_vectors, cohesion_of, mean_silhouette


def same_partition(first: Any, second: Any) -> bool:
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


def slow_silhouette(rows: Any, labels: Any) -> float:
    """Straight from Rousseeuw's definition."""
    apart = 1.0 - rows @ rows.T
    values = []
    for i, own in enumerate(labels):
        inside = (labels == own) & (np.arange(len(rows)) != i)
        if not inside.any():
            values.append(0.0)
            continue
        a = apart[i, inside].mean()
        b = min(apart[i, labels == other].mean() for other in set(labels) - {own})
        values.append((b - a) / max(a, b))
    return float(np.mean(values))


@pytest.mark.parametrize("n_groups", [None, 4])
def test_groups_that_are_apart_are_found_and_counted(make_points: Any, n_groups: int | None) -> None:
    rows, truth = make_points(9, 5, 12, 4)
    found = cluster_vectors(rows, GroupingConfig(), n_groups=n_groups)
    assert same_partition(found.labels_N, truth)
    assert np.bincount(found.labels_N).tolist() == [12, 9, 5, 4]  # the largest first
    assert found.separation > 0.5


def test_order_of_the_images_decides_nothing(make_points: Any) -> None:
    rows, _ = make_points(8, 8, 8, 8, noise=1.0)
    order = np.random.default_rng(1).permutation(len(rows))
    straight = cluster_vectors(rows, GroupingConfig(), n_groups=4).labels_N
    shuffled = cluster_vectors(rows[order], GroupingConfig(), n_groups=4).labels_N
    assert same_partition(straight[order], shuffled)


def test_of_a_large_collection_a_sample_leads_the_rest(make_points: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SAMPLE_IMAGES", 60)
    rows, truth = make_points(400, 300, 200)
    config = GroupingConfig()
    found = cluster_vectors(rows, config, seed=7)
    assert same_partition(found.labels_N, truth)
    assert np.array_equal(found.labels_N, cluster_vectors(rows, config, seed=7).labels_N)


@pytest.mark.parametrize("n_groups", range(1, 7))
def test_as_many_groups_as_asked_for(make_points: Any, n_groups: int) -> None:
    rows, _ = make_points(10, 10, 10, noise=3.0)
    labels = cluster_vectors(rows, GroupingConfig(min_size=2, join_similarity=-1.0), n_groups=n_groups).labels_N
    assert sorted(set(labels)) == list(range(n_groups))
    assert np.bincount(labels).min() >= 2


def test_what_is_like_nothing_is_left_over(make_points: Any) -> None:
    rows, truth = make_points(6, 6)
    stranger = -(rows[truth == 0].mean(0) + rows[truth == 1].mean(0))
    rows = np.vstack([rows, stranger / np.linalg.norm(stranger), np.zeros(rows.shape[1])])
    labels = cluster_vectors(rows, GroupingConfig(join_similarity=0.1)).labels_N
    assert labels[-2:].tolist() == [-1, -1]
    assert same_partition(labels[:-2], truth)


@pytest.mark.parametrize(
    ("count", "n_groups", "complaint"),
    [(12, 5, "5 groups of 3"), (12, 0, "at least 1"), (2, None, "2 images make no")],
)
def test_a_number_that_cannot_be_is_refused(make_points: Any, count: int, n_groups: int | None, complaint: str) -> None:
    rows, _ = make_points(4, 4, 4, noise=0.0)
    with pytest.raises(ConfigError, match=complaint):
        cluster_vectors(rows[:count], GroupingConfig(), n_groups=n_groups)


def test_more_groups_than_the_sample_has_images(make_points: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SAMPLE_IMAGES", 5)
    rows, _ = make_points(20, 20)
    with pytest.raises(ConfigError, match="6 groups are more than the 5 images looked at"):
        cluster_vectors(rows, GroupingConfig(min_size=2), n_groups=6)


def test_groups_are_smaller_where_the_tree_has_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ROUNDS", 0)
    angles = np.radians([0, 1, 3, 7, 15, 31])  # one after the other joins: no cut has two branches of three
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    labels = cluster_vectors(rows, GroupingConfig(min_size=3), n_groups=2).labels_N
    assert labels.tolist() == [0, 0, 0, 0, 0, 1]


def test_too_few_for_two_groups_are_one(make_points: Any) -> None:
    rows, _ = make_points(3, 2)
    found = cluster_vectors(rows, GroupingConfig())
    assert found.labels_N.tolist() == [0] * 5
    assert np.isnan(found.separation)


def test_silhouette_and_cohesion_by_their_definitions(make_points: Any) -> None:
    rows, _ = make_points(7, 5, 3, noise=2.0)
    labels = np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 3], [6, 5, 3, 1]))
    assert mean_silhouette(rows, labels) == pytest.approx(slow_silhouette(rows, labels), abs=1e-12)
    inside = rows[labels == 0]
    pairs = (1.0 - cdist(inside, inside, "cosine"))[np.triu_indices(len(inside), 1)]
    assert cohesion_of(inside) == pytest.approx(pairs.mean(), abs=1e-9)
    assert np.isnan(cohesion_of(inside[:1]))


def test_fewer_groups_where_they_do_nearly_as_well(make_points: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = make_points(12, 12, 12, noise=4.0)
    counts = []
    for share in (0.1, 0.8, 1.0):
        monkeypatch.setattr(cluster, "ENOUGH_SEPARATION", share)
        counts.append(cluster_vectors(rows, GroupingConfig()).labels_N.max() + 1)
    assert counts == sorted(counts)
    assert counts[0] == 2 < counts[-1]
