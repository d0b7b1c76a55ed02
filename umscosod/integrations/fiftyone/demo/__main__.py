"""Makes a FiftyOne data set to explore: groups, pseudo-labels, two runs, their scores, views, a workspace.

``python -m umscosod.integrations.fiftyone.demo PICTURES --home FOLDER`` makes it; ``--open`` shows it in the App. A
second call computes nothing again. With ``--home``, database, plugins and masks are in that folder, apart from the
user's own FiftyOne.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from umscosod.errors import DataError, MissingDependencyError, UmscosodError
from umscosod.integrations.database import configured_uri, require_database, start_mongod
from umscosod.integrations.plugin_link import install_plugin
from umscosod.progress import stage_name

_PORT, _PORTS_TRIED = 5151, 20  # FiftyOne's own port first
_LAST = "last.txt"  # file in the home folder with the name of the newest data set


def use_home(home: Path) -> None:
    """Restrict FiftyOne to a folder: settings, plugin, masks, and a database unless the user named one.

    Call this before FiftyOne is imported: the import reads these settings.

    Raises
    ------
    MissingDependencyError
        There is no FiftyOne, or it has no database.
    DataError
        The database does not start.
    """
    require_database()
    home = home.expanduser().resolve()
    os.environ.update(
        FIFTYONE_DATABASE_DIR=str(home / "database"),
        FIFTYONE_DATABASE_VALIDATION="false",  # no notice about the age of mongod 6.0
        FIFTYONE_DEFAULT_DATASET_DIR=str(home / "data"),
        FIFTYONE_PLUGINS_DIR=str(home / "plugins"),
        FIFTYONE_DO_NOT_TRACK="true",
    )
    install_plugin(overwrite=True)
    if not configured_uri():
        os.environ["FIFTYONE_DATABASE_URI"] = start_mongod(home / "database")


def open_app(name: str, *, host: str, port: int | None = None) -> None:
    """Show a data set in the App until Ctrl-C, with its workspace ``compare`` if it has one; blocks.

    Parameters
    ----------
    name : str
        Name of the data set.
    host : str
        Address that the App's server listens on.
    port : int, optional
        By default 5151, or the next free one.

    Raises
    ------
    DataError
        There is no such data set, or no free port.
    """
    port = _choose_port(host, port)
    import fiftyone as fo

    if not fo.dataset_exists(name):
        raise DataError(f"there is no data set {name!r}; make the demo first (make demo)")
    dataset = fo.load_dataset(name)
    spaces = dataset.load_workspace("compare") if dataset.has_workspace("compare") else None
    session = fo.launch_app(dataset, spaces=spaces, address=host, port=port)
    try:
        sys.stdout.write(f"\nthe App: http://{host}:{port}/datasets/{name}   (end it with Ctrl-C)\n")
        sys.stdout.flush()
        session.wait(-1)
    finally:
        session.close()  # before the database ends: the App's server needs it to close


def _choose_port(host: str, port: int | None) -> int:
    """Find an unused port: on a used one FiftyOne would join that server, which has another database."""
    candidates = range(_PORT, _PORT + _PORTS_TRIED) if port is None else (port,)
    for candidate in candidates:
        with socket.socket() as probe:
            # a port just released by an App counts as free; on Windows the option means something else
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    tried = f"ports {_PORT} to {_PORT + _PORTS_TRIED - 1}" if port is None else f"port {port}"
    raise DataError(f"{tried} of {host} cannot be used, for another App perhaps; choose another --port, or --host")


def _show_stage(done: int, total: int, stage: str) -> None:
    """Print a line at the start of a stage."""
    if done == 0:
        sys.stderr.write(f"{stage_name(stage)}: {total} to do\n")


def _exit_on_signal(signum: int, _: Any) -> None:
    raise SystemExit(128 + signum)


def main(given: argparse.Namespace) -> int:
    """Make the data set or open it; return the exit code."""
    # The command line has already printed these messages once, and the summary repeats the important ones.
    logging.getLogger("umscosod").setLevel(logging.ERROR)
    # Exit normally on a signal: the database is shut down at the end of the process.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _exit_on_signal)
    try:
        if given.home:
            use_home(given.home)
        else:
            require_database()
        from umscosod.integrations.fiftyone.demo.dataset import build_demo  # FiftyOne, with the database of this home

        last = (given.home or Path()) / _LAST
        if not given.open:
            report = build_demo(given.pictures, name=given.name, results=given.results, progress=_show_stage)
            sys.stdout.write(f"{report.summary}\n")
            if given.home:
                last.write_text(report.name, encoding="utf-8")
            return int(not report.is_success)
        name = given.name or (last.read_text(encoding="utf-8").strip() if last.is_file() else "umscosod-demo")
        open_app(name, host=given.host, port=given.port)
    except KeyboardInterrupt:
        return 0 if given.open else 130
    except MissingDependencyError as error:
        sys.stderr.write(f"no FiftyOne data set was made: {error}\n")
        return 0 if given.if_possible else 1
    except UmscosodError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    parser.add_argument("pictures", nargs="?", type=Path, help="folder of the pictures; not needed with --open")
    parser.add_argument("--home", type=Path, help="folder for database, plugin link and masks; default: the user's own")
    parser.add_argument("--name", default="", help="of the data set; default: made of the folder's name")
    parser.add_argument("--results", type=Path, help="output folder of 'umscosod label', imported as the first run")
    parser.add_argument("--if-possible", action="store_true", help="where FiftyOne has no database, say so and exit 0")
    parser.add_argument("--open", action="store_true", help="open the App on the data set made last, or on --name")
    parser.add_argument("--host", default="127.0.0.1", help="address of the App's server (default: %(default)s)")
    parser.add_argument("--port", type=int, help=f"its port (default: {_PORT}, or the next one that is free)")
    given = parser.parse_args()
    if not given.open and given.pictures is None:
        parser.error("give the folder of the pictures, or --open")
    return given


if __name__ == "__main__":
    sys.exit(main(_parse()))
