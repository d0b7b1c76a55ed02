"""What every test shares: FiftyOne kept to a folder and a database of its own, and no network but loopback.

FiftyOne reads its settings once, at import: they are set here, before any test module is collected. Nothing listens
at the database's address until a test asks for the fixture `mongod` of tests/integration. Each process of pytest-xdist
imports this file, and so has its own folder and address.
"""

from __future__ import annotations

import atexit
import ipaddress
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.processes import heed_interrupts

REPOSITORY = Path(__file__).resolve().parent.parent
SCRATCH = Path(tempfile.mkdtemp(prefix="umscosod-tests-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
heed_interrupts()


def _start_reaper() -> None:
    """Have all that tests start end with this process, also when that is killed: it is found by a mark."""
    name, value = "UMSCOSOD_TESTS", uuid.uuid4().hex
    line = [sys.executable, str(REPOSITORY / "tests" / "reaper.py"), f"{name}={value}", str(SCRATCH)]
    environment = {key: text for key, text in os.environ.items() if key != name}  # not marked by a run around this one
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    reaper = subprocess.Popen(line, stdin=subprocess.PIPE, env=environment, **quiet)
    atexit.register(reaper.communicate)  # closes its input, and waits
    os.environ[name] = value


if sys.platform == "linux":  # it looks for processes in /proc
    _start_reaper()

(SCRATCH / "plugins").mkdir()
(SCRATCH / "plugins" / "fiftyone-umscosod").symlink_to(REPOSITORY, target_is_directory=True)
(SCRATCH / "home").mkdir()
# Held until the database starts (`database_port`), so that no other process is given the same port meanwhile.
RESERVED = socket.socket()
RESERVED.bind(("127.0.0.1", 0))
atexit.register(RESERVED.close)
os.environ.update(
    HOME=str(SCRATCH / "home"),  # FiftyOne and Chromium write there too
    FIFTYONE_CONFIG_PATH=str(SCRATCH / "config.json"),
    FIFTYONE_DATABASE_DIR=str(SCRATCH / "db"),
    # The time-out: a database that a test has stopped is found out in seconds, not half a minute.
    FIFTYONE_DATABASE_URI=f"mongodb://127.0.0.1:{RESERVED.getsockname()[1]}/?serverSelectionTimeoutMS=5000",
    FIFTYONE_DATABASE_VALIDATION="false",  # no notice about the age of mongod 6.0
    FIFTYONE_DEFAULT_DATASET_DIR=str(SCRATCH / "fiftyone"),
    FIFTYONE_DO_NOT_TRACK="true",
    FIFTYONE_MODEL_ZOO_DIR=str(SCRATCH / "zoo"),
    FIFTYONE_PLUGINS_DIR=str(SCRATCH / "plugins"),
    FIFTYONE_SHOW_PROGRESS_BARS="false",
    UMSCOSOD_CACHE=str(SCRATCH / "cache"),
    UMSCOSOD_WEIGHTS=str(SCRATCH / "weights"),
)

# Random but repeatable; and a busy machine is no fault of the code, so no test is judged by the clock.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def is_local(address: Any) -> bool:
    """A Unix socket path, or a loopback host: names other than localhost would need a look-up, so they are not."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def database_port() -> int:
    """The port in FIFTYONE_DATABASE_URI, let go of for the database to take."""
    port = int(RESERVED.getsockname()[1])
    RESERVED.close()
    return port


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Undo the log level that a call of the command line leaves behind, also one in a fixture of the whole session."""
    logger = logging.getLogger("umscosod")
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail, with the address, any test that reaches for a machine other than this one."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(address: Any) -> None:
        if not is_local(address):
            pytest.fail(f"a test tried to reach {address!r}; tests run without a network")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None:
            check((host.decode() if isinstance(host, bytes) else host,))
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """Escape names that are not UTF-8 in what a test printed: pytest-xdist sends no surrogates, and dies of them."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report
