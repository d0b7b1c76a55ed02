"""Work on a data set in processes that kill themselves before a chosen change to the database: a program run by tests.

Reads one JSON object a line: ``{"dataset": NAME, "verb": NAME, "options": {...}, "kill": K, "below": FOLDER}``. Each is
done in a fork of this process, which has everything loaded and never speaks to the database itself. With K the fork
sends itself SIGKILL before its K-th writing command, or with a folder before its K-th change to files below it. Answers
with a line ``{"status": ..., "commands": [...], "error": ...}``: the exit status, negative for a signal, and the
writing commands, or changes to files, in order.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
from pymongo import monitoring

from tests.integration.kill_at_write import watch
from tests.jobs import quick_config
from tests.synthetic import tiny_collection
from umscosod.integrations import fiftyone as ours
from umscosod.integrations.fiftyone.runs import fields
from umscosod.pipeline import label_groups

WRITING = {"insert", "update", "delete", "findAndModify"}
VERBS: dict[str, Callable[..., Any]] = {
    "label": ours.label_dataset,
    "train": ours.train_dataset,
    "delete": ours.delete_run,
    "relabel": ours.relabel_dataset,
    "undo": ours.undo_relabel_dataset,
}
WITHOUT_SETTINGS = ("delete", "relabel", "undo")
SMALL_BATCH = 2
"""Samples a write, so that a toy data set takes several."""


class Watch(monitoring.CommandListener):
    """Notes every change to the database before it is sent, and shoots this process before one of them."""

    def __init__(self, log: Path, kill: int | None) -> None:
        self.log, self.kill, self.count = log, kill, 0

    def note(self, what: str) -> None:
        self.count += 1
        if self.count == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"{what}\n")

    def started(self, event: Any) -> None:
        if event.command_name in WRITING:
            self.note(f"{event.command_name} {event.command[event.command_name]}")

    def succeeded(self, event: Any) -> None:
        """Nothing to note."""

    def failed(self, event: Any) -> None:
        """Nothing to note."""


def work(task: dict[str, Any], cache: Path, log: Path) -> None:
    """Do one task; runs in a fork."""
    fields.WRITE_BATCH = SMALL_BATCH
    noting = Watch(log, task["kill"])
    if task.get("below"):
        watch(Path(task["below"]), lambda: noting.note("file"))
    else:
        monitoring.register(noting)
    dataset = fo.load_dataset(task["dataset"])
    options = task["options"]
    if task["verb"] not in WITHOUT_SETTINGS:
        options = {"group_field": "cls", "config": quick_config(cache, seed=options.pop("seed", 0)), **options}
    VERBS[task["verb"]](dataset, **options)


def do(task: dict[str, Any], cache: Path, log: Path) -> dict[str, Any]:
    """Fork, and wait for what becomes of it."""
    log.write_bytes(b"")
    child = os.fork()
    if not child:
        try:
            work(task, cache, log)
        except BaseException:  # nothing of the parent may run on in the child
            log.with_suffix(".error").write_text(traceback.format_exc(), encoding="utf-8")
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    error = log.with_suffix(".error").read_text(encoding="utf-8") if status == 1 else ""
    return {"status": status, "commands": log.read_text(encoding="utf-8").splitlines(), "error": error}


def main(cache: Path) -> None:
    """Load what is loaded late, once for all forks; then answer."""
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing but answers where the test reads
    with tempfile.TemporaryDirectory() as scratch, os.fdopen(answers, "w", encoding="utf-8") as stream:
        tiny_collection(Path(scratch), groups=1, images=2, size=64)
        label_groups(Path(scratch) / "image", Path(scratch) / "out", quick_config(cache), train=True)
        for line in sys.stdin:
            stream.write(json.dumps(do(json.loads(line), cache, Path(scratch) / "log")) + "\n")
            stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
