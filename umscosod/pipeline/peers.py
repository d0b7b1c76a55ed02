"""Maps by a method of others, put where the network's maps would be: refinement and outputs are the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from umscosod.baselines.choose import TRAINED, UNTRAINED, untrained_maps
from umscosod.data.files import open_atomic
from umscosod.data.resize import resize_centred
from umscosod.pipeline.prepare import Prepared
from umscosod.progress import ProgressFn
from umscosod.refine.threshold import map_confidence
from umscosod.types import FloatArray, ImageGroup

if TYPE_CHECKING:
    from umscosod.baselines.scosparc import CrossAttention

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
        return untrained_maps(method, features, prepared.config.baselines, prepared.config.seed)
    from umscosod.baselines.scosparc import scosparc_maps

    return scosparc_maps(model, features, prepared.device)


def _enlarge(maps_Nhw: FloatArray, side_px: int) -> FloatArray:
    return np.stack([resize_centred(map_hw, (side_px, side_px)) for map_hw in maps_Nhw])


def _trained(prepared: Prepared, progress: ProgressFn) -> CrossAttention:
    """Train, or take up what this job has trained; not resumed half way: it takes minutes and gives the same bits."""
    from safetensors.torch import load_file, save

    from umscosod.baselines.scosparc import CrossAttention, train_scosparc

    config, seed, device = prepared.config.baselines.scosparc, prepared.config.seed, prepared.device
    file: Path = prepared.job.run / WEIGHTS_FILE
    if file.is_file():
        model = CrossAttention(prepared.features[0].first.tokens_NPD.shape[2], config, seed)
        try:
            model.load_state_dict(load_file(file))
        except (SafetensorError, RuntimeError):  # damaged: train again
            file.unlink()
        else:
            return model.to(device).eval()
    model = train_scosparc(prepared.features, config, seed, device, progress)
    with open_atomic(file) as stream:
        stream.write(save({name: value.cpu().contiguous() for name, value in model.state_dict().items()}))
    return model
