"""Where a job's work is done: in this process, or in the worker processes of a Ray cluster.

An engine is a `map` whose function runs elsewhere. It knows nothing of images or stages: these give it the very
functions that they call here. So every formula is written once, and results are equal wherever they are made.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import math
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from umscosod.device import count_cores
from umscosod.errors import ConfigError, EngineError, MissingDependencyError, UmscosodError, one_line

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Work = Callable[[_Item], _Result]

_RETRIES = 3  # of a piece of work whose worker died, as Ray has it for tasks; if each dies, the job ends
_QUEUED = 4  # pieces of work for each core: enough that none waits while the driver writes, few enough to hold
_QUEUED_BY_ACTOR = 2  # the one at work, and the next
_PATIENCE_S = 10.0  # with a cluster that does not answer
_START_S = 30.0  # for a program of Ray's to start, on a busy machine
_ADDRESS = re.compile(r"([^\s:/]+):([0-9]{1,5})")


@dataclass(slots=True)
class _Connection:
    """The Ray that engines have started or reached: a process has one at most, and jobs in several threads share it."""

    address: str | None = None
    users: int = 0


_connection = _Connection()
_turn = threading.Lock()  # held by the thread that opens or closes it

# Ray's settings for the environment, read when it is imported or started
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on Linux too: it then listens on the loopback address only


class Engine(Protocol):
    """Does work elsewhere, see `RayEngine`."""

    def network_device(self, here: str) -> str:
        """Name the device on which networks run there, where `here` is this process's."""
        ...

    def map(self, work: Work[_Item, _Result], items: Iterable[_Item], *, network_on: str = "") -> Iterator[_Result]:
        """Give what `work` makes of each item, in the order of the items.

        Parameters
        ----------
        work : callable
            Can be pickled, and gives the same result each time: it may be called again for an item.
        items : iterable
            Taken a little ahead of the results.
        network_on : str
            Device of the network that `work` holds: it then stays in processes that keep it. Empty: it holds none.

        Raises
        ------
        UmscosodError
            As `work` raises it; or an `EngineError`.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """What a worker must share with the driver.

    Attributes
    ----------
    folder : str
        The working directory; empty where a worker is in it already.
    version : str
        Of this package.
    log_level : int
    """

    folder: str
    version: str
    log_level: int

    @classmethod
    def here(cls, folder: str = "") -> Self:
        """Give this process's."""
        from umscosod import __version__

        return cls(folder=folder, version=__version__, log_level=logging.getLogger("umscosod").getEffectiveLevel())

    def enter(self) -> None:
        """Make this process work as the driver does.

        Raises
        ------
        EngineError
            The machine has another version of the package, or does not have the driver's folder.
        """
        import cv2

        from umscosod import __version__

        place = f"the worker on {platform.node()}"
        if __version__ != self.version:
            raise EngineError(f"{place} has umscosod {__version__}, this is {self.version}; install the same there")
        try:
            if self.folder:
                os.chdir(self.folder)  # names of files mean the same on both sides
        except OSError as error:
            raise EngineError(
                f"{place} has no folder {self.folder} ({error.strerror}), where the command was started; start it in a "
                "folder of the storage that all machines share"
            ) from error
        cv2.setNumThreads(1)  # the workers as a whole already fill the cores
        logging.getLogger("umscosod").setLevel(self.log_level)


Lines = list[tuple[str, int, str]]
"""What was logged: logger, level, text."""


