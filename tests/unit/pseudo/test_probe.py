"""The linear probe: what it finds, what overrules it, and that its fit is the minimum it claims to be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from tests.unit.pseudo.groups import box, make_features, paint
from umscosod.features.vectors import describe_patches
from umscosod.pseudo import cleaning as module
from umscosod.pseudo.cleaning import LinearProbe, ProbeSample, apply_probe, compute_maps, draw_sample, fit_probe
from umscosod.types import GroupFeatures, GroupTokens, PseudoLabel

GRID = 8
TRUTH = box(GRID, 2, 2, 6, 6)
Bools = npt.NDArray[np.bool_]


def features_of(count: int = 4, seed: int = 0, noise: float = 0.05) -> GroupFeatures:
    """Images of one object (axis 1) on one ground (axis 0), each patch a little different."""
    rng = np.random.default_rng(seed)
    scenes = [paint(GRID, {(2, 2, 6, 6): 1}) + noise * rng.standard_normal((GRID, GRID, 6)) for _ in range(count)]
    return make_features(scenes, [np.zeros((GRID, GRID))] * count)


def labels_of(
    features: GroupFeatures, masks: Sequence[Bools], confidence: float = 0.8, source: str = "hac"
) -> dict[str, PseudoLabel]:
    return {
        image.id: PseudoLabel(
            image_id=image.id, map_hw=mask.astype(np.float32), mask_hw=mask, confidence=confidence, source=source
        )
        for image, mask in zip(features.group.images, masks, strict=False)
    }


def sample_of(features: GroupFeatures, labels: dict[str, PseudoLabel], count: int = 10_000, seed: int = 0):
    sample = draw_sample(features, labels, count, seed)
    assert sample is not None
    return sample


def probe_of(features: GroupFeatures, labels: dict[str, PseudoLabel], ridge: float = 0.1) -> LinearProbe:
    probe = fit_probe([sample_of(features, labels)], ridge)
    assert probe is not None
    return probe


def random_sample(count: int = 300, width: int = 7, seed: int = 0) -> ProbeSample:
    rng = np.random.default_rng(seed)
    patches = rng.standard_normal((count, width)) * rng.uniform(0.2, 3.0, width) + rng.standard_normal(width)
    chance = 1.0 / (1.0 + np.exp(-(patches @ rng.standard_normal(width) - 1.0)))
    return ProbeSample(
        patches_MF=patches.astype(np.float32),
        targets_M=np.clip(chance + 0.3 * rng.standard_normal(count), 0.0, 1.0).astype(np.float32),
        weights_M=rng.uniform(0.05, 1.0, count).astype(np.float32),
    )


def minimum(sample: ProbeSample, ridge: float) -> tuple[npt.NDArray[np.float64], float, float]:
    """Weights and bias of the same loss by another method, and the scale of the patches."""
    patches = sample.patches_MF.astype(np.float64)
    scale = float(patches.std(0).mean())
    inputs = (patches - patches.mean(0)) / scale
    share = sample.weights_M.astype(np.float64) / sample.weights_M.sum(dtype=np.float64)

    def loss(solution: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logits = inputs @ solution[:-1] + solution[-1]
        value = (
            share @ (np.logaddexp(0.0, logits) - sample.targets_M * logits)
            + 0.5 * ridge * solution[:-1] @ solution[:-1]
        )
        excess = share * (1.0 / (1.0 + np.exp(-logits)) - sample.targets_M)
        return value, np.append(excess @ inputs + ridge * solution[:-1], excess.sum())

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    return found.x[:-1] / scale, float(found.x[-1]), scale


@pytest.mark.parametrize("ridge", [10.0, 1.0, 0.1, 1e-3])
def test_the_fit_is_the_minimum_of_weighted_logistic_loss(ridge: float) -> None:
    sample = random_sample()
    probe = fit_probe([sample], ridge)
    assert probe is not None
    weights_F, bias, _ = minimum(sample, ridge)
    np.testing.assert_allclose(probe.weights_F, weights_F, atol=2e-5)
    assert probe.bias == pytest.approx(bias, abs=2e-5)
    logits = (sample.patches_MF - probe.mean_F) @ probe.weights_F
    assert probe.spread == pytest.approx(logits.std(), rel=1e-5)


def test_two_samples_count_as_one() -> None:
    whole = random_sample()
    parts = [
        ProbeSample(patches_MF=whole.patches_MF[cut], targets_M=whole.targets_M[cut], weights_M=whole.weights_M[cut])
        for cut in (slice(0, 100), slice(100, None))
    ]
    one, two = fit_probe([whole], 1.0), fit_probe(parts, 1.0)
    assert one is not None
    assert two is not None
    assert one.weights_F.tobytes() == two.weights_F.tobytes()
    assert one.bias == two.bias


def test_weights_of_zero_take_patches_out_of_the_loss() -> None:
    sample = random_sample()
    lies = ProbeSample(
        patches_MF=sample.patches_MF, targets_M=1.0 - sample.targets_M, weights_M=np.zeros_like(sample.weights_M)
    )
    honest, both = fit_probe([sample], 1.0), fit_probe([sample, lies], 1.0)
    assert honest is not None
    assert both is not None
    np.testing.assert_allclose(both.weights_F, honest.weights_F, atol=1e-6)
    assert both.bias == pytest.approx(honest.bias, abs=1e-6)


def test_a_sure_label_outvotes_doubtful_ones() -> None:
    features = features_of(3)
    one, *others = features.group.images

    def gap_in_the_map(confidence: float) -> float:
        labels = labels_of(features, [TRUTH] + [~TRUTH] * 2)
        labels |= {image.id: replace(labels[image.id], confidence=confidence) for image in others}
        maps = apply_probe(features, labels, probe_of(features, labels))
        map_hw = maps[one.id].map_hw
        return float(map_hw[TRUTH].mean() - map_hw[~TRUTH].mean())

    assert gap_in_the_map(0.1) > 0.9  # 1 x 0.8 against 2 x 0.1
    assert gap_in_the_map(0.8) < -0.9  # 1 x 0.8 against 2 x 0.8


def test_what_can_be_told_apart_is_found() -> None:
    features = features_of()
    labels = labels_of(features, [TRUTH] * 4)
    probed = apply_probe(features, labels, probe_of(features, labels))
    assert probed.keys() == labels.keys()
    for name, one in probed.items():
        assert np.array_equal(one.mask_hw, TRUTH)
        assert np.array_equal(one.map_hw >= 0.5, one.mask_hw)
        assert one.is_map
        assert one.map_hw.dtype == np.float32
        assert one.map_hw.min() >= 0.0
        assert one.map_hw.max() <= 1.0
        assert (one.confidence, one.source) == (labels[name].confidence, "hac")


def test_labels_that_err_are_overruled_by_the_rest() -> None:
    features = features_of(6)
    rng = np.random.default_rng(5)
    masks = [TRUTH ^ (rng.random(TRUTH.shape) < 0.2) for _ in range(5)] + [~TRUTH]  # a fifth flipped; one all wrong
    labels = labels_of(features, masks)
    assert all((mask != TRUTH).sum() >= 5 for mask in masks)
    for one in apply_probe(features, labels, probe_of(features, labels)).values():
        assert np.array_equal(one.mask_hw, TRUTH)


def test_the_ridge_makes_it_stiff() -> None:
    """One patch of 256, ground with a feature of its own, is mislabelled: learnt under a weak ridge only."""
    scenes = [paint(GRID, {(2, 2, 6, 6): 1}) for _ in range(4)]
    scenes[0][0, 0, 2] = 0.5
    features = make_features(scenes, [np.zeros((GRID, GRID))] * 4)
    wrong = TRUTH.copy()
    wrong[0, 0] = True
    labels = labels_of(features, [wrong, TRUTH, TRUTH, TRUTH])
    first = features.group.images[0].id
    weak, strong = (apply_probe(features, labels, probe_of(features, labels, ridge)) for ridge in (1e-3, 0.3))
    assert np.array_equal(weak[first].mask_hw, wrong)
    assert np.array_equal(strong[first].mask_hw, TRUTH)


def test_a_fit_that_does_not_settle_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of()
    labels = labels_of(features, [TRUTH] * 4)
    with caplog.at_level(logging.WARNING, "umscosod"):
        probe_of(features, labels, 1.0)
        assert not caplog.records
        monkeypatch.setattr("umscosod.pseudo.cleaning._UNSETTLED", 0.0)  # which no fit reaches
        probe = probe_of(features, labels, 1.0)
    assert "did not settle in " in caplog.records[0].getMessage()
    assert np.isfinite(probe.weights_F).all()


def test_backgrounds_of_another_group_are_negatives() -> None:
    """Group one's labels take a strip of sky along; group two knows that sky is background."""
    scenes = [paint(GRID, {(2, 2, 6, 6): 1, (0, 0, 1, 8): 2}) for _ in range(3)]
    own = make_features(scenes, [np.zeros((GRID, GRID))] * 3)
    wide = TRUTH.copy()
    wide[0] = True
    own_labels = labels_of(own, [wide] * 3)
    scenes = [paint(GRID, {(2, 2, 6, 6): 3, (0, 0, 1, 8): 2, (6, 0, 8, 8): 2}) for _ in range(5)]
    other = make_features(scenes, [np.zeros((GRID, GRID))] * 5)
    other_sample = sample_of(other, labels_of(other, [TRUTH] * 5))
    alone = probe_of(own, own_labels)
    together = fit_probe([sample_of(own, own_labels), other_sample], 0.1)
    assert together is not None
    for one in apply_probe(own, own_labels, alone).values():
        assert np.array_equal(one.mask_hw, wide)
    for one in apply_probe(own, own_labels, together).values():
        assert np.array_equal(one.mask_hw, TRUTH)


