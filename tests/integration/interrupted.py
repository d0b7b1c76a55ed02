"""What the tests of interrupted runs share: the calls, what they leave on samples and disk, and ways to stop them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled
from umscosod.integrations import fiftyone as ours
from umscosod.progress import stage_name

ROOT = Path(__file__).resolve().parents[2]
Label = tuple[bytes | None, bytes | None, float | None, str | None]
"""Files and values of one sample: mask, map, confidence, status."""


class Driver:
    """The program that kills itself; see kill_at_command.py."""

    def __init__(self, cache: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        line = [sys.executable, str(ROOT / "tests" / "integration" / "kill_at_command.py"), str(cache)]
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(
        self,
        dataset: Any,
        verb: str,
        *,
        kill: int | None = None,
        below: Path | None = None,
        reload: bool = True,
        **options: Any,
    ) -> list[str]:
        """Do it in a process of its own; gives the changes that it made to the database, or to files below a folder."""
        task = {"dataset": dataset.name, "verb": verb, "options": options, "kill": kill}
        task |= {} if below is None else {"below": str(below)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["status"] == (0 if kill is None else -signal.SIGKILL), f"{task}: {answer}"
        if reload:
            dataset.reload()
        return list(answer["commands"])

    def close(self) -> None:
        self.process.communicate()  # it ends with its input


def read_labels(dataset: Any, field: str) -> dict[str, Label]:
    """By group and file name; asserts that all that is pointed to is whole, and that a status comes last."""
    labels: dict[str, Label] = {}
    if not dataset.has_field(f"{field}_review"):  # the last one declared: no label comes before
        assert not dataset.has_field(field) or not dataset.count(field)
        return labels
    has_maps = dataset.has_field(f"{field}_map")
    for sample in dataset.iter_samples():
        mask, status = sample[field], sample[f"{field}_status"]
        heatmap = sample[f"{field}_map"] if has_maps else None
        files = [None if label is None else Path(path) for label, path in ((mask, mask and mask.mask_path),)]
        files += [None if heatmap is None else Path(heatmap.map_path)]
        for file in filter(None, files):
            with Image.open(file) as picture:
                picture.load()
                assert picture.format == "PNG"
        if status is not None:
            assert status in ("labelled", "empty")
            assert mask is not None
            assert (heatmap is not None) == has_maps
            assert sample[f"{field}_confidence"] is not None
        contents = [None if file is None else file.read_bytes() for file in files]
        name = "/".join(Path(sample.filepath).parts[-2:])
        labels[name] = (contents[0], contents[1], sample[f"{field}_confidence"], status)
    return labels


def stop_at(stage: str) -> Callable[[int, int, str], None]:
    """Cancel in the middle of a stage."""

    def progress(done: int, total: int, name: str) -> None:
        if stage_name(name) == stage and done >= total // 2:
            raise Cancelled("stop")

    return progress


# ---- the calls, and what they give undisturbed


def label(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.label_dataset(dataset, **{"group_field": "cls", "config": config, "train": True, **options})


def pseudo(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.pseudo_label_dataset(dataset, group_field="cls", config=config, **options)


def train(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.train_dataset(dataset, group_field="cls", config=config, labels="ground_truth", **options)


def predict(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.predict_dataset(dataset, "network", group_field="cls", config=config, **options)


def refine(dataset: Any, config: PipelineConfig, **options: Any) -> Any:
    return ours.refine_dataset(dataset, "predicted", config=config, **options)


CALLS = {
    "label": (label, "cosal", ("features", "pseudo-labels", "training", "prediction", "refinement")),
    "pseudo": (pseudo, "pseudo", ("features", "pseudo-labels")),
    "train": (train, "network", ("features", "training", "prediction")),
    "predict": (predict, "predicted", ("features", "prediction", "refinement")),
    "refine": (refine, "refined", ("features", "stored maps", "refinement")),
}
NEEDS: dict[str, tuple[str, ...]] = {"predict": ("train",), "refine": ("train", "predict")}


def prepare(dataset: Any, config: PipelineConfig, name: str) -> None:
    for needed in NEEDS.get(name, ()):
        CALLS[needed][0](dataset, config)


def outcome_of(dataset: Any, field: str) -> Any:
    """Labels of a run, or the bytes of its network."""
    if dataset.has_field(field):
        return read_labels(dataset, field)
    return (Path(ours.get_run(dataset, field).checkpoint) / "model.safetensors").read_bytes()


def checkpoint_times(folder: Path) -> list[tuple[str, int]]:
    """When each checkpoint was written."""
    files = folder.glob("part-*/run/checkpoints/*/state.pt")
    return sorted((file.parent.name, file.stat().st_mtime_ns) for file in files)


def folder_of(dataset: Any, key: str = "cosal") -> Path:
    """Folder of a run, also of one that is not recorded yet."""
    from umscosod.integrations.fiftyone.runs.fields import run_folder

    return run_folder(dataset, key).resolve()
