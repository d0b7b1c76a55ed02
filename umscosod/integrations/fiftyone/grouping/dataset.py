"""Writes the group of each sample as text: from a field, the folder, tags, or groups found in the pictures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config, validate_config
from umscosod.config.schema import check_section
from umscosod.data.groups import groups_from_rows
from umscosod.data.naming import natural_key
from umscosod.errors import DataError, count_of
from umscosod.grouping.cluster import encoded_collection
from umscosod.grouping.discover import check_groups
from umscosod.integrations.fiftyone.grouping.proposals import make_proposal, read_proposal
from umscosod.integrations.fiftyone.runs.fields import WRITE_BATCH, every_sample, store_values
from umscosod.integrations.fiftyone.runs.jobs import flat_images, read_groups
from umscosod.integrations.fiftyone.runs.record import Progress, list_runs, showing
from umscosod.progress import ProgressFn
from umscosod.types import check_relative

logger = logging.getLogger(__name__)

_SHOWN = 5


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


By = Literal["field", "folder", "tag", "discovered"]
DEFAULT_FIELD = "cosal_group"
_OURS = "umscosod: one tile a group of the field "


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
    samples = _read_samples(view)
    _check_into(dataset, into, source if by == "field" else None)
    mixed: tuple[str, ...] = ()
    cohesion: dict[str, float] = {}
    failures: dict[str, str] = {}
    if by == "discovered":
        settings: dict[str, Any] = {"n_groups": n_groups, "config": config, "grouping": grouping}
        with showing(progress) as shown:
            proposal = make_proposal(dataset, into, samples, **settings, progress=shown)
        names = {sample_id: name for name, ids in proposal.groups.items() for sample_id in ids}
        mixed, cohesion, failures = tuple(proposal.mixed), proposal.cohesion, proposal.failures
    else:
        names = _read_names(view, samples, by, source)
    if not names:
        raise DataError(f"none of the {len(samples)} samples gets a group by {by}; choose another way to group them")
    old = _present_values(view, into, samples)
    _refuse_to_replace(old, names, into, overwrite=overwrite)
    if check and by != "discovered":
        with showing(progress) as shown:
            mixed, cohesion, failures = _look_at(samples, names, config, grouping, shown)
    with showing(progress) as shown:
        _write(dataset, into, old, names, shown)
    sizes = _sizes(names.values())
    return GroupingReport(
        field=into,
        sizes=sizes,
        small=tuple(name for name, size in sizes.items() if size < grouping.min_size),
        mixed=mixed,
        ungrouped=len(samples) - len(names),
        view_name=_save_view(dataset, into),
        cohesion=cohesion,
        failures=failures,
        notes=(*(_notes_on_folders(sizes) if by == "folder" else ()), *(_notes_on_check(sizes) if cohesion else ())),
    )


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
    samples = _read_samples(view)
    _check_into(view._dataset, into, None)
    with showing(progress) as shown:
        proposal = make_proposal(
            view._dataset, into, samples, n_groups=n_groups, config=config, grouping=grouping, progress=shown
        )
    return GroupingReport(
        field=into,
        sizes=proposal.sizes,
        small=tuple(name for name, size in proposal.sizes.items() if size < grouping.min_size),
        mixed=tuple(proposal.mixed),
        ungrouped=len(samples) - sum(proposal.sizes.values()),
        cohesion=proposal.cohesion,
        failures=proposal.failures,
    )


def stored_preview(dataset: Any, into: str = DEFAULT_FIELD) -> dict[str, int]:
    """Return the sizes of the groups last proposed for a field, from a small file; empty if there is no proposal."""
    proposal = read_proposal(dataset, into) if into.isidentifier() else None
    return proposal.sizes if proposal else {}


def _settings(config: PipelineConfig | None, grouping: GroupingConfig | None) -> tuple[PipelineConfig, GroupingConfig]:
    config, grouping = config or load_config(DEFAULT_PRESET), grouping or GroupingConfig()
    validate_config(config)
    check_section(grouping, "grouping")
    return config, grouping


def _read_samples(view: Any) -> dict[str, Path]:
    ids, paths = view.values(["id", "filepath"])
    if not ids:
        raise DataError("the view has no samples; choose another view or data set")
    return {sample_id: Path(path) for sample_id, path in zip(ids, paths, strict=True)}


def _read_names(view: Any, samples: Mapping[str, Path], by: str, source: str | Sequence[str] | None) -> dict[str, str]:
    """Return the group by sample id, for samples with a group."""
    if by == "tag":
        wanted = {source} if isinstance(source, str) else set(source or view.distinct("tags"))
        found = [wanted.intersection(tags or ()) for tags in view.values("tags")]
        values = [min(tags) if len(tags) == 1 else "" for tags in found]
    elif by == "folder":
        values = read_groups(view, list(samples.values()), None)
    elif by == "field":
        if not isinstance(source, str) or not source:
            raise DataError("name the field to group by: source='FIELD'")
        values = read_groups(view, list(samples.values()), source)
    else:
        raise DataError(f"cannot group by {by!r}; choose field, folder, tag or discovered")
    names = {sample_id: value.strip() for sample_id, value in zip(samples, values, strict=True) if value.strip()}
    for name in set(names.values()):
        check_relative(name, "group name")  # groups name the folders of results
    return names


def _look_at(
    samples: Mapping[str, Path],
    names: Mapping[str, str],
    config: PipelineConfig,
    grouping: GroupingConfig,
    progress: ProgressFn,
) -> tuple[tuple[str, ...], dict[str, float], dict[str, str]]:
    """Encode the grouped samples; return groups no more alike than chance, all cohesions, and unreadable pictures."""
    groups = groups_from_rows((sample_id, samples[sample_id], name) for sample_id, name in names.items())
    with encoded_collection(groups, config, progress=progress) as features:
        checks = check_groups(features, grouping, progress=progress)
    mixed = tuple(name for name, each in checks.items() if each.is_mixed)
    return mixed, {name: each.cohesion for name, each in checks.items()}, features.failures


def _check_into(dataset: Any, into: str, source: Any) -> None:
    """Refuse a field that is no text, that FiftyOne or a run owns, or that is the source."""
    import fiftyone as fo

    if not into.isidentifier() or into.startswith("_"):
        raise DataError(f"field name {into!r} must be letters, digits and '_', starting with a letter")
    found = dataset.get_field(into)
    if into in {"id", "filepath"} or not (found is None or type(found) is fo.StringField):
        raise DataError(f"field {into!r} is there and cannot hold group names; choose another field name")
    if into == source:
        raise DataError(f"{into!r} is the field that is read; choose another to write to")
    for run in list_runs(dataset):
        if into in run.fields:
            raise DataError(f"field {into!r} belongs to the run {run.key!r}; choose another field name")


def _present_values(view: Any, into: str, samples: Iterable[str]) -> dict[str, str | None]:
    if not view.has_sample_field(into):
        return dict.fromkeys(samples)
    return dict(zip(*view.values(["id", into]), strict=True))


def _refuse_to_replace(old: Mapping[str, str | None], names: Mapping[str, str], into: str, *, overwrite: bool) -> None:
    """Refuse to replace values; unchanged values are allowed, so that an interrupted call can be repeated."""
    lost = sum(value is not None and value != names.get(sample_id) for sample_id, value in old.items())
    if lost and not overwrite:
        raise DataError(
            f"{count_of(lost, 'sample has', 'samples have')} another value in the field {into!r}; "
            f"choose another field, or overwrite"
        )


def _write(
    dataset: Any, into: str, old: Mapping[str, str | None], names: Mapping[str, str], progress: ProgressFn
) -> None:
    import fiftyone as fo

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
    import fiftyone as fo

    taken = {fo.core.utils.to_slug(name): name for name in dataset.list_saved_views()}
    for number in range(1, len(taken) + 2):
        name = f"by-{into}" if number == 1 else f"by-{into}-{number}"
        present = taken.get(fo.core.utils.to_slug(name))
        if present is None or _is_ours(dataset, present):
            break
    view = every_sample(dataset).exists(into).group_by(into)
    dataset.save_view(name, view, description=f"{_OURS}{into}", overwrite=present is not None)
    return name


def _is_ours(dataset: Any, view_name: str) -> bool:
    return str(dataset.get_saved_view_info(view_name).get("description") or "").startswith(_OURS)


def _notes_on_folders(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return a note if the folders do not separate the images."""
    if len(sizes) > 1:
        return ()
    (count,) = sizes.values()
    return (f"all {count} images are in one folder: one group; if they show several things, try 'discovered'",)


def _notes_on_check(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Name the group that the check could not judge: it compares a group with the other images."""
    count = sum(sizes.values())
    large = [name for name, size in sizes.items() if size > count / 2]
    return tuple(f"whether {name!r} is mixed cannot be told: it has more than half of the images" for name in large)


def _sizes(names: Iterable[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name] = sizes.get(name, 0) + 1
    return {name: sizes[name] for name in sorted(sizes, key=natural_key)}
