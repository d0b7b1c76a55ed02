"""Remote zoo source of FiftyOne: see ``manifest.json``, whose ``base_filename`` makes FiftyOne import this module.

Weights are neither shipped nor published, so the model works without training unless a checkpoint is given. What
FiftyOne calls the model's file holds its settings.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if find_spec("umscosod") is None:  # only this repository's folder was downloaded
    sys.path.append(str(ROOT))


def download_model(model_name: str, model_path: str) -> None:
    """Write the model's settings, the ``fast`` preset in full, as YAML; nothing is fetched."""
    from umscosod.config.io import DEFAULT_PRESET, dump_config, load_config
    from umscosod.data.files import open_atomic

    with open_atomic(Path(model_path)) as stream:
        stream.write(f"# {model_name}: preset {DEFAULT_PRESET}\n".encode())
        stream.write(dump_config(load_config(DEFAULT_PRESET)).encode())


def load_model(model_name: str, model_path: str, **kwargs: Any) -> Any:
    """Load the model by the settings at `model_path`.

    Parameters
    ----------
    model_name : str
    model_path : str
        Written by `download_model`; a person may edit it.
    **kwargs
        Keys of `umscosod.integrations.fiftyone.model.CoSalModelConfig`, such as ``checkpoint``, ``output``,
        ``group_field`` and ``settings``. A ``preset`` or ``config_file`` takes the place of the file at `model_path`.

    Returns
    -------
    umscosod.integrations.fiftyone.model.CoSalModel
    """
    from umscosod.integrations.fiftyone.model import CoSalModel, CoSalModelConfig

    is_configured = bool(kwargs.get("preset") or kwargs.get("config_file"))
    file = {} if is_configured else {"config_file": model_path}
    return CoSalModel(CoSalModelConfig({**kwargs, **file}))


def resolve_input(model_name: str, ctx: Any) -> Any:
    """Give the form that the App shows for this model."""
    from fiftyone.operators import types

    inputs = types.Object()
    inputs.enum("output", ["segmentation", "heatmap"], default="segmentation", label="Output")
    inputs.str("group_field", label="Group field", description="Field that names a sample's group. Empty: its folder.")
    inputs.str("checkpoint", label="Checkpoint", description="A trained network. Empty: no network, no training.")
    return types.Property(inputs)
