"""Links the plugin into the folder where FiftyOne looks for plugins, without importing FiftyOne."""

from __future__ import annotations

import os
from pathlib import Path

from umscosod.errors import DataError, MissingDependencyError
from umscosod.integrations.database import read_settings

LINK_NAME = "fiftyone-umscosod"
"""Never ``umscosod``: old versions of FiftyOne would import the plugin under that name and hide the package."""
_MANIFEST = "fiftyone.yml"
_PACKAGE = Path(__file__).resolve().parent.parent


def find_plugin_source(package: Path = _PACKAGE) -> Path:
    """Return the folder with the plugin's manifest: inside an installed package, else the checkout around it.

    Raises
    ------
    MissingDependencyError
        Neither has a manifest.
    """
    candidates = (package / "_plugin", package.parent)
    for folder in candidates:
        if (folder / _MANIFEST).is_file():
            return folder
    raise MissingDependencyError(
        f"no {_MANIFEST} in {' or '.join(map(str, candidates))}; install umscosod anew, or run from a checkout"
    )


def find_plugins_dir() -> Path:
    """Return the folder that FiftyOne searches for plugins: environment, then its settings file, then its default."""
    settings = read_settings()
    if chosen := os.environ.get("FIFTYONE_PLUGINS_DIR") or settings.get("plugins_dir"):
        return Path(str(chosen)).expanduser()
    data = os.environ.get("FIFTYONE_DEFAULT_DATASET_DIR") or settings.get("default_dataset_dir") or "~/fiftyone"
    return Path(str(data)).expanduser() / "__plugins__"


def is_installed() -> bool:
    """Whether the link exists and points to this plugin."""
    link = find_plugins_dir() / LINK_NAME
    return link.exists() and link.resolve() == find_plugin_source().resolve()


def install_plugin(*, overwrite: bool = False) -> Path:
    """Link the plugin's folder into FiftyOne's plugins folder.

    Parameters
    ----------
    overwrite : bool
        Replace a link that points elsewhere. A real folder or file is never removed.

    Returns
    -------
    Path
        The link. A correct link is left unchanged.

    Raises
    ------
    DataError
        Something else has that name, or the link cannot be made.
    """
    source, link = find_plugin_source(), find_plugins_dir() / LINK_NAME
    if is_installed():
        return link
    if link.is_symlink() and not overwrite:
        raise DataError(f"{link} leads to {link.readlink()}, not to {source}; pass --overwrite to replace the link")
    if link.exists() and not link.is_symlink():
        raise DataError(f"{link} is there and is not a link; move it away, then run this again")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(source, target_is_directory=True)
    except OSError as error:
        raise DataError(f"cannot link {link} to {source}: {error}; make the link or copy the folder by hand") from error
    return link
