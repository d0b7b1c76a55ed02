"""SIGTERM and Ctrl-C in each stage of ``umscosod label``: what is said, what is left, and whether it is resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.jobs import read_results
from tests.processes import kill_marked, wait_until, wait_until_gone
from tests.synthetic import tiny_collection

ROOT = Path(__file__).resolve().parents[2]
MARK = "UMSCOSOD_SIGNALLED"
STAGES = {
    "importing": "import:torch",
    "features": "",
    "pseudo-labels": "",
    "training": "",
    "refinement": "",
    "writing": "os.rename:report.json",
}
"""A stage is seen by its line on standard error; one without a line is stopped at an event, see pause/."""
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
SIGNALS = tuple(WORDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What came of one signal.

    Attributes
    ----------
    stage, signal : str
    exit_code : int
    last_line : str
        On standard error.
    said : str
        All of standard error.
    left : tuple of str
        Command lines of the job's processes that did not end.
    is_resumed : bool
        Whether the same command, given again until nothing stopped it, wrote what an undisturbed run writes.
    """

    stage: str
    signal: str
    exit_code: int
    last_line: str
    said: str
    left: tuple[str, ...]
    is_resumed: bool


def run_all(folder: Path) -> list[Row]:
    """One row a stage and signal. One job a signal: stopped in the first stage, resumed, stopped in the next..."""
    tiny_collection(folder, groups=2, images=3, size=64)
    whole = _Job(folder, "whole")
    whole.finish()
    rows = []
    for number in SIGNALS:
        job = _Job(folder, WORDS[number])
        ended = {stage: job.stop(stage, number) for stage in STAGES}
        job.finish()
        is_resumed = read_results(job.out) == read_results(whole.out)
        for stage, (code, said, left) in ended.items():
            rows.append(
                Row(
                    stage=stage,
                    signal=number.name,
                    exit_code=code,
                    last_line=(said.splitlines() or [""])[-1],
                    said=said,
                    left=tuple(left),
                    is_resumed=is_resumed,
                )
            )
    return rows


class _Job:
    """One output folder and the command that fills it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.out = folder / name
        line = [
            "label",
            folder / "image",
            "--out",
            self.out,
            "--preset",
            "smoke",
            "--train",
            "always",
            "--device",
            "cpu",
        ]
        # two workers whatever the machine, and steps enough for them to be met at work
        settings = ["--config.refine.crf.workers", 2, "--config.refine.crf.iterations", 100, "--config.train.epochs", 3]
        settings += ["--config.features.cache-dir", folder / f"{name}-cache"]
        self._line = [sys.executable, "-m", "umscosod.cli", *map(str, [*line, *settings])]
        self._mark = uuid.uuid4().hex

    def finish(self) -> None:
        """Run to the end."""
        done = subprocess.run(self._line, capture_output=True, text=True, env=self._environment(""), check=False)
        assert done.returncode == 0, done.stderr

    def stop(self, stage: str, number: signal.Signals) -> tuple[int, str, list[str]]:
        """Run until a stage is seen; exit code, standard error, and what is left of the signalled job."""
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        event = STAGES[stage]
        with subprocess.Popen(
            self._line, text=True, env=self._environment(event), start_new_session=True, **streams
        ) as process:
            assert process.stderr is not None
            said = []
            if event:
                wait_until(lambda: process.poll() is not None or _is_stopped(process.pid))
            else:
                for line in process.stderr:
                    said.append(line)
                    if line.startswith(f"{stage}:"):
                        break
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # a terminal sends it to all of a job
            else:
                process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            said += process.stderr  # to its end: nobody may hold it
        left = wait_until_gone(f"{MARK}={self._mark}")
        kill_marked(f"{MARK}={self._mark}")
        return process.returncode, "".join(said), left

    def _environment(self, event: str) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), str(Path(__file__).with_name("pause"))])
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, MARK: self._mark}
        return {**os.environ, **own, **({"UMSCOSOD_PAUSE_AT": event} if event else {})}


def _is_stopped(process: int) -> bool:
    """Whether it is in state T."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
