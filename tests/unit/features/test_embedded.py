"""The weight-free backbone: what it gives for any picture, and what its id says."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from benchmarks.reference import embedded as plain
from umscosod.demo.compose import compose_image, scenes_of
from umscosod.errors import ConfigError, DataError
from umscosod.features import embedded
from umscosod.features.embedded import SPECTRAL_CHANNELS, EmbeddedBackbone, spectral_keys
from umscosod.types import ByteArray, EncodedImage


def noise(size: int = 64) -> ByteArray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def bits(encoded: EncodedImage) -> bytes:
    return encoded.tokens_PD.tobytes() + encoded.keys_PK.tobytes() + encoded.attn_AP.tobytes()


def test_shapes_types_and_order(pictures: list[ByteArray]) -> None:
    backbone = EmbeddedBackbone(64, 16)
    encoded = backbone.encode(pictures)
    assert [bits(one) for one in encoded] == [bits(backbone.encode([picture])[0]) for picture in pictures]
    for one in encoded:
        assert (one.tokens_PD.shape, one.keys_PK.shape, one.attn_AP.shape) == (
            (16, backbone.dim),
            (16, SPECTRAL_CHANNELS),
            (1, 16),
        )
        assert one.grid_hw == backbone.grid_hw == (4, 4)
        assert {array.dtype for array in (one.tokens_PD, one.keys_PK, one.attn_AP)} == {np.dtype(np.float16)}
        assert one.attn_AP.min() >= 0
    assert backbone.encode([]) == []


@pytest.mark.parametrize("colour", [0, 255, 77])
@pytest.mark.parametrize(("size", "cell"), [(8, 8), (16, 8), (56, 8)])
def test_one_colour_gives_equal_tokens_no_keys_and_no_attention(colour: int, size: int, cell: int) -> None:
    (encoded,) = EmbeddedBackbone(size, cell).encode([np.full((20, 30, 3), colour, np.uint8)])
    assert np.isfinite(encoded.tokens_PD).all()
    assert (encoded.tokens_PD == encoded.tokens_PD[0]).all()
    assert not encoded.keys_PK.any()
    assert not encoded.attn_AP.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (9, 8)])
def test_odd_pictures_give_finite_features(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (encoded,) = EmbeddedBackbone(56, 8).encode([picture])
    assert all(np.isfinite(array).all() for array in (encoded.tokens_PD, encoded.keys_PK, encoded.attn_AP))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        EmbeddedBackbone(56, 8).encode([np.zeros((8, 8, 3))])  # type: ignore[list-item]


def test_two_backbones_give_equal_bits() -> None:
    one, other = EmbeddedBackbone(56, 8), EmbeddedBackbone(56, 8)
    assert one.id == other.id
    assert bits(one.encode([noise()])[0]) == bits(other.encode([noise()])[0])


def test_a_thing_in_the_middle_draws_the_attention() -> None:
    picture = np.full((64, 64, 3), 230, np.uint8)
    picture[24:40, 24:40] = (200, 20, 20)
    attention = EmbeddedBackbone(64, 8).encode([picture])[0].attn_AP.reshape(8, 8).astype(float)
    assert attention[3:5, 3:5].min() > 3 * np.delete(attention, [2, 3, 4, 5], 0).max()


def test_the_id_stays_that_of_earlier_caches_and_checkpoints_while_the_constants_do() -> None:
    """The digest is of what encoding reads: who changes one of them gives SCHEMA another value."""
    names = (
        *("centre_sigma", "contrast_centre_power", "geodesic_sigma", "flat_step_quantile", "connectivity_sigma"),
        *("contrast_reach", "gradient_scales", "surround_scales", "spectral_components", "spectral_floor"),
        *("spectral_bandwidth", "spectral_reach", "spectral_sample", "contrast_cells", "contrast_guide_cells"),
    )
    values = {name: getattr(embedded, name.upper()) for name in names}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    assert EmbeddedBackbone(56, 8).id == f"embedded-v5-{digest}@56/8"


def test_the_id_names_size_and_cell() -> None:
    ids = {EmbeddedBackbone(size, cell).id for size, cell in ((64, 8), (64, 16), (128, 16))}
    assert len(ids) == 3


def test_a_size_that_no_cell_fits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"size_px 60 must be a multiple of 8"):
        EmbeddedBackbone(60, 8)


def test_keys_part_two_surfaces_by_sign() -> None:
    descriptors = np.zeros((16, 2))
    descriptors[:, 0] = np.repeat([0.0, 1.0], 8)  # upper half, lower half
    keys = spectral_keys(descriptors, (4, 4))
    assert keys.shape == (16, SPECTRAL_CHANNELS)
    signs = np.sign(keys[:, 0])
    assert (signs[:8] == signs[0]).all()
    assert (signs[8:] == -signs[0]).all()


@pytest.mark.parametrize("cells", [1, 2, 3, 9])
def test_grids_with_fewer_cells_than_channels_leave_columns_zero(cells: int) -> None:
    descriptors = np.random.default_rng(0).random((cells, 36))
    keys = spectral_keys(descriptors, (1, cells))
    assert np.isfinite(keys).all()
    assert not keys[:, max(0, cells - 1) :].any()


def shortest_paths(edges_E2: np.ndarray, weights_E: np.ndarray, count: int) -> np.ndarray:
    """Lengths between all pairs of cells, by Floyd and Warshall."""
    lengths = np.full((count, count), np.inf)
    np.fill_diagonal(lengths, 0.0)
    for (first, second), weight in zip(edges_E2, weights_E, strict=True):
        lengths[first, second] = lengths[second, first] = min(lengths[first, second], weight)
    for via in range(count):
        lengths = np.minimum(lengths, lengths[:, [via]] + lengths[via])
    return lengths


@pytest.mark.parametrize("seed", range(4))
def test_paths_between_nodes_are_those_between_cells(seed: int) -> None:
    """Flat steps join cells, double ones and steps within a node are left out: no length changes."""
    generator = np.random.default_rng(seed)
    count, limit = 40, embedded._REACH_SIGMAS * embedded.GEODESIC_SIGMA
    edges_E2 = generator.integers(0, count, (60, 2))
    edges_E2 = edges_E2[edges_E2[:, 0] != edges_E2[:, 1]]
    weights_E = np.maximum(generator.normal(0.15, 0.15, len(edges_E2)), 0.0)
    node_P, geodesic_NN = embedded._geodesics(edges_E2, weights_E, count)
    exact_PP = shortest_paths(edges_E2, weights_E, count)
    found_PP = geodesic_NN[np.ix_(node_P, node_P)]
    is_near_PP = exact_PP <= limit
    assert 0.1 < is_near_PP.mean() < 1.0
    assert len(geodesic_NN) < count
    assert np.allclose(found_PP[is_near_PP], exact_PP[is_near_PP])
    assert np.isinf(found_PP[exact_PP > limit + 1e-9]).all()


def test_keys_are_the_leading_eigenvectors(pictures: list[ByteArray]) -> None:
    descriptors_PD = embedded.compute_descriptors(embedded.square_picture(pictures[0], 96), 8).reshape(-1, 36)
    keys_PK, exact_PK = (make(descriptors_PD, (12, 12)) for make in (spectral_keys, plain.spectral_keys))
    signs_K = np.sign((keys_PK * exact_PK).sum(0))
    assert np.allclose(keys_PK, signs_K * exact_PK, atol=2e-3)


def test_the_background_is_that_of_paths_between_all_cells(pictures: list[ByteArray]) -> None:
    for picture in pictures:
        lab_P3 = embedded.compute_descriptors(embedded.square_picture(picture, 96), 8)[..., :3].reshape(-1, 3)
        distance_PP = np.linalg.norm(lab_P3[:, None] - lab_P3[None], axis=2).astype(np.float64)
        found_P = embedded._background_probability(distance_PP, (12, 12))
        assert np.allclose(found_P, plain.background_probability(distance_PP, (12, 12)), atol=2e-3)


@pytest.mark.parametrize("cell_px", [8, 16])
def test_blurs_of_averaged_squares_are_close_to_those_of_pixels(cell_px: int) -> None:
    photograph_HW3 = compose_image("cat", 0, scenes_of("cat", seed=0)[0], seed=0, size=224)[0]
    found_PD, exact_PD = (
        make(photograph_HW3, cell_px).reshape(-1, embedded.DESCRIPTOR_DIM)
        for make in (embedded.compute_descriptors, plain.compute_descriptors)
    )
    apart_PD, varies_PD = found_PD - exact_PD, exact_PD - exact_PD.mean(0)
    assert np.linalg.norm(apart_PD) < 0.1 * np.linalg.norm(varies_PD)