def test_a_persons_label_stays_and_images_without_stay_without() -> None:
    features = features_of(4)
    labels = labels_of(features, [TRUTH] * 3)  # none for the fourth
    name = features.group.images[1].id
    labels[name] = replace(labels[name], source="human", map_hw=np.zeros(TRUTH.shape, np.float32))
    probed = apply_probe(features, labels, probe_of(features, labels))
    assert list(probed) == list(labels)
    assert probed[name] is labels[name]


def test_labels_of_another_grid_are_brought_to_the_patches() -> None:
    features = features_of(2)
    fine = TRUTH.repeat(3, 0).repeat(3, 1)
    sample, expected = (sample_of(features, labels_of(features, [mask] * 2)) for mask in (fine, TRUTH))
    np.testing.assert_allclose(sample.targets_M, expected.targets_M, atol=1e-6)


@pytest.mark.parametrize("fill", [True, False])
def test_targets_of_one_value_tell_nothing(fill: bool) -> None:
    features = features_of(2)
    labels = labels_of(features, [np.full((GRID, GRID), fill)] * 2)
    assert fit_probe([sample_of(features, labels)], 1.0) is None


def test_patches_all_alike_tell_nothing() -> None:
    features = make_features([np.ones((GRID, GRID, 6))] * 2, [np.zeros((GRID, GRID))] * 2)
    assert fit_probe([sample_of(features, labels_of(features, [TRUTH] * 2))], 1.0) is None


