"""Where weights lie on this machine. No torch here: forms ask at every keystroke."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from umscosod.features.vit_specs import VitSpec

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def find_weights(spec: VitSpec) -> Path | None:
    """Look for weights on this machine, without network.

    Parameters
    ----------
    spec : VitSpec

    Returns
    -------
    Path or None
        A file in the Hugging Face cache that timm fills, or the authors' file in torch.hub's folder; None: neither.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in HUB_FILES:
        found = try_to_load_from_cache(hub_repository(spec), name)
        if isinstance(found, str):  # neither None nor the marker of a file known to be absent
            return Path(found)
    original = _torch_hub() / "checkpoints" / spec.original_file
    return original if original.is_file() else None


def hub_repository(spec: VitSpec) -> str:
    """Name of the repository on the Hugging Face hub that holds timm's weights."""
    return f"timm/{spec.timm_name}"


def _torch_hub() -> Path:
    """Folder of torch.hub: as torch says where it is imported, else by the rule that torch documents."""
    if (torch := sys.modules.get("torch")) is not None:
        return Path(torch.hub.get_dir())
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub"
