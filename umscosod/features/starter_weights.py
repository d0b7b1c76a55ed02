"""Files of starter weights: written in half precision, read with every check that a foreign file needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from umscosod.data.files import open_atomic
from umscosod.errors import WeightsError, reason_of
from umscosod.features.starter_network import StarterNetwork

PACKAGED = "starter.safetensors"
_KIND = "umscosod-starter-1"
_CURE = "make it with umscosod.pretrain, or use the weights of the package"


def save_starter(network: StarterNetwork, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a network in float16 with texts about its making; the file appears whole."""
    halves = {
        name: tensor.detach().cpu().half().contiguous() if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in network.state_dict().items()
    }
    with open_atomic(file) as stream:
        stream.write(save(halves, {"format": _KIND, **metadata}))


def packaged_starter() -> bytes:
    """Content of the weight file that comes with the package."""
    return files("umscosod").joinpath("weights", PACKAGED).read_bytes()


def load_starter(content: bytes, name: str) -> StarterNetwork:
    """Build the network that a file holds, in float32, on the CPU, for use.

    Parameters
    ----------
    content : bytes
    name : str
        Of the file, for messages.

    Raises
    ------
    WeightsError
        The content is no file of starter weights.
    """
    network = StarterNetwork()
    try:
        tensors = load(content)
        if read_metadata(content).get("format") != _KIND:
            raise WeightsError(f"weights {name} are no starter weights of this version; {_CURE}")
        network.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise WeightsError(f"weights {name} cannot be used: {reason_of(error)}; {_CURE}") from None
    if not all(torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise WeightsError(f"weights {name} hold NaN or infinity; {_CURE}")
    return network.eval()


def read_metadata(content: bytes) -> dict[str, str]:
    """Texts about the making of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))


def sha256_of(content: bytes) -> str:
    """Hash of a weight file."""
    return hashlib.sha256(content).hexdigest()