@pytest.mark.parametrize("count", [3, 784, 1000, 15_000])
def test_equal_patches_tell_nothing_whatever_they_are(count: int) -> None:
    patch_F = np.random.default_rng(count).standard_normal(7).astype(np.float32)
    sample = ProbeSample(
        patches_MF=np.tile(patch_F, (count, 1)),
        targets_M=np.linspace(0.0, 1.0, count, dtype=np.float32),
        weights_M=np.ones(count, np.float32),
    )
    assert fit_probe([sample]) is None


def test_nothing_drawn_tells_nothing() -> None:
    assert fit_probe([], 1.0) is None
    features = features_of(2)
    assert draw_sample(features, {}, 100, 0) is None
    assert draw_sample(features, labels_of(features, [TRUTH] * 2, confidence=0.0), 100, 0) is None


def test_only_images_with_a_label_that_counts_are_drawn() -> None:
    features = features_of(3)
    first, second, third = (image.id for image in features.group.images)
    labels = labels_of(features, [~TRUTH, TRUTH])
    labels[first] = replace(labels[first], confidence=0.0)
    sample = sample_of(features, labels)
    assert third not in labels
    assert len(sample.patches_MF) == GRID * GRID
    tokens = describe_patches(features, "none")[0][1]  # of the second image
    drawn = sample.patches_MF[:, : tokens.shape[1]]
    assert np.array_equal(drawn[np.lexsort(drawn.T)], tokens[np.lexsort(tokens.T)])
    assert np.array_equal(sample.weights_M, np.full(GRID * GRID, labels[second].confidence, np.float32))


def test_drawn_patches_carry_their_own_targets() -> None:
    features = features_of(3, noise=0.0)
    sample = sample_of(features, labels_of(features, [TRUTH] * 3), count=50)
    assert np.array_equal(sample.patches_MF[:, 1], sample.targets_M)  # axis 1 is the object
    assert 0.0 < sample.targets_M.mean() < 1.0


def test_the_seed_draws() -> None:
    features = features_of(3)
    labels = labels_of(features, [TRUTH] * 3)
    one, same, other = (sample_of(features, labels, 40, seed) for seed in (1, 1, 2))
    assert len(one.patches_MF) == 40
    assert one.patches_MF.tobytes() == same.patches_MF.tobytes()
    assert one.targets_M.tobytes() == same.targets_M.tobytes()
    assert not np.array_equal(one.patches_MF, other.patches_MF)
    rows = {row.tobytes() for row in one.patches_MF}
    assert len(rows) == 40  # none twice


