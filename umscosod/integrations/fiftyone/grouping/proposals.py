"""Stores proposed groups of a data set's samples in a file, so that they are computed once and written later."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.config.io import config_to_dict
from umscosod.data.files import open_atomic
from umscosod.data.groups import groups_from_rows
from umscosod.grouping.discover import discover_groups
from umscosod.integrations.fiftyone.runs.fields import dataset_folder
from umscosod.progress import ProgressFn

logger = logging.getLogger(__name__)

SCHEMA = 1
_NO_EFFECT = ("batch_size", "cache_dir", "use_cache", "allow_download")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Groups found among samples.

    Attributes
    ----------
    samples_sha256 : str
        Hash of the ids and paths of the samples.
    settings : dict
        All other values that determine the proposal.
    groups : dict of str to list of str
        Sample ids by name of group.
    cohesion : dict of str to float
        By name of group.
    mixed : list of str
        Groups no more alike than chance.
    failures : dict of str to str
        By sample id.
    """

    samples_sha256: str
    settings: dict[str, Any]
    groups: dict[str, list[str]]
    cohesion: dict[str, float] = field(default_factory=dict)
    mixed: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of samples by name of group."""
        return {name: len(ids) for name, ids in self.groups.items()}


def proposal_file(dataset: Any, into: str) -> Path:
    """Return the path of the proposal for a field; the file may not exist."""
    return dataset_folder(dataset) / "groupings" / f"{into}.json"


def read_proposal(dataset: Any, into: str) -> Proposal | None:
    """Read the proposal for a field; None if there is no readable one."""
    path = proposal_file(dataset, into)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            return None
        return Proposal(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s: cannot be read (%s); groups are looked for anew", path, error)
        return None


def preview_view(dataset: Any, into: str = "cosal_group") -> Any:
    """Return one sample of each group last proposed for a field, the largest group first.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    into : str

    Returns
    -------
    fiftyone.core.view.DatasetView
        Empty if there is no proposal.
    """
    proposal = read_proposal(dataset, into)
    groups = sorted(proposal.groups.values(), key=len, reverse=True) if proposal else []
    return dataset.select([ids[0] for ids in groups if ids], ordered=True)


def make_proposal(
    dataset: Any,
    into: str,
    samples: Mapping[str, Path],
    *,
    n_groups: int | None,
    config: PipelineConfig,
    grouping: GroupingConfig,
    progress: ProgressFn,
) -> Proposal:
    """Return the stored proposal if it is for these samples and settings; else discover groups, and store them.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    into : str
    samples : mapping of str to Path
        File by sample id. Samples with the same file get the same group.
    n_groups, config, grouping, progress
        As `umscosod.grouping.discover.discover_groups`, which also documents the errors.
    """
    digest, settings = _digest(samples), _settings(n_groups, config, grouping)
    stored = read_proposal(dataset, into)
    if stored is not None and (stored.samples_sha256, stored.settings) == (digest, settings):
        logger.info("taking the groups of %s", proposal_file(dataset, into))
        return stored
    images = groups_from_rows((sample_id, path, "collection") for sample_id, path in samples.items())
    found = discover_groups(images, n_groups=n_groups, config=config, grouping=grouping, progress=progress)
    group_of = {image.path: group.name for group in found.groups for image in group.images}
    groups: dict[str, list[str]] = {group.name: [] for group in found.groups}
    for sample_id, path in samples.items():
        if (name := group_of.get(Path(os.path.abspath(path)))) is not None:  # noqa: PTH100 - as groups_from_rows does
            groups[name].append(sample_id)
    by_name = list(zip(groups, found.checks, strict=True))
    proposal = Proposal(
        samples_sha256=digest,
        settings=settings,
        groups=groups,
        cohesion={name: check.cohesion for name, check in by_name},
        mixed=[name for name, check in by_name if check.is_mixed],
        failures=found.failures,
    )
    with open_atomic(proposal_file(dataset, into)) as file:
        file.write(json.dumps({"schema": SCHEMA, **asdict(proposal)}, ensure_ascii=False, indent=1).encode())
    return proposal


def _digest(samples: Mapping[str, Path]) -> str:
    rows: Sequence[tuple[str, str]] = sorted((sample_id, str(path)) for sample_id, path in samples.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _settings(n_groups: int | None, config: PipelineConfig, grouping: GroupingConfig) -> dict[str, Any]:
    """Return everything that determines a proposal, as JSON restores it."""
    plain = config_to_dict(config)
    features = {name: value for name, value in plain["features"].items() if name not in _NO_EFFECT}
    chosen = {"n_groups": n_groups, "seed": config.seed, "data": plain["data"], "features": features}
    settings: dict[str, Any] = json.loads(json.dumps({**chosen, "grouping": asdict(grouping)}))
    return settings
