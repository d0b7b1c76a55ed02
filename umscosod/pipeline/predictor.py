"""A model in memory: groups of decoded pictures in, maps and masks out, no output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from umscosod.config import DataConfig, PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config, validate_config
from umscosod.data.resize import resize_aligned
from umscosod.device import resolve_device
from umscosod.errors import ConfigError, DataError
from umscosod.features.backbone import BackbonePair, build_backbones
from umscosod.features.group import PICTURE, STREAMS, Whitening, assemble, fit_whitening, picture_arrays, stream_arrays
from umscosod.network.model import UmsNetwork
from umscosod.pipeline.checkpoints import adopt_checkpoint, find_probe, load_fitting, load_whitenings
from umscosod.pipeline.maps import NETWORK, PSEUDO, Source, choose_sources, label_maps, network_maps
from umscosod.pipeline.segment import segment_group
from umscosod.pseudo.cleaning import clean_collection
from umscosod.pseudo.proposals import HacProposer
from umscosod.pseudo.select import choose_labels
from umscosod.refine.crf_pool import Refiner, open_pool
from umscosod.refine.rrbe import mean_uncertainty
from umscosod.training.checkpoint import find_checkpoint
from umscosod.types import BoolArray, ByteArray, FloatArray, GroupFeatures, ImageGroup, ImageRef

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupPrediction:
    """What was found in one picture of a group.

    Attributes
    ----------
    map_HW : ndarray, float32, (H, W), in [0, 1]
        Soft co-saliency at the picture's own size.
    mask_HW : ndarray, bool, (H, W)
    confidence : float
        In [0, 1]; 0 where the mask is empty.
    """

    map_HW: FloatArray
    mask_HW: BoolArray
    confidence: float


class CoSalPredictor:
    """Finds the common object of groups of pictures; made by `load_model`.

    Inside a ``with`` block several processes share DenseCRF's work, as ``refine.crf.workers`` says; elsewhere it runs
    in this one. The results are the same bits. On CUDA it runs there, in a block or not.

    Attributes
    ----------
    config : PipelineConfig
    pair : BackbonePair
    notes : tuple of str
        Which backbones were chosen and why.
    network : UmsNetwork or None
        None: pseudo-labels make the maps.
    """

    def __init__(
        self,
        config: PipelineConfig,
        pair: BackbonePair,
        device: torch.device,
        *,
        network: UmsNetwork | None = None,
        whitenings: Mapping[str, Whitening] | None = None,
        b_bar: float | None = None,
        probe: Source | None = None,
    ) -> None:
        self.config, self.pair, self.notes = config, pair, pair.notes
        self.network, self._device = network, device
        self._whitenings, self._b_bar, self._probe = dict(whitenings or {}), b_bar, probe
        self._stack = ExitStack()
        self._pool: Refiner | None = None

    @property
    def is_trained(self) -> bool:
        """Whether a network, and a probe trained with it, make the maps; pseudo-labels do otherwise."""
        return self.network is not None

    def __enter__(self) -> Self:
        """Open processes for DenseCRF, or hold the memory that it takes on CUDA."""
        if self._pool is None:
            self._pool = self._stack.enter_context(open_pool(self.config.refine.crf, device=str(self._device)))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool = None
        self._stack.close()

    def predict_group(self, pictures: Sequence[ByteArray]) -> list[GroupPrediction]:
        """Find the object that the pictures share.

        Parameters
        ----------
        pictures : sequence of ndarray, uint8, (H, W, 3)
            RGB, upright, at their own sizes. The other pictures are the only clue to what is meant; one alone is
            labelled by itself.

        Returns
        -------
        list of GroupPrediction
            In the order given; empty for no pictures.

        Raises
        ------
        DataError
            A picture is no uint8 RGB array, or larger or smaller than ``data`` allows; the message says which.
        """
        if not pictures:
            return []
        for index, picture_HW3 in enumerate(pictures):
            check_picture(picture_HW3, f"picture {index} of {len(pictures)}", self.config.data)
        features = self.encode(pictures)
        sources = self._sources_of(features)
        lone = open_pool(self.config.refine.crf, 1, str(self._device))  # of one process, hence none, or on CUDA
        with lone if self._pool is None else nullcontext(self._pool) as pool:
            segments, _ = segment_group(features, sources, self.config, pool=pool)
        return [
            GroupPrediction(map_HW=resize_aligned(one.map_HW, size_hw), mask_HW=one.mask_HW, confidence=one.confidence)
            for one, size_hw in zip(segments, features.sizes_hw, strict=True)
        ]

    def encode(self, pictures: Sequence[ByteArray]) -> GroupFeatures:
        """Make what the network looks at: tokens of both streams, saliency, pictures at network size.

        Parameters
        ----------
        pictures : sequence of ndarray, uint8, (H, W, 3)
            RGB, upright, at their own sizes; at least one.

        Returns
        -------
        GroupFeatures
        """
        parts = {PICTURE: [picture_arrays(picture_HW3, self.config.features.size_px) for picture_HW3 in pictures]}
        whitenings: dict[str, Whitening] = {}
        for stream, backbone in zip(STREAMS, self.pair.both, strict=True):
            parts[stream] = [stream_arrays(encoded, stream) for encoded in backbone.encode(pictures)]
            if backbone.needs_whitening:  # the checkpoint's, or statistics of the group at hand where there are none
                tokens = (arrays["tokens"] for arrays in parts[stream])
                whitenings[stream] = self._whitenings.get(stream) or fit_whitening(tokens)
        names = [f"{index:06}" for index in range(len(pictures))]
        images = tuple(ImageRef(id=name, path=Path(name), output=f"{name}.png") for name in names)
        group = ImageGroup(name="group", images=images)
        return assemble(group, lambda image, part, name: parts[part][int(image.id)][name], self.pair, whitenings)

    def _sources_of(self, features: GroupFeatures) -> tuple[Source, ...]:
        if self.network is None:
            return (_source_of(PSEUDO, self._label(features)),)
        network = _source_of(NETWORK, network_maps(self.network, features, self._device), self._b_bar)
        return choose_sources(self.config, network, self._probe)

    def _label(self, features: GroupFeatures) -> FloatArray:
        made = choose_labels(features, HacProposer(self.config.pseudo), self.config.pseudo)
        labels = {label.image_id: label for label in made}
        if self.config.method != "pseudo":
            labels, _ = clean_collection([features], labels, self.config)
        return label_maps(features, labels, self.config)


def _source_of(name: str, maps_NHW: FloatArray, b_bar: float | None = None) -> Source:
    """The maps of the group at hand, by default as uncertain as they are themselves."""
    b_bar = mean_uncertainty(maps_NHW) if b_bar is None else b_bar
    return Source(name=name, b_bar=b_bar, make_maps=lambda _: maps_NHW)


def load_model(checkpoint: str | Path | None = None, config: PipelineConfig | None = None) -> CoSalPredictor:
    """Load a model once, to label any number of groups of pictures in memory.

    Parameters
    ----------
    checkpoint : path, optional
        A checkpoint, a run's folder, or the output folder of `umscosod.train` or `umscosod.label_groups`. None: no
        network; masks come from refined pseudo-labels (CM-SPLG and RRBE), as ``label --no-train`` makes them.
    config : PipelineConfig, optional
        By default the ``fast`` preset. With a checkpoint and ``features.backbone`` left at ``auto``, the backbones of
        the checkpoint are used.

    Returns
    -------
    CoSalPredictor

    Raises
    ------
    CheckpointError
        No checkpoint there, it is damaged, or it belongs to other backbones.
    ConfigError
        A setting is wrong; without a checkpoint ``method`` must be ``ums`` or ``pseudo``, and ``pseudo.proposer``
        must be ``hac``, as ``coco-json`` looks masks up
        by file name.
    WeightsError
        The backbone's weights are missing.

    Notes
    -----
    ``embedded`` features are whitened by the statistics kept with the checkpoint; without one, by those of the group
    at hand.

    Examples
    --------
    ::

        model = umscosod.load_model("OUT/run")
        for one in model.predict_group([picture_a, picture_b, picture_c]):
            print(one.mask_HW.sum(), one.confidence)
    """
    config = load_config(DEFAULT_PRESET) if config is None else config
    folder = None if checkpoint is None else find_checkpoint(Path(checkpoint))
    if folder is not None:
        config = adopt_checkpoint(config, folder)
    elif config.method not in ("ums", "pseudo"):
        raise ConfigError(f"method {config.method!r} works on collections; use label_groups, or leave method at ums")
    elif config.pseudo.proposer != "hac":
        raise ConfigError(
            f"pseudo.proposer {config.pseudo.proposer!r} looks masks up by file name, which pictures in memory do not "
            "have; use hac, or a checkpoint"
        )
    validate_config(config)
    device = resolve_device(config.device)
    pair = build_backbones(config.features, device)
    config = replace(config, device=str(device))
    if folder is None:
        return CoSalPredictor(config, pair, device)
    whitenings = load_whitenings(folder)
    network, meta = load_fitting(folder, pair, whitenings)
    return CoSalPredictor(
        config,
        pair,
        device,
        network=network,
        whitenings=whitenings,
        b_bar=meta.calibration.get("b_bar"),
        probe=find_probe(folder, config),
    )


def check_picture(picture_HW3: ByteArray, name: str, config: DataConfig) -> None:
    """Refuse what is no decoded picture, or larger or smaller than the settings allow; DataError says which."""
    if picture_HW3.dtype != np.uint8 or picture_HW3.ndim != 3 or picture_HW3.shape[2] != 3:
        raise DataError(f"{name} must be uint8 RGB (H, W, 3), got {picture_HW3.dtype} {picture_HW3.shape}")
    height, width = picture_HW3.shape[:2]
    if min(height, width) < config.min_side_px:
        raise DataError(
            f"{name} is {width} x {height} pixels, each side must have at least {config.min_side_px}; leave it out or "
            "lower data.min_side_px"
        )
    if height * width > config.max_pixels:
        raise DataError(
            f"{name} is {width} x {height} pixels, more than the limit of {config.max_pixels}; make it smaller or "
            "raise data.max_pixels"
        )
