"""Make `umscosod` importable if the repository's folder was downloaded or linked, not installed.

FiftyOne puts no plugin folder on ``sys.path``. An installed package takes precedence over the copy beside the plugin.
If their versions differ, the log says so, since forms and library may then not match.
"""

import importlib.util
import logging
import sys
from pathlib import Path

import yaml

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent  # resolved: the plugin may be a symbolic link


def make_importable() -> None:
    """Append the repository to ``sys.path`` if `umscosod` cannot be imported."""
    if importlib.util.find_spec("umscosod") is None:
        sys.path.append(str(ROOT))  # appended, so that it never shadows another package


def warn_if_versions_differ() -> None:
    """Warn if the version in the manifest beside this plugin differs from the version of the imported library."""
    import umscosod

    manifest = ROOT / "fiftyone.yml"
    version = str(yaml.safe_load(manifest.read_text(encoding="utf-8"))["version"])
    if version != umscosod.__version__:
        logger.warning(
            "the umscosod plugin in %s is version %s, the installed library %s; update the older one",
            ROOT,
            version,
            umscosod.__version__,
        )


make_importable()
warn_if_versions_differ()