def test_the_same_bits_twice() -> None:
    features = features_of(3)
    labels = labels_of(features, [TRUTH] * 3)
    first, second = (apply_probe(features, labels, probe_of(features, labels)) for _ in range(2))
    for name in labels:
        assert first[name].map_hw.tobytes() == second[name].map_hw.tobytes()


def test_the_same_bits_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of(10)
    labels = labels_of(features, [TRUTH] * 10)
    found = []
    monkeypatch.setattr("umscosod.device.count_cores", lambda: 3)
    for cores in (1, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
        drawn, probe = draw_sample(features, labels, 40, 0), fit_probe([random_sample(5000)])
        assert drawn is not None
        assert probe is not None
        maps_Nhw = compute_maps(features, probe_of(features, labels))
        found.append(
            (drawn.patches_MF.tobytes(), probe.weights_F.tobytes(), probe.bias, probe.spread, maps_Nhw.tobytes())
        )
    assert found[0] == found[1]


def test_slope_moves_values_away_from_one_half_but_no_border(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of()
    labels = labels_of(features, [TRUTH] * 4)
    probe = probe_of(features, labels)
    found = []
    for slope in (0.5, 2.0):
        monkeypatch.setattr(module, "SLOPE", slope)
        found.append(apply_probe(features, labels, probe))
    flat, steep = found
    for name in labels:
        assert np.array_equal(flat[name].mask_hw, steep[name].mask_hw)
        assert (np.abs(steep[name].map_hw - 0.5) > np.abs(flat[name].map_hw - 0.5)).all()


def test_slope_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two patches, one axis: logits +2 and -1, spread 2, slope 3 -> sigmoid(3) and sigmoid(-1.5)."""
    stack = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    stream = GroupTokens(tokens_NPD=stack, keys_NPK=stack, attn_NAP=np.ones((1, 1, 2)), grid_hw=(1, 2), backbone_id="x")
    features = replace(features_of(1), first=stream, second=stream, saliency_NP=np.zeros((1, 2), np.float32))
    weights_F = np.array([1.0, -0.5, 1.0, -0.5, 1.0, 0.0])
    probe = LinearProbe(mean_F=np.ones(6), weights_F=weights_F, bias=1.0, spread=2.0)  # offset: 1 - 2
    labels = labels_of(features, [np.array([[True, True]])])
    monkeypatch.setattr(module, "SLOPE", 3.0)
    map_hw = next(iter(apply_probe(features, labels, probe).values())).map_hw
    np.testing.assert_allclose(map_hw, 1.0 / (1.0 + np.exp([[-3.0, 3.0]])), rtol=1e-6)


def test_whitened_tokens_have_a_gentler_slope_of_their_own() -> None:
    features = features_of()
    labels = labels_of(features, [TRUTH] * 4)
    probe = probe_of(features, labels)
    whitened = replace(features, first=replace(features.first, is_whitened=True))
    name = features.group.images[0].id
    plain, gentle = (apply_probe(one, labels, probe)[name].map_hw for one in (features, whitened))
    assert (np.abs(gentle - 0.5) < np.abs(plain - 0.5)).all()


def test_the_second_stream_comes_onto_the_grid_of_the_first() -> None:
    fine, coarse = features_of(2, noise=0.0), paint(4, {(1, 1, 3, 3): 1})
    other = make_features([coarse] * 2, [np.zeros((4, 4))] * 2).first
    *_, tokens_NPE = describe_patches(replace(fine, second=other), "none")
    assert tokens_NPE.shape == (2, GRID * GRID, 6)
    assert tokens_NPE.dtype == np.float32
    object_hw = tokens_NPE[0, :, 1].reshape(GRID, GRID)
    assert np.array_equal(object_hw >= 0.5, TRUTH)
    assert object_hw[3, 3] == 1.0
    assert object_hw[0, 0] == 0.0


def test_another_order_of_images_changes_rounding_at_most_where_all_are_drawn() -> None:
    features = features_of(4)
    order = [2, 0, 3, 1]
    images = tuple(features.group.images[index] for index in order)
    stream = replace(
        features.first,
        tokens_NPD=features.first.tokens_NPD[order],
        keys_NPK=features.first.keys_NPK[order],
        attn_NAP=features.first.attn_NAP[order],
    )
    shuffled = replace(features, group=replace(features.group, images=images), first=stream, second=stream)
    labels = labels_of(features, [TRUTH] * 4)
    straight, other = (apply_probe(one, labels, probe_of(one, labels)) for one in (features, shuffled))
    for name in labels:
        np.testing.assert_allclose(straight[name].map_hw, other[name].map_hw, atol=1e-4)
        assert np.array_equal(straight[name].mask_hw, other[name].mask_hw)
