"""One of several processes that train one network: ``shared_training FOLDER`` with torch's variables around it.

It writes ``FOLDER/said-RANK.json``: what was refused, what its calls returned, and every change it made below FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import umscosod
from tests.jobs import quick_config
from umscosod.config import PipelineConfig
from umscosod.config.io import change_config
from umscosod.errors import UmscosodError
from umscosod.training.processes import join_processes

RUNS = {"one-step": {"train.epochs": 1}, "run": {"train.ema_decay": 0.9}, "again": {"train.ema_decay": 0.9}}
"""Settings of each run; that of one step sees the first two groups alone."""
REFUSED = {"groups": {"train.groups_per_step": 3}, "cache": {"features.use_cache": False}, "labels": {}}
"""Settings that are refused; for the last the second process reads other pseudo-labels than the first."""
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.link")


def images_of(folder: Path, run: str) -> Path:
    """The pictures that a run is made of."""
    return folder / ("two" if run == "one-step" else "three") / "image"


def config_of(folder: Path, **changes: Any) -> PipelineConfig:
    """Quick settings, all runs with one cache."""
    config = quick_config(folder / "cache")
    return change_config(replace(config, train=replace(config.train, batch_images=2)), changes)


def watch(folder: Path) -> list[str]:
    """List what this process changes below a folder, from now on."""
    made: list[str] = []

    def hear(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or event in _CHANGES) and str(given[0]).startswith(str(folder)):
            made.append(f"{event} {given[0]}")

    sys.addaudithook(hear)
    return made


def main(folder: Path) -> None:
    """Train what `RUNS` names and try what `REFUSED` does."""
    made = watch(folder)
    reports, refused = {}, {}
    with join_processes("cpu") as processes:  # as Ray Train does it: joined before the call
        for name, changes in RUNS.items():
            pseudo, out = folder / f"pseudo-{images_of(folder, name).parent.name}", folder / "several" / name
            report = umscosod.train(images_of(folder, name), pseudo, out, config_of(folder, **changes))
            reports[name] = [str(report.checkpoint), report.steps, report.final_loss]
        for name, changes in REFUSED.items():
            pseudo = folder / ("pseudo-other" if name == "labels" and processes.rank else "pseudo-two")
            try:
                umscosod.train(folder / "two" / "image", pseudo, folder / name, config_of(folder, **changes))
            except UmscosodError as error:
                refused[name] = str(error)
        said = {"reports": reports, "refused": refused, "changes": list(made)}
        (folder / f"said-{processes.rank}.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
