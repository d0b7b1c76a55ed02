"""A run of tests that is killed leaves neither database nor program behind."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.integration.servers import Mongod
from tests.processes import find_marked, kill_marked, read_command, wait_until, wait_until_gone

ROOT = Path(__file__).resolve().parents[2]
INNER = "tests/integration/test_interruptions.py::test_killed_at_any_change_to_the_database"


@pytest.mark.slow
@pytest.mark.mongod
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_run_of_tests_leaves_no_process_and_no_folder(mongod: Mongod, tmp_path: Path) -> None:
    mark = f"UMSCOSOD_INNER={uuid.uuid4().hex}"
    environment = {**os.environ, **dict([mark.split("=")]), "TMPDIR": str(tmp_path)}
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", INNER]
    run = subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )

    def is_at_work() -> bool:
        started = "\n".join(map(read_command, find_marked(mark)))
        return run.poll() is not None or ("mongod --dbpath" in started and "kill_at_command" in started)

    try:
        assert wait_until(is_at_work)
        assert run.poll() is None
        run.kill()
        run.wait()
        assert wait_until_gone(mark) == []
        assert list(tmp_path.glob("umscosod-tests-*")) == []
    finally:
        kill_marked(mark)
