"""Sources of a group's maps: the network, pseudo-labels, the probe, baselines, files; and two of them as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from umscosod.baselines import TRAINED, UNTRAINED, untrained_maps
from umscosod.config import PipelineConfig
from umscosod.data.files import GUARDED, open_atomic, real_path
from umscosod.data.images import read_upright_size
from umscosod.data.masks import write_png_atomic
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect, resize_centred, resize_saved
from umscosod.errors import DataError
from umscosod.export.folder import path_inside
from umscosod.export.png import read_map
from umscosod.network.model import predict_maps
from umscosod.pipeline.identity import hash_file
from umscosod.pipeline.setup import Prepared
from umscosod.progress import ProgressFn
from umscosod.pseudo.cleaning import LinearProbe, compute_maps, own_labels
from umscosod.pseudo.store import label_map
from umscosod.types import FloatArray, GroupFeatures, ImageGroup, ImageRef, PseudoLabel

if TYPE_CHECKING:
    import torch

    from umscosod.baselines.scosparc import CrossAttention
    from umscosod.network.model import UmsNetwork

Labels = Mapping[str, PseudoLabel]

NETWORK, PSEUDO, PROBE, MEAN, STORED = "network", "pseudo-label", "probe", "mean", "stored map"
"""Whose maps a group's masks come from; the probe's own where no pseudo-label was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the maps of all groups come from.

    Attributes
    ----------
    name : str
        `NETWORK`, `PSEUDO`, `PROBE`, `STORED` or the name of a baseline.
    b_bar : float
        Mean uncertainty of its maps (eq. 6).
    make_maps : callable
        Maps of a group, float32, (N, H, W), in [0, 1], at network size.
    """

    name: str
    b_bar: float
    make_maps: Callable[[GroupFeatures], FloatArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMaps:
    """Makes maps of pseudo-labels, see `label_maps`.

    Attributes
    ----------
    labels : mapping of str to PseudoLabel
    config : PipelineConfig
    """

    labels: Labels
    config: PipelineConfig

    def __call__(self, features: GroupFeatures) -> FloatArray:
        """Give the maps of a group."""
        return label_maps(features, self.labels, self.config)


def source_for(group: ImageGroup, source: Source) -> Source:
    """Give a source with the pseudo-labels of one group only, light to send."""
    if not isinstance(source.make_maps, LabelMaps):
        return source
    return replace(source, make_maps=replace(source.make_maps, labels=own_labels(group, source.make_maps.labels)))


def choose_sources(config: PipelineConfig, network: Source | None, other: Source | None) -> tuple[Source, ...]:
    """Take both sources, or the one that ``keep`` names; where it is missing, the one that there is."""
    both = tuple(source for source in (network, other) if source is not None)
    wanted = {"blend": both, "network": (network,), "pseudo": (other,)}[config.keep]
    return tuple(source for source in wanted if source is not None) or both


def network_maps(model: UmsNetwork, features: GroupFeatures, device: torch.device) -> FloatArray:
    """Maps that a network predicts for a group, as exact as a job keeps them until they are refined (float16)."""
    return predict_maps(model, features, device).astype(np.float16).astype(np.float32)


def label_maps(features: GroupFeatures, labels: Labels, config: PipelineConfig) -> FloatArray:
    """Soft maps of a group's pseudo-labels, float32, (N, H, W), at network size; zeros for an image that has none."""
    height, width = features.size_hw
    empty_HW = np.zeros((height, width), np.float32)
    maps = [
        label_map(labels[image.id], saliency_P.reshape(features.first.grid_hw), (height, width), config.pseudo)
        if image.id in labels
        else empty_HW
        for image, saliency_P in zip(features.group.images, features.saliency_NP, strict=True)
    ]
    return np.stack(maps)


def probe_maps(features: GroupFeatures, probe: LinearProbe, config: PipelineConfig) -> FloatArray:
    """Soft maps that a probe makes of a group, float32, (N, H, W), at network size."""
    height, width = features.size_hw
    maps = [resize_centred(map_hw, (height, width)) for map_hw in compute_maps(features, probe)]
    return np.stack(maps).astype(np.float32)


Maps = str | Path | Mapping[str, Path]


