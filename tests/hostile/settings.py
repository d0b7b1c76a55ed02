"""Hostile settings: YAML files and flags."""

from __future__ import annotations

import os

from tests.hostile.base import Make, write
from tests.hostile.harness import Case

_BOMB = (
    "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
    + "seed: *i\n"
)


def _yaml(what: str, content: bytes | str) -> Case:
    command = "label photos --out out --config-file bad.yaml"
    return Case(what=f"YAML: {what}", command=command, code=2, says="error: ", make=write("bad.yaml", content))


def _made(what: str, make: Make) -> Case:
    command = "label photos --out out --config-file bad.yaml"
    return Case(what=f"YAML: {what}", command=command, code=2, says="error: ", make=make)


def _flag(name: str, value: str) -> Case:
    """A number that is none, or out of all bounds; a value that is no number at all is the parser's to refuse."""
    return Case(
        what=f"--config.{name} {value}",
        command=f"label photos --out out --config.{name}={value}",
        code=2,
        says=name.replace("-", "_"),
    )


CASES = [
    Case(
        what="a flag's number of 5,000 digits",
        command=f"label photos --out out --config.train.epochs {'9' * 5000}",
        code=2,
        says="error: ",
    ),
    Case(
        what="detections that no setting asks for",
        command="label photos --out out --config.pseudo.detections masks.json",
        code=0,
        says="is not used",
    ),
    Case(what="--config-file ''", command="label photos --out out --config-file ''", code=2, says="error: "),
    Case(
        what="discover: more groups than images",
        command="discover photos --out l.csv --n-groups 1000000000000",
        code=2,
        says="error: ",
    ),
    _yaml("!!int abc", "seed: !!int abc\n"),
    _yaml("!!float x", "seed: !!float x\n"),
    _yaml("!!binary", "seed: !!binary '!!!'\n"),
    _yaml("!!python/object/apply:os.system", "seed: !!python/object/apply:os.system ['touch owned']\n"),
    _yaml("a date that is none", "seed: 2026-99-99\n"),
    _yaml("a number of 5,000 digits", f"seed: {'9' * 5000}\n"),
    _yaml("lists nested 3,000 deep", f"seed: {'[' * 3000}{']' * 3000}\n"),
    _yaml("aliases that expand to 9^9 values", _BOMB),
    _yaml("a value that holds itself", "seed: &a [*a]\n"),
    _yaml("unknown key", "sead: 1\n"),
    _yaml("a list", "- 1\n"),
    _yaml("a section that is a number", "refine: 5\n"),
    _yaml("keys that are no text", "{1: 2, [3]: 4}\n"),
    _yaml("one key twice", "seed: 1\nseed: 2\n"),
    _yaml("NUL", b"seed: \0\n"),
    _yaml("tabs", b"refine:\n\tcrf:\n"),
    _yaml("UTF-16", "seed: 1\n".encode("utf-16")),
    _yaml("binary", bytes(range(256))),
    _yaml("true for a number", "seed: true\n"),
    _yaml(".nan", "refine: {sim_th: .nan}\n"),
    _made("no such file", lambda folder: None),
    _made("a folder", lambda folder: (folder / "bad.yaml").mkdir()),
    _made("FIFO", lambda folder: os.mkfifo(folder / "bad.yaml")),
    _flag("refine.crf.bilateral-rgb", "1e-6"),
    _flag("refine.crf.bilateral-xy-px", "1e-6"),
    _flag("refine.crf.gaussian-xy-px", "1e-6"),
    _flag("refine.crf.gaussian-xy-px", "1e300"),
    _flag("train.epochs", str(10**18)),
    _flag("train.weight-decay", "1e300"),
    _flag("train.learning-rate", "nan"),
    _flag("features.size-px", str(10**9)),
    _flag("features.batch-size", "-1"),
    _flag("seed", str(-(10**30))),
    _flag("data.max-pixels", "0"),
    Case(what="unknown preset", command="label photos --out out --preset papper", code=2, says="error: "),
    Case(what="unknown verb", command="lable photos", code=2, says="lable"),
    Case(what="device foo", command="label photos --out out --device foo", code=2, says="error: "),
    Case(what="device cuda:99", command="label photos --out out --device cuda:99", code=2, says="error: "),
    *(
        Case(what=what, command=f"label photos --out out {what}", code=2, says="error: ")
        for what in (
            "--address 127.0.0.1:1",
            "--engine ray --address nowhere",
            "--engine ray --gpus-per-actor -1",
            "--config.train.groups-per-step -1",
        )
    ),
    Case(
        what="export-model to a folder that is not empty", command="export-model c --out photos", code=2, says="error: "
    ),
    Case(what="export-model of no checkpoint", command="export-model photos --out model", code=2, says="error: "),
    Case(what="backbone foo", command="label photos --out out --backbone foo", code=2, says="error: "),
    Case(
        what="features prune --max-gb 1e300",
        command="features prune --max-gb 1e300 --cache-dir c",
        code=2,
        says="error: ",
    ),
    Case(
        what="features prune --max-gb nan", command="features prune --max-gb nan --cache-dir c", code=2, says="error: "
    ),
]
