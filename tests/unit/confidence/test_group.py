from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tests.unit.confidence.toys import make_streams
from umscosod.confidence.cues import Stream, correlation
from umscosod.confidence.group import (
    Sides,
    best_match,
    group_cues,
    image_cues,
    max_group_cosine,
    measure_scatter,
    measure_sides,
    predictability,
)
from umscosod.confidence.judge import AGREEMENT_RIDGE
from umscosod.features.vectors import add_ridge


def sides_of(streams: tuple[Stream, Stream]) -> tuple[Sides, Sides]:
    first, second = map(measure_sides, streams)
    return first, second


def test_a_shared_object_scores_above_unrelated_ones_on_every_cue() -> None:
    shared, mixed = (
        group_cues(streams[0], sides_of(streams))
        for streams in (make_streams(objects=[0] * 8), make_streams(objects=list(range(8))))
    )
    assert set(shared) == set(mixed) == {"closeness", "closer_than_background", "common_contrast", "match"}
    for name, value in mixed.items():
        assert shared[name] > value + 0.1, name


def test_the_foreign_image_resembles_the_others_least() -> None:
    cues = image_cues(sides_of(make_streams(objects=[0, 0, 0, 3, 0, 0])))
    for name in ("knn_distance", "likeness"):
        assert int(np.argmin([cue[name] for cue in cues])) == 3


def test_a_foreground_like_no_other_has_no_kin() -> None:
    found = max_group_cosine(np.array([[3.0, 0.1], [1.0, 0.0], [-0.5, 0.1]]))
    assert found[0] == found[1] == pytest.approx(3.0 / np.hypot(3.0, 0.1))
    assert found[2] < -0.9
    assert max_group_cosine(np.array([[1.0, 0.0], [0.0, 0.0]])).tolist() == [0.0, 0.0]


def test_a_mask_of_the_same_thing_is_predicted_and_its_opposite_is_not() -> None:
    stream, _ = make_streams(objects=[0] * 6)
    good = predictability(stream, 0.1)
    assert good.min() > 0.9
    share_NP = stream.share_NP.copy()
    share_NP[2] = 1.0 - share_NP[2]
    turned = type(stream)(tokens_NPD=stream.tokens_NPD, share_NP=share_NP)
    assert predictability(turned, 0.1)[2] < -0.9


def sum_others(stream: Stream, ridge: float) -> np.ndarray:
    """`predictability`, with the sums over the other images taken anew for each image."""
    scores = []
    for index, (own_PD, own_P) in enumerate(zip(stream.tokens_NPD, stream.share_NP, strict=True)):
        tokens_RD = np.delete(stream.tokens_NPD, index, axis=0).reshape(-1, stream.tokens_NPD.shape[2])
        inside_R = np.delete(stream.share_NP, index, axis=0).ravel()
        means, moments = [], []
        for side_R in (inside_R, 1.0 - inside_R):
            means.append(side_R @ tokens_RD / side_R.sum())
            moments.append((tokens_RD * side_R[:, None]).T @ tokens_RD / side_R.sum())
        scatter_DD = sum(moments) - np.stack(means).T @ np.stack(means)
        direction_D = np.linalg.solve(add_ridge(scatter_DD, ridge), means[0] - means[1])
        scores.append(correlation(own_PD @ direction_D, own_P))
    return np.array(scores)


@pytest.mark.parametrize("objects", [[0, 0], [0, 0, 1, 2, 0], [0] * 12])
def test_totals_less_the_own_give_what_sums_over_the_others_give(objects: list[int]) -> None:
    for stream in make_streams(objects=objects):
        found = predictability(stream, AGREEMENT_RIDGE)
        np.testing.assert_allclose(found, sum_others(stream, AGREEMENT_RIDGE), atol=1e-6)


def test_no_image_copies_the_sums_of_all_others() -> None:
    stream, _ = make_streams(objects=[0] * 60)
    sums_bytes = 2 * 60 * stream.tokens_NPD.shape[2] ** 2 * 8
    tracemalloc.start()
    predictability(stream, AGREEMENT_RIDGE)
    assert tracemalloc.get_traced_memory()[1] < 1.5 * sums_bytes
    tracemalloc.stop()


def test_match_of_equal_images_is_one() -> None:
    stream, _ = make_streams(objects=[0, 0], noise=0.0)
    assert best_match(stream) == pytest.approx(1.0, abs=1e-6)
    nothing = type(stream)(tokens_NPD=stream.tokens_NPD, share_NP=stream.share_NP * 0.1)
    assert best_match(nothing) == 0.0


def test_tokens_all_alike_stay_finite() -> None:
    streams = make_streams(objects=[0, 0, 0], noise=0.0)
    assert np.isfinite(list(group_cues(streams[0], sides_of(streams)).values())).all()
    assert all(np.isfinite(list(cue.values())).all() for cue in image_cues(sides_of(streams)))


def test_scatter_of_one_image_has_no_between() -> None:
    scatter = measure_scatter(np.array([[[1.0], [3.0]]]), np.array([[1.0, 1.0]]))
    assert scatter.between_DD.item() == 0.0
    assert scatter.within_DD.item() == 1.0
