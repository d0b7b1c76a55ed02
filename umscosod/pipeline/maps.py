"""Sources of a group's maps: files, baselines, the network, the labels; and two of them as one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from umscosod.baselines.choose import TRAINED, UNTRAINED, untrained_maps
from umscosod.config import PipelineConfig
from umscosod.data.files import GUARDED, open_atomic, real_path
from umscosod.data.images import read_upright_size
from umscosod.data.masks import write_png_atomic
from umscosod.data.resize import LEAST_SIDE_PX, is_same_aspect, resize_aligned, resize_centred
from umscosod.errors import DataError
from umscosod.export.folder import path_inside
from umscosod.export.png import read_map
from umscosod.pipeline.blend import blend_maps
from umscosod.pipeline.setup import Prepared
from umscosod.pipeline.stages import refine_features
from umscosod.progress import ProgressFn
from umscosod.refine.choice import group_agreement
from umscosod.refine.crf_pool import CrfPool
from umscosod.refine.threshold import map_confidence
from umscosod.types import FloatArray, GroupFeatures, ImageGroup, ImageRef, RefinedMask

if TYPE_CHECKING:
    from umscosod.baselines.scosparc import CrossAttention

NETWORK, PSEUDO, PROBE, MEAN, STORED = "network", "pseudo-label", "probe", "mean", "stored map"
"""Whose maps a group's masks come from; the probe's own where no pseudo-label was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeMaps:
    """One maker's maps of a group.

    Attributes
    ----------
    maps_NHW : ndarray, float32, (N, H, W), in [0, 1]
        At network size.
    b_bar : float
        Mean doubt of this maker's maps (eq. 6).
    """

    maps_NHW: FloatArray
    b_bar: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One maker's maps of a group, refined."""

    source: str
    maps_NHW: FloatArray
    refined: list[RefinedMask]


def choose_maps(
    features: GroupFeatures, made: Mapping[str, MadeMaps], config: PipelineConfig, pool: CrfPool | None
) -> Candidate:
    """Refine every maker's maps of a group; return what is to be kept.

    Parameters
    ----------
    features : GroupFeatures
    made : mapping of str to MadeMaps
        By maker: one of any name, kept as it is, or `NETWORK` and one other.
    config : PipelineConfig
        Reads ``keep``, ``keep_margin``, ``mean_network_share`` and ``refine``.
    pool : CrfPool or None
        Processes for DenseCRF.

    Returns
    -------
    Candidate
        Of the maker whose masks agree better across the group by more than ``keep_margin``, or that ``keep`` names;
        else of the mean of both makers' maps, named `MEAN`, with the mean of their b_bar, weighted alike.
    """
    if len(made) == 1:
        ((source, only),) = made.items()
        return _refine(features, source, only, config, pool)
    network = _refine(features, NETWORK, made[NETWORK], config, pool)
    (other_source,) = made.keys() - {NETWORK}
    other = _refine(features, other_source, made[other_source], config, pool)
    lead = _agreement(features, network, config) - _agreement(features, other, config)
    if config.keep == "network" or (config.keep == "better" and lead > config.keep_margin):
        return network
    if config.keep == "pseudo" or lead < -config.keep_margin:
        return other
    share = config.mean_network_share
    mean = MadeMaps(
        maps_NHW=blend_maps(other.maps_NHW, network.maps_NHW, share),
        b_bar=share * made[NETWORK].b_bar + (1.0 - share) * made[other_source].b_bar,
    )
    return _refine(features, MEAN, mean, config, pool)


def _refine(
    features: GroupFeatures, source: str, made: MadeMaps, config: PipelineConfig, pool: CrfPool | None
) -> Candidate:
    refined = refine_features(features, made.maps_NHW, config.refine, made.b_bar, pool)
    return Candidate(source=source, maps_NHW=made.maps_NHW, refined=refined)


def _agreement(features: GroupFeatures, one: Candidate, config: PipelineConfig) -> float:
    """Judged on the second stream: neither the pseudo-labels' masks nor the region filter looked at it."""
    second = features.second
    return group_agreement([mask.mask_HW for mask in one.refined], second.tokens_NPD, second.grid_hw, config.refine)


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
    content = {image_id: _hash_file(file) for image_id, file in sorted(files.items())}
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

    The corner pixels stay in place, as they did when the map was enlarged to be saved (`resize_aligned`).

    Raises
    ------
    DataError
        The file is missing, damaged, or not an 8-bit grey picture.
    """
    return resize_aligned(read_map(file), size_hw)


def copy_stored(file: Path, target: Path, size_hw: tuple[int, int]) -> None:
    """Write a map among a job's own at the image's size: the same grey levels where it has that size already."""
    levels_HW = np.rint(resize_aligned(read_map(file), size_hw) * 255.0).astype(np.uint8)
    write_png_atomic(target, levels_HW)


def _hash_file(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    except OSError:
        return ""


WEIGHTS_FILE = "scosparc.safetensors"


def peer_stage(prepared: Prepared, progress: ProgressFn) -> float:
    """Compute the maps of all groups by ``config.method`` into the job's folder.

    Groups whose maps or masks this very job has stored are not done again; a peer that trains keeps its weights in
    ``OUT/run``.

    Returns
    -------
    float
        Mean of 1 - conf over all maps: the b_bar of eq. 6.
    """
    method, groups = prepared.config.method, prepared.features.groups
    model = _trained(prepared, progress) if method == TRAINED and groups else None
    doubts: list[float] = []
    for number, group in enumerate(groups):
        progress(number, len(groups), method)
        maps_NHW = prepared.job.load_maps(group)
        if maps_NHW is None:
            prepared.job.save_maps(group, _enlarge(_maps(prepared, group, model), prepared.config.features.size_px))
            maps_NHW = prepared.job.load_maps(group)
        assert maps_NHW is not None, "it was written a moment ago"
        doubts += [1.0 - map_confidence(map_HW) for map_HW in maps_NHW]
    progress(len(groups), len(groups), method)
    return math.fsum(doubts) / len(doubts) if doubts else 0.0


def _maps(prepared: Prepared, group: ImageGroup, model: CrossAttention | None) -> FloatArray:
    features = prepared.features.load(group)
    if model is None:
        (method,) = (name for name in UNTRAINED if name == prepared.config.method)
        return untrained_maps(method, features, prepared.config.seed)
    from umscosod.baselines.scosparc import scosparc_maps

    return scosparc_maps(model, features, prepared.device)


def _enlarge(maps_Nhw: FloatArray, side_px: int) -> FloatArray:
    return np.stack([resize_centred(map_hw, (side_px, side_px)) for map_hw in maps_Nhw])


def _trained(prepared: Prepared, progress: ProgressFn) -> CrossAttention:
    """Train, or take up what this job has trained; not resumed half way: it takes minutes and gives the same bits."""
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
