"""What tests of whole jobs share: settings that take a second, and all that a job wrote."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from umscosod.config import PipelineConfig
from umscosod.config.io import load_config


def quick_config(cache: Path, **changes: Any) -> PipelineConfig:
    """The ``smoke`` preset with three epochs, so that there is a middle to be killed in, and a cache of its own."""
    config = load_config("smoke")
    features, train = replace(config.features, cache_dir=str(cache)), replace(config.train, epochs=3)
    return replace(config, device="cpu", features=features, train=train, **changes)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_results(out: Path) -> dict[str, bytes]:
    """Every file of a job that must not depend on when, where and in how many goes it ran.

    Left out: ``run/run.json`` (durations, command line), ``run/config.yaml`` (names the cache), the paths of the images
    in ``run/collection.json``, and all checkpoints but the last, whose ``meta.json`` counts without the name of the
    cache and the number of processes, and whose ``state.pt`` counts by its values: a pickle also tells which of its
    objects were one.
    """
    files = read_tree(out)
    for name in ("run/run.json", "run/config.yaml"):
        files.pop(name, None)  # `train` writes neither
    if "run/collection.json" in files:
        kept = json.loads(files["run/collection.json"])
        kept["images"] = [[group, name, output] for group, name, _, output in kept["images"]]
        files["run/collection.json"] = json.dumps(kept, sort_keys=True).encode()
    checkpoints = sorted({name.split("/")[2] for name in files if name.startswith("run/checkpoints/")})
    for old in checkpoints[:-1]:
        files = {name: content for name, content in files.items() if f"checkpoints/{old}/" not in name}
    for name in [name for name in files if name.endswith("/meta.json")]:
        meta = json.loads(files[name])
        meta["config"]["features"].pop("cache_dir")
        meta["config"]["refine"]["crf"].pop("workers")
        files[name] = json.dumps(meta, sort_keys=True).encode()
        state = name.replace("meta.json", "state.pt")
        files[state] = repr(_plain(torch.load(io.BytesIO(files[state]), weights_only=True))).encode()
    return files


def _plain(value: Any) -> Any:
    """A state with its tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return [(key, _plain(inner)) for key, inner in sorted(value.items())]
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def assert_same(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Equal names, equal bytes; a failure names the files and not their bytes."""
    lacking, more = sorted(second.keys() - first.keys()), sorted(first.keys() - second.keys())
    assert not lacking + more, f"missing: {lacking}; too many: {more}"
    changed = [name for name in first if first[name] != second[name]]
    assert not changed, f"other bytes: {changed}"


def select(files: dict[str, bytes], *trees: str) -> dict[str, bytes]:
    """The files of some of the folders of an output folder."""
    return {name: content for name, content in files.items() if name.startswith(tuple(f"{tree}/" for tree in trees))}