class _Told(logging.Handler):
    """Keeps what is logged, to be said by the driver."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Lines = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelno, record.getMessage()))


def call_at_home(work: Work[_Item, _Result], home: Home, item: _Item) -> tuple[_Result, Lines]:
    """Do a piece of work in a worker, as the driver would; give what it logged too, for `tell`."""
    home.enter()
    told, logger = _Told(), logging.getLogger("umscosod")
    logger.addHandler(told)
    try:
        return work(item), told.lines
    finally:
        logger.removeHandler(told)


def tell(told: Lines) -> None:
    """Log here what was logged in a worker."""
    for name, level, text in told:
        logging.getLogger(name).log(level, "%s", text)


class _Actor:
    """A process that keeps its work, and with it the networks that this builds at the first item."""

    def __init__(self) -> None:  # without the work, so that it can be started again without it
        self._work: Work[Any, Any] | None = None

    def call(self, shared: list[Any], home: Home, item: Any) -> Any:
        """See `call_at_home`; what is shared comes in a list, and is fetched once."""
        if self._work is None:
            self._work = importlib.import_module("ray").get(shared[0])
        return call_at_home(self._work, home, item)


class RayEngine:
    """A Ray cluster: work without a network as tasks of one core each, work with one in actors that keep it.

    Use it as a context: ``with RayEngine() as engine: label_groups("photos", "result", engine=engine)``.

    Parameters
    ----------
    address : str, optional
        Of a cluster that runs, as for ``ray.init``: ``HOST:PORT``, or ``auto``. None: a Ray of this machine alone is
        started at the first piece of work and ended with the context. Where the program has called ``ray.init``
        itself, that cluster is used and left as it is. Several engines of one address share their Ray: it ends with
        the last of them.
    gpus_per_actor : float, optional
        Share of a GPU for each actor: at most 1, or a whole number; 0: networks run on the CPU. Above 0 they run on
        CUDA, whatever the job's device. None: 1 where the job's device is CUDA, else 0.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    ConfigError
        The share or the address is not valid.
    """

    def __init__(self, address: str | None = None, *, gpus_per_actor: float | None = None) -> None:
        if address is not None and address != "auto" and _ADDRESS.fullmatch(address) is None:
            raise ConfigError(f"{address!r} is no address of a Ray cluster; give HOST:PORT or auto, or leave it out")
        share = gpus_per_actor or 0.0
        if not 0.0 <= share < math.inf or (share > 1.0 and share % 1.0):
            raise ConfigError(f"the GPUs per actor must be a share from 0 to 1 or a whole number, got {gpus_per_actor}")
        if importlib.util.find_spec("ray") is None:
            raise MissingDependencyError('the engine ray needs the package ray; run: pip install "umscosod[ray]"')
        self._address, self._gpus = address, gpus_per_actor
        self._ray: Any = None
        self._is_ours = False

    def __enter__(self) -> Self:
        if self._address is not None:  # said before the job begins
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the Ray that was started here, or leave the cluster; its workers for this job end."""
        with _turn:
            if self._is_ours:
                _connection.users -= 1
                if not _connection.users:
                    self._ray.shutdown()
            self._ray, self._is_ours = None, False

    def network_device(self, here: str) -> str:
        """See `Engine.network_device`."""
        if self._gpus == 0 and here.startswith("cuda"):
            return "cpu"
        return "cuda" if self._gpus or here.startswith("cuda") else here  # Ray shows an actor its own GPUs only

    def map(self, work: Work[_Item, _Result], items: Iterable[_Item], *, network_on: str = "") -> Iterator[_Result]:
        """See `Engine.map`.

        Raises
        ------
        EngineError
            Ray cannot be started or reached, or has no GPU to give; or an item's worker died time and again.
        """
        ray = self._start()
        home, shared, actors = Home.here(str(Path.cwd())), ray.put(work), deque[Any]()
        if network_on:
            gpus = (1.0 if self._gpus is None else self._gpus) if network_on.startswith("cuda") else 0.0
            most = self._count_actors(gpus)
            options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": _RETRIES}
            actor = ray.remote(_Actor).options(**options)
            limit = _QUEUED_BY_ACTOR * most
        else:
            limit = _QUEUED * max(1, int(ray.cluster_resources().get("CPU", 1)))
            task = ray.remote(call_at_home).options(num_cpus=1, max_retries=_RETRIES)

        def submit(item: _Item) -> Any:
            if not network_on:
                return task.remote(shared, home, item)
            if len(actors) < most:
                actors.append(actor.remote())
            else:
                actors.rotate(-1)
            return actors[-1].call.remote([shared], home, item)

        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(submit(item))
                if len(waiting) >= limit:
                    yield self._take(waiting.popleft())
            while waiting:
                yield self._take(waiting.popleft())
        finally:
            if ray.is_initialized():  # else it has ended first, and a call would start another
                for one in waiting if not network_on else ():
                    ray.cancel(one, force=True)
                for one in actors:
                    ray.kill(one)

    def _start(self) -> Any:
        """Import Ray, and start or reach it, or share what another engine has."""
        with _turn:
            return self._connect()

    def _connect(self) -> Any:
        if self._ray is None:
            for name, value in {**_QUIET, **(_ALONE if self._address is None else {})}.items():
                os.environ.setdefault(name, value)
            self._ray = importlib.import_module("ray")
        if self._is_ours:
            return self._ray
        if _connection.users:
            if _connection.address != self._address:
                raise EngineError(
                    f"another job of this process works on Ray ({_place(_connection.address)}), and a process can have "
                    "one Ray only; wait for its end, or give the same address"
                )
            _connection.users, self._is_ours = _connection.users + 1, True
            return self._ray
        if self._ray.is_initialized():
            return self._ray
        logging.getLogger("ray").setLevel(logging.ERROR)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        try:
            with _own_signals():
                if self._address is None:
                    self._ray.init(address="local", num_cpus=count_cores(), include_dashboard=False, **quiet)
                else:
                    _reach(self._address)
                    self._ray.init(address=self._address, **quiet)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise EngineError(
                f"Ray ({_place(self._address)}) cannot be started or reached: {one_line(str(error))}; check the "
                "address, or leave it out to work on this machine alone"
            ) from error
        _connection.address, _connection.users, self._is_ours = self._address, 1, True
        return self._ray

    def _count_actors(self, gpus: float) -> int:
        """How many actors find room at once: each stays on one machine, and a share of a GPU on one GPU."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = sum(min(int(node.get("CPU", 0)), _count_shares(node.get("GPU", 0.0), gpus)) for node in nodes)
        if gpus and not most:
            raise EngineError(
                f"each actor is to have a core and {gpus:g} of a GPU, and no machine of this Ray has both free for one "
                f"({sum(node.get('GPU', 0.0) for node in nodes):g} GPUs in all); lower --gpus-per-actor, or give 0 for "
                "the CPU"
            )
        return max(1, most)

    def _take(self, waiting: Any) -> Any:
        """Wait for a result; say what its worker logged."""
        errors = self._ray.exceptions
        try:
            result, told = self._ray.get(waiting)
        except errors.RayTaskError as error:
            if isinstance(error.cause, UmscosodError | OSError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            raise EngineError(
                f"a Ray worker was lost {1 + _RETRIES} times at one piece of work ({one_line(str(error))[:200]}); is "
                "its memory too small? The same command resumes"
            ) from error
        tell(told)
        return result


def _place(address: str | None) -> str:
    return "address=local" if address is None else address


def _count_shares(gpus: float, share: float) -> int:
    """How often a share of a GPU, or several whole ones, can be given on a machine with so many."""
    if not share:
        return sys.maxsize
    return int(gpus) * int(1.0 / share + 1e-9) if share < 1.0 else int(gpus / share)


def _reach(address: str) -> None:
    """Raise OSError where no Ray listens: `ray.init` itself would wait for minutes."""
    if found := _ADDRESS.fullmatch(address):
        socket.create_connection((found[1], int(found[2])), _PATIENCE_S).close()
        asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            subprocess.run(asked, check=True, timeout=_PATIENCE_S + _START_S, **quiet)  # Ray's own program  # nosec B603
        except subprocess.SubprocessError as error:
            raise OSError(f"what listens at {address} does not answer as Ray of this version does") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Give SIGTERM back after Ray has taken it; one that comes meanwhile is raised again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # of Ray's handler
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