def find_stored(groups: Sequence[ImageGroup], maps: Maps, out: Path) -> dict[str, Path]:
    """Say where each image's map should lie.

    Parameters
    ----------
    groups : sequence of ImageGroup
    maps : path, or mapping of str to Path
        A folder laid out like the outputs; the ``OUT`` of an earlier job stands for ``OUT/maps``. Or a file by image
        id.
    out : Path
        Output folder of the job that will read them.

    Returns
    -------
    dict of str to Path
        By image id; a file need not exist. A mapping's images that are in no group are left out.

    Raises
    ------
    DataError
        No image has a map, or a map lies among the results in `out`, which the job would replace.
    """
    images = [image for group in groups for image in group.images]
    if isinstance(maps, Mapping):
        where = "the mapping given"
        files = {image.id: Path(maps[image.id]) for image in images if image.id in maps}
    else:
        folder = Path(maps) / "maps" if (Path(maps) / "maps").is_dir() else Path(maps)
        where = str(folder)
        files = {image.id: path_inside(folder, image.output) for image in images}
    if not any(file.is_file() for file in files.values()):
        example = next(iter(files.values()), None)
        wanted = f" (such as {example})" if example else ""
        raise DataError(
            f"none of {len(images)} images has a soft map in {where}{wanted}; give the output folder of a job that "
            "made maps of these images"
        )
    results = [real_path(out / name) for name in GUARDED]
    for file in files.values():
        if any(real_path(file).is_relative_to(place) for place in results):
            raise DataError(f"the map {file} belongs to the results in {out}; choose another --out")
    return files


def hash_stored(files: Mapping[str, Path]) -> str:
    """Hash what the maps hold, by image id; a map that cannot be read counts as none."""
    content = {image_id: hash_file(file) for image_id, file in sorted(files.items())}
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()


def check_stored(file: Path, image: ImageRef) -> bool:
    """Whether a map has another size than its image: its aspect at another scale, or the square of a network.

    Raises
    ------
    DataError
        It has another aspect than these, or is a stamp of a few pixels; or one of the files cannot be read.
    """
    map_hw, (size_hw, _) = read_upright_size(file)[0], read_upright_size(image.path)
    if map_hw == size_hw:
        return False
    if min(map_hw) < LEAST_SIDE_PX or not (map_hw[0] == map_hw[1] or is_same_aspect(map_hw, size_hw)):
        raise DataError(
            f"{file}: the map has {map_hw[1]} x {map_hw[0]} pixels, its image {size_hw[1]} x {size_hw[0]}; save it at "
            "the size of the image"
        )
    return True


def read_stored(file: Path, size_hw: tuple[int, int]) -> FloatArray:
    """Read a map at another size: float32, in [0, 1].

    See `umscosod.data.resize.resize_saved`.

    Raises
    ------
    DataError
        The file is missing, damaged, or not an 8-bit grey picture.
    """
    return resize_saved(read_map(file), size_hw)


def copy_stored(file: Path, target: Path, size_hw: tuple[int, int]) -> None:
    """Write a map among a job's own at the image's size: the same grey levels where it has that size already."""
    levels_HW = np.rint(read_stored(file, size_hw) * 255.0).astype(np.uint8)
    write_png_atomic(target, levels_HW)


WEIGHTS_FILE = "scosparc.safetensors"


def baseline_maps(prepared: Prepared, progress: ProgressFn) -> Callable[[GroupFeatures], FloatArray]:
    """Give what makes a group's maps by ``config.method``; one that trains is trained now, or read."""
    import torch

    config = prepared.config
    if config.method == TRAINED:
        model, device = _trained(prepared, progress), prepared.device
        if prepared.features.engine is not None:  # one layer: it is sent to workers that have no GPU
            model, device = model.to("cpu"), torch.device("cpu")
        return partial(_scosparc_maps, model=model, device=device, size_px=config.features.size_px)
    return partial(_baseline_maps, config=config)


def _scosparc_maps(features: GroupFeatures, model: CrossAttention, device: torch.device, size_px: int) -> FloatArray:
    from umscosod.baselines.scosparc import scosparc_maps

    maps_Nhw = scosparc_maps(model, features, device)
    return np.stack([resize_centred(map_hw, (size_px, size_px)) for map_hw in maps_Nhw])


def _baseline_maps(features: GroupFeatures, config: PipelineConfig) -> FloatArray:
    (method,) = (name for name in UNTRAINED if name == config.method)
    size_hw = (config.features.size_px, config.features.size_px)
    return np.stack([resize_centred(map_hw, size_hw) for map_hw in untrained_maps(method, features, config.seed)])


def _trained(prepared: Prepared, progress: ProgressFn) -> CrossAttention:
    """Train, or read what this job has trained; not resumed half way: it takes minutes and gives the same bits."""
    from safetensors.torch import load_file, save

    from umscosod.baselines.scosparc import CrossAttention, train_scosparc

    seed, device = prepared.config.seed, prepared.device
    file: Path = prepared.job.run / WEIGHTS_FILE
    if file.is_file():
        model = CrossAttention(prepared.features[0].first.tokens_NPD.shape[2], seed)
        try:
            model.load_state_dict(load_file(file))
        except (SafetensorError, RuntimeError):  # damaged: train again
            file.unlink()
        else:
            return model.to(device).eval()
    model = train_scosparc(prepared.features, seed, device, progress)
    with open_atomic(file) as stream:
        stream.write(save({name: value.cpu().contiguous() for name, value in model.state_dict().items()}))
    return model
