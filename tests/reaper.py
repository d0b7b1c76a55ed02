"""Waits for a run of tests to end, however it does, and ends what that has left: a program that conftest.py starts.

Usage: ``reaper.py NAME=VALUE FOLDER``, its standard input a pipe that the run holds. When that closes, processes with
that variable in their environment are killed (databases, browsers, App servers, jobs, and what those started), and the
folder goes. The run itself has ended by then.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.processes import kill_marked

if __name__ == "__main__":
    sys.stdin.read()
    kill_marked(sys.argv[1])
    shutil.rmtree(sys.argv[2], ignore_errors=True)
