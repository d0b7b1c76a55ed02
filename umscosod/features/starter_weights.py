"""Files of starter weights: written in half precision, read with every check that a foreign file needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from umscosod.data.files import open_atomic
from umscosod.errors import WeightsError, reason_of
from umscosod.features.starter_network import StarterNetwork

_KIND = "umscosod-starter-2"
_CURE = "make them with umscosod pretrain"


def save_starter(network: StarterNetwork, file: Path, making: Mapping[str, Any]) -> None:
    """Write a network in float16, with plain JSON values that tell how it was made; the file appears whole.

    Equal networks give equal bytes: all is told under one name, as safetensors keeps several in no order.
    """
    halves = {
        name: tensor.detach().cpu().half().contiguous() if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in network.state_dict().items()
    }
    with open_atomic(file) as stream:
        stream.write(save(halves, {_KIND: json.dumps(making, sort_keys=True)}))


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
        read_making(content)
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        )
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise WeightsError(f"weights {name} cannot be used: {reason_of(error)}; {_CURE}") from None
    if not all(torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise WeightsError(f"weights {name} hold NaN or infinity; {_CURE}")
    return network.eval()


def read_making(content: bytes) -> dict[str, Any]:
    """How the weights of a file were made: recipe, seed, number of photographs, hash of their list.

    Raises
    ------
    ValueError
        It is no file of starter weights of this version.
    """
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    if _KIND not in told:
        raise ValueError("they are no starter weights of this version")
    return dict(json.loads(told[_KIND]))


def sha256_of(content: bytes) -> str:
    """Hash of a weight file."""
    return hashlib.sha256(content).hexdigest()
