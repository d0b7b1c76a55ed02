"""Hostile checkpoints and weight files."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.base import Make
from tests.hostile.harness import Case

_COMMAND = "predict photos --checkpoint result --out out"
_NEEDS = ("photos", "result")


class _Bomb:
    """Pickles to a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


def _folder(folder: Path) -> Path:
    return sorted((folder / "result/run/checkpoints").iterdir())[-1]


def _case(what: str, make: Make, *, code: int = 2, says: str = "error: ") -> Case:
    return Case(what=what, command=_COMMAND, code=code, says=says, make=make, needs=_NEEDS)


def _meta(what: str, change: Callable[[dict[str, Any]], object]) -> Case:
    def make(folder: Path) -> None:
        file = _folder(folder) / "meta.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
        file.write_text(json.dumps(content), encoding="utf-8")

    return _case(f"meta.json: {what}", make)


def _file(what: str, name: str, content: bytes) -> Case:
    return _case(f"{name}: {what}", lambda folder: (_folder(folder) / name).write_bytes(content))


def _fifo(folder: Path) -> None:
    (_folder(folder) / "model.safetensors").unlink()
    os.mkfifo(_folder(folder) / "model.safetensors")


def _interrupted(what: str, content: Callable[[], object] | bytes) -> Case:
    """A resumed training whose saved state is foreign."""

    def make(folder: Path) -> None:
        file = _folder(folder) / "state.pt"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content(), file)
        for path in ((folder / "result/run/finished.json"), *(folder / "result/run/groups").iterdir()):
            path.unlink()

    return Case(
        what=f"state.pt: {what}",
        command="label photos --out result --preset smoke --train always --config.train.epochs 1",
        code=2,
        says="error: ",
        make=make,
        needs=_NEEDS,
    )


def _weights(what: str, make: Make, name: str = "w.pth") -> Case:
    command = f"label photos --out out --backbone dinov2_vits14 --weights {name}"
    return Case(what=f"weights: {what}", command=command, code=2, says="error: ", make=make)


def _pickle(folder: Path) -> None:
    (folder / "w.pth").write_bytes(pickle.dumps({"x": _Bomb()}))


CASES = [
    Case(what="no such checkpoint", command=_COMMAND, code=2, says="error: "),
    _meta("dims of 10^12", lambda content: content.update(dims=[10**12, 10**12])),
    _meta("dims negative", lambda content: content.update(dims=[-1, -1])),
    _meta("dims of text", lambda content: content.update(dims="ab")),
    _meta("dims of fractions", lambda content: content.update(dims=[1.5, 2.5])),
    _meta("one dim", lambda content: content.update(dims=[384])),
    _meta("config is a list", lambda content: content.update(config=[])),
    _meta("config.network is 5", lambda content: content["config"].update(network=5)),
    _meta("config.network.decoder is text", lambda content: content["config"]["network"].update(decoder="x")),
    _meta("calibration is text", lambda content: content.update(calibration="x")),
    _meta("b_bar is null", lambda content: content["calibration"].update(b_bar=None)),
    _meta("b_bar is NaN", lambda content: content["calibration"].update(b_bar=float("nan"))),
    _meta("b_bar is text", lambda content: content["calibration"].update(b_bar="x")),
    _meta("schema 99", lambda content: content.update(schema=99)),
    _meta("a field too many", lambda content: content.update(more=1)),
    _file("[]", "meta.json", b"[]"),
    _file("binary", "meta.json", bytes(range(256))),
    _file("nested 100,000 deep", "meta.json", b"[" * 100_000),
    _file("empty", "model.safetensors", b""),
    _file("header that claims 2^63 bytes", "model.safetensors", b"\xff" * 7 + b"\x7f" + b"{}"),
    _file("a pickle that runs a program", "model.safetensors", pickle.dumps(_Bomb())),
    _file("[]", "whitening.json", b"[]"),
    _file("5", "whitening.json", b"5"),
    _file("numbers of 5,000 digits", "whitening.json", b'{"first": ' + b"9" * 5000 + b"}"),
    _file("null for a stream", "whitening.json", b'{"first": null}'),
    _file("empty", "probe.safetensors", b""),
    _case("model.safetensors is a FIFO", _fifo),
    _interrupted("a pickle that runs a program", pickle.dumps(_Bomb())),
    _interrupted("binary", bytes(range(256))),
    _interrupted("{}", dict),
    _interrupted("step is text", lambda: {"optimizer": {}, "step": "x"}),
    _weights("a pickle that runs a program", _pickle),
    _weights("empty", lambda folder: (folder / "w.pth").write_bytes(b"")),
    _weights("a folder", lambda folder: (folder / "w.pth").mkdir()),
    _weights("FIFO", lambda folder: os.mkfifo(folder / "w.pth")),
    _weights("no such file", lambda folder: None),
    _weights("a list of tensors", lambda folder: torch.save([torch.ones(2)], folder / "w.pth")),
    _weights("tensors of another network", lambda folder: torch.save({"x": torch.ones(2)}, folder / "w.pth")),
    _weights(
        "random bytes named .safetensors",
        lambda folder: (folder / "w.safetensors").write_bytes(os.urandom(99)),
        "w.safetensors",
    ),
]
