"""The two servers of FiftyOne as child processes: its database, which a test may stop and start again, and the App."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

DATABASE_S = 600  # half a second when nothing else runs
APP_S = 900  # 4 to 15 s when nothing else runs
STOP_S = 300


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(probe: Callable[[], object], timeout_s: float, process: subprocess.Popen[bytes], log: Path) -> None:
    """Probe until it raises no OSError; the end of the process's log is in the error otherwise."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{_tail(log)}")
        try:
            probe()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"{process.args} does not answer after {timeout_s} s:\n{_tail(log)}")


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if log.is_file() else ""


class Mongod:
    """A database on loopback. `stop` and `start` again keep port and data, as a restart of the real one does."""

    def __init__(self, program: Path, folder: Path, port: int) -> None:
        self.program, self.folder, self.port = program, folder, port
        self.log = folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it and wait until it listens; nothing happens when it runs already."""
        if self.is_running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        where = ["--dbpath", self.folder, "--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        # Small: the tests' data sets are, and there may be one database for each process of pytest-xdist.
        cache = ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        log = ["--logpath", self.log, "--logappend"]
        self.process = subprocess.Popen([self.program, *where, *cache, *log], stdout=subprocess.DEVNULL)
        address = ("127.0.0.1", self.port)
        try:
            wait_until_up(lambda: socket.create_connection(address, 1).close(), DATABASE_S, self.process, self.log)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut it down as a system does: what was acknowledged is on disk."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_S)


class AppServer:
    """The App's server, reading the plugin through FIFTYONE_PLUGINS_DIR as any user's does."""

    def __init__(self, log: Path) -> None:
        import fiftyone.constants as foc

        self.log = log
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "main.py", "--port", str(port), "--address", "127.0.0.1"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=foc.SERVER_DIR, stdout=output, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Wait until it answers."""
        url = f"{self.url}/fiftyone"
        wait_until_up(lambda: urllib.request.urlopen(url, timeout=30).close(), APP_S, self.process, self.log)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)
