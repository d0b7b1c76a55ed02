"""Writes the group of each sample as text: from a field, the folder, tags, or groups found in the pictures.

Groups found in the pictures are first a proposal in a file, so that they are computed once and written later.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import fiftyone as fo

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, config_to_dict, load_config, validate_config
from umscosod.config.schema import check_section
from umscosod.data.files import open_atomic
from umscosod.data.groups import groups_from_rows
from umscosod.data.naming import natural_key
from umscosod.errors import DataError, count_of
from umscosod.grouping.cluster import encoded_collection
from umscosod.grouping.discover import check_groups, discover_groups
from umscosod.integrations.fiftyone.runs.fields import (
    WRITE_BATCH,
    check_name,
    dataset_folder,
    every_sample,
    store_values,
)
from umscosod.integrations.fiftyone.runs.jobs import SampleRow, flat_images, read_column, read_samples
from umscosod.integrations.fiftyone.runs.record import Progress, list_runs, showing
from umscosod.progress import ProgressFn
from umscosod.types import check_relative

logger = logging.getLogger(__name__)

By = Literal["field", "folder", "tag", "discovered"]
DEFAULT_FIELD = "cosal_group"
_OURS = "umscosod: one tile a group of the field "
_SHOWN = 5
SCHEMA = 1
_NO_EFFECT = ("batch_size", "cache_dir", "use_cache")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GroupingReport:
    """The groups of a call.

    Attributes
    ----------
    field : str
        Field with the name of the group.
    sizes : dict of str to int
        Number of samples by name of group.
    small : tuple of str
        Groups of fewer images than `GroupingConfig.min_size`.
    mixed : tuple of str
        Groups no more alike than images drawn at random; empty if the pictures were not encoded.
    ungrouped : int
        Samples without a group.
    view_name : str
        Saved view with one tile a group; ``""`` if nothing was written.
    cohesion : dict of str to float
        By name of group, if the pictures were encoded.
    failures : dict of str to str
        By sample id, the reason why a picture could not be read.
    notes : tuple of str
        Further remarks for the user.
    """

    field: str
    sizes: dict[str, int]
    small: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    ungrouped: int = 0
    view_name: str = ""
    cohesion: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        """Whether there is at least one group."""
        return bool(self.sizes)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        what = "written to" if self.view_name else "proposed for"
        parts = [
            f"{count_of(len(self.sizes), 'group')} of {count_of(sum(self.sizes.values()), 'sample')} "
            f"{what} the field {self.field!r}"
        ]
        for names, word in ((self.small, "small"), (self.mixed, "mixed")):
            if names:
                more = ", ..." if len(names) > _SHOWN else ""
                parts.append(f"{len(names)} {word} ({', '.join(names[:_SHOWN])}{more})")
        if self.ungrouped:
            parts.append(f"{count_of(self.ungrouped, 'sample')} without a group")
        if self.failures:
            parts.append(f"{count_of(len(self.failures), 'picture')} cannot be read")
        if self.view_name:
            parts.append(f"saved view {self.view_name!r}")
        return "; ".join([*parts, *self.notes])


def group_dataset(
    sample_collection: Any,
    *,
    by: By = "field",
    source: str | Sequence[str] | None = None,
    into: str = DEFAULT_FIELD,
    n_groups: int | None = None,
    config: PipelineConfig | None = None,
    grouping: GroupingConfig | None = None,
    check: bool = False,
    overwrite: bool = False,
    progress: Progress = None,
) -> GroupingReport:
    """Write each sample's group into a text field, and save a view with one tile a group.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        An image data set or view. A ``group_by()`` view is flattened.
    by : {"field", "folder", "tag", "discovered"}
        ``discovered`` takes the proposal of `preview_groups` if it is for the same samples and settings.
    source : str or sequence of str, optional
        The field (text, number, boolean or Classification), or the tags; None: all tags. A sample with none or several
        of the tags has no group.
    into : str
        Text field for the group.
    n_groups : int, optional
        For ``discovered``; None: chosen automatically.
    config : PipelineConfig, optional
        Features, device and seed, if pictures are encoded; the ``fast`` preset by default.
    grouping : GroupingConfig, optional
    check : bool
        Encode the pictures and also report mixed groups; ``discovered`` always does.
    overwrite : bool
        Replace other values in `into`.
    progress : callable or bool, optional
        As for `umscosod.integrations.fiftyone.label_dataset`; stages ``features`` and ``embed`` if pictures are
        encoded, then ``groups``.

    Returns
    -------
    GroupingReport

    Raises
    ------
    DataError
        There are no samples, a source or field is unsuitable, no sample gets a group, or values would be overwritten.
    ConfigError
        A setting is wrong, or that number of groups is impossible.
    """
    view = flat_images(sample_collection)
    dataset = view._dataset  # a view has no public access to its data set
    config, grouping = _settings(config, grouping)
    if by == "field" and (not isinstance(source, str) or not source):
        raise DataError("name the field to group by: source='FIELD'")
    rows = read_samples(view, str(source) if by == "field" else None)
    samples = {row.id: row.path for row in rows}
    _check_into(dataset, into, source if by == "field" else None)
    looks: dict[str, Any] = {}
    if by == "discovered":
        settings: dict[str, Any] = {"n_groups": n_groups, "config": config, "grouping": grouping}
        with showing(progress) as shown:
            proposal = make_proposal(dataset, into, samples, **settings, progress=shown)
        names = {sample_id: name for name, ids in proposal.groups.items() for sample_id in ids}
        looks = _looks_of(proposal)
    else:
        names = _read_names(view, rows, by, source)
    if not names:
        raise DataError(f"none of the {len(samples)} samples gets a group by {by}; choose another way to group them")
    old = dict(zip(samples, read_column(view, into, len(samples)), strict=True))
    lost = sum(value is not None and value != names.get(sample_id) for sample_id, value in old.items())
    if lost and not overwrite:  # unchanged values are no loss, so that an interrupted call can be repeated
        raise DataError(
            f"{count_of(lost, 'sample has', 'samples have')} another value in the field {into!r}; "
            f"choose another field, or overwrite"
        )
    if check and by != "discovered":
        with showing(progress) as shown:
            looks = _look_at(samples, names, config, grouping, shown)
    with showing(progress) as shown:
        _write(dataset, into, old, names, shown)
    sizes = dict(sorted(Counter(names.values()).items(), key=lambda each: natural_key(each[0])))
    notes = _notes(sizes, is_by_folder=by == "folder", is_checked=bool(looks.get("cohesion")))
    view_name = _save_view(dataset, into)
    return _report(into, sizes, len(samples), grouping, view_name=view_name, notes=notes, **looks)


def preview_groups(
    sample_collection: Any,
    *,
    into: str = DEFAULT_FIELD,
    n_groups: int | None = None,
    config: PipelineConfig | None = None,
    grouping: GroupingConfig | None = None,
    progress: Progress = None,
) -> GroupingReport:
    """Find groups in the pictures and store them as a proposal; the data set does not change.

    Parameters and errors are those of `group_dataset`. That function writes the proposal if it is called with
    ``by="discovered"`` and the same samples and settings.

    Returns
    -------
    GroupingReport
        Without a view.
    """
    view = flat_images(sample_collection)
    config, grouping = _settings(config, grouping)
    samples = {row.id: row.path for row in read_samples(view, None)}
    _check_into(view._dataset, into, None)
    settings: dict[str, Any] = {"n_groups": n_groups, "config": config, "grouping": grouping}
    with showing(progress) as shown:
        proposal = make_proposal(view._dataset, into, samples, **settings, progress=shown)
    return _report(into, proposal.sizes, len(samples), grouping, **_looks_of(proposal))


def _report(into: str, sizes: dict[str, int], n_samples: int, grouping: GroupingConfig, **more: Any) -> GroupingReport:
    small = tuple(name for name, size in sizes.items() if size < grouping.min_size)
    return GroupingReport(field=into, sizes=sizes, small=small, ungrouped=n_samples - sum(sizes.values()), **more)


def _looks_of(proposal: Proposal) -> dict[str, Any]:
    """Return what the report says of encoded pictures."""
    return {"mixed": tuple(proposal.mixed), "cohesion": proposal.cohesion, "failures": proposal.failures}


def stored_preview(dataset: Any, into: str = DEFAULT_FIELD) -> dict[str, int]:
    """Return the sizes of the groups last proposed for a field, from a small file; empty if there is no proposal."""
    proposal = read_proposal(dataset, into) if into.isidentifier() else None
    return proposal.sizes if proposal else {}


def _settings(config: PipelineConfig | None, grouping: GroupingConfig | None) -> tuple[PipelineConfig, GroupingConfig]:
    config, grouping = config or load_config(DEFAULT_PRESET), grouping or GroupingConfig()
    validate_config(config)
    check_section(grouping, "grouping")
    return config, grouping


def _read_names(view: Any, rows: Sequence[SampleRow], by: str, source: str | Sequence[str] | None) -> dict[str, str]:
    """Return the group by sample id, for samples with a group."""
    if by not in ("field", "folder", "tag"):
        raise DataError(f"cannot group by {by!r}; choose field, folder, tag or discovered")
    values = [row.group for row in rows]
    if by == "tag":
        wanted = {source} if isinstance(source, str) else set(source or view.distinct("tags"))
        found = [wanted.intersection(tags or ()) for tags in view.values("tags")]
        values = [min(tags) if len(tags) == 1 else "" for tags in found]
    names = {row.id: value.strip() for row, value in zip(rows, values, strict=True) if value.strip()}
    for name in set(names.values()):
        check_relative(name, "group name")  # groups name the folders of results
    return names


def _look_at(
    samples: Mapping[str, Path],
    names: Mapping[str, str],
    config: PipelineConfig,
    grouping: GroupingConfig,
    progress: ProgressFn,
) -> dict[str, Any]:
    """Encode the grouped samples; return groups no more alike than chance, all cohesions, and unreadable pictures."""
    groups = groups_from_rows((sample_id, samples[sample_id], name) for sample_id, name in names.items())
    with encoded_collection(groups, config, progress=progress) as features:
        checks = check_groups(features, grouping, progress=progress)
    mixed = tuple(name for name, each in checks.items() if each.is_mixed)
    cohesion = {name: each.cohesion for name, each in checks.items()}
    return {"mixed": mixed, "cohesion": cohesion, "failures": features.failures}


def _check_into(dataset: Any, into: str, source: Any) -> None:
    """Refuse a field that is no text, that FiftyOne or a run owns, or that is the source."""
    check_name(into)
    found = dataset.get_field(into)
    if into in {"id", "filepath"} or not (found is None or type(found) is fo.StringField):
        raise DataError(f"field {into!r} is there and cannot hold group names; choose another field name")
    if into == source:
        raise DataError(f"{into!r} is the field that is read; choose another to write to")
    for run in list_runs(dataset):
        if into in run.fields:
            raise DataError(f"field {into!r} belongs to the run {run.key!r}; choose another field name")


def _write(
    dataset: Any, into: str, old: Mapping[str, str | None], names: Mapping[str, str], progress: ProgressFn
) -> None:
    if not dataset.has_sample_field(into):
        dataset.add_sample_field(into, fo.StringField)
    changed = [sample_id for sample_id, value in old.items() if value != names.get(sample_id)]
    for start in range(0, len(changed), WRITE_BATCH):
        progress(start, len(changed), "groups")
        batch = changed[start : start + WRITE_BATCH]
        store_values(dataset, into, {sample_id: names.get(sample_id) for sample_id in batch})
    progress(len(changed), len(changed), "groups")


def _save_view(dataset: Any, into: str) -> str:
    """Save the view ``by-<into>``; if the user has a view of that name, ours gets a number."""
    taken = {fo.core.utils.to_slug(name): name for name in dataset.list_saved_views()}
    for number in range(1, len(taken) + 2):
        name = f"by-{into}" if number == 1 else f"by-{into}-{number}"
        present = taken.get(fo.core.utils.to_slug(name))
        told = dataset.get_saved_view_info(present).get("description") if present is not None else None
        if present is None or str(told or "").startswith(_OURS):
            break
    view = every_sample(dataset).exists(into).group_by(into)
    dataset.save_view(name, view, description=f"{_OURS}{into}", overwrite=present is not None)
    return name


def _notes(sizes: Mapping[str, int], *, is_by_folder: bool, is_checked: bool) -> tuple[str, ...]:
    """Return notes: folders that do not separate the images, and a group too large to compare with other images."""
    notes, count = [], sum(sizes.values())
    if is_by_folder and len(sizes) == 1:
        notes.append(f"all {count} images are in one folder: one group; if they show several things, try 'discovered'")
    large = [name for name, size in sizes.items() if is_checked and size > count / 2]
    notes += [f"whether {name!r} is mixed cannot be told: it has more than half of the images" for name in large]
    return tuple(notes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
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
    cohesion: dict[str, float] = dataclasses.field(default_factory=dict)
    mixed: list[str] = dataclasses.field(default_factory=list)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)

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
        return Proposal(**content) if content.pop("schema") == SCHEMA else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s: cannot be read (%s); groups are looked for anew", path, error)
        return None


def preview_view(dataset: Any, into: str = DEFAULT_FIELD) -> Any:
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
    rows = sorted((sample_id, str(path)) for sample_id, path in samples.items())
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    settings = _settings_of(n_groups, config, grouping)
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
    content = {"schema": SCHEMA, **dataclasses.asdict(proposal)}
    with open_atomic(proposal_file(dataset, into)) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())
    return proposal


def _settings_of(n_groups: int | None, config: PipelineConfig, grouping: GroupingConfig) -> dict[str, Any]:
    """Return everything that determines a proposal, as JSON restores it."""
    plain = config_to_dict(config)
    features = {name: value for name, value in plain["features"].items() if name not in _NO_EFFECT}
    chosen = {"n_groups": n_groups, "seed": config.seed, "data": plain["data"], "features": features}
    settings: dict[str, Any] = json.loads(json.dumps({**chosen, "grouping": dataclasses.asdict(grouping)}))
    return settings
