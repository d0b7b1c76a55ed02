"""Builds the demo's data set: groups, pseudo-labels, two runs, their scores, and its appearance in the App.

Views, workspaces and colours are set once, so that the user's changes stay. Only views that list images by name are
made again when their scores change.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo

from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.errors import DataError, count_of
from umscosod.integrations.fiftyone.evaluation.comparison import Comparison, compare_dataset
from umscosod.integrations.fiftyone.evaluation.dataset import evaluate_dataset
from umscosod.integrations.fiftyone.exchange.importer import CoSODImporter
from umscosod.integrations.fiftyone.exchange.predictions import import_predictions
from umscosod.integrations.fiftyone.review.listing import list_for_review
from umscosod.integrations.fiftyone.runs.fields import COLOURS, colour_entry, safe_name
from umscosod.integrations.fiftyone.runs.jobs import RunReport
from umscosod.integrations.fiftyone.runs.labels import label_dataset, pseudo_label_dataset
from umscosod.progress import ProgressFn, ignore_progress

logger = logging.getLogger(__name__)

GROUP_FIELD, TRUTH_FIELD = "cls", "ground_truth"
MAIN_RUN, PEER_RUN, PSEUDO_RUN = "cosal", "tokencut", "pseudo"
GROUPS_VIEW, WORST_VIEW = "by-group", "least-certain-first"
COMPARE, REVIEW = "compare", "review"
"""Workspaces."""
COMPARE_PANEL, REVIEW_PANEL = "compare_models", "review_masks"
_TRUTH_COLOUR = "#2ea043"
_WORD_COLOUR = "#57606a"


def save_views(dataset: Any) -> None:
    """Save a view with one tile a group, and one of the main run's masks, lowest confidence first."""
    views = {
        GROUPS_VIEW: (dataset.group_by(GROUP_FIELD), "one tile a group; open it to page through its pictures"),
        WORST_VIEW: (list_for_review(dataset, MAIN_RUN), f"masks of {MAIN_RUN} that nobody decided about"),
    }
    for name, (view, description) in views.items():
        if not dataset.has_saved_view(name):
            dataset.save_view(name, view, description=description)


def save_comparison_views(dataset: Any, comparison: Comparison) -> None:
    """Save the images where one run is better than the other, largest difference first; no view without such images."""
    for side, better, other in (("a", MAIN_RUN, PEER_RUN), ("b", PEER_RUN, MAIN_RUN)):
        name = f"{better}-beats-{other}".replace("_", "-")
        ids = comparison.ids_where("a" if side == "a" else "b")
        if ids:
            description = f"higher {comparison.measure}, largest difference first"
            dataset.save_view(name, dataset.select(ids, ordered=True), description=description, overwrite=True)
        elif dataset.has_saved_view(name):
            dataset.delete_saved_view(name)


def save_workspaces(dataset: Any, *, has_evaluations: bool) -> None:
    """Save the grid beside the panels: to compare two runs if there are scores, and to review masks."""
    layouts: dict[str, tuple[tuple[str, ...], str]]
    layouts = {REVIEW: ((REVIEW_PANEL,), "look at masks, the least certain first, and decide")}
    if has_evaluations:
        layouts[COMPARE] = ((COMPARE_PANEL, "model_evaluation_panel_builtin"), "two evaluations side by side")
    for name, (panels, description) in layouts.items():
        if not dataset.has_workspace(name):
            dataset.save_workspace(name, _beside_grid(panels), description=description)


def set_appearance(dataset: Any, *, has_truth: bool) -> None:
    """Choose the drawn fields, and a colour for each field, so that runs can be distinguished."""
    config = dataset.app_config
    shown = [GROUP_FIELD, MAIN_RUN, f"{MAIN_RUN}_confidence"]
    config.active_fields = fo.ActiveFields(paths=shown)
    colours = dict(zip((MAIN_RUN, PEER_RUN, PSEUDO_RUN), COLOURS, strict=False))
    colours |= {f"{run}_map": colour for run, colour in colours.items()}
    colours |= {path: _WORD_COLOUR for path in shown if path not in colours}
    if has_truth:
        colours[TRUTH_FIELD] = _TRUTH_COLOUR
    fields = [colour_entry(path, colour) for path, colour in colours.items()]
    config.color_scheme = fo.ColorScheme(color_by="field", fields=fields, opacity=0.6)
    dataset.save()


def _beside_grid(panels: Sequence[str]) -> Any:
    grid = fo.Panel(type="Samples", pinned=True)
    tabs = [fo.Panel(type=name) for name in panels]
    return fo.Space(
        orientation="horizontal",
        children=[
            fo.Space(children=[grid], active_child=grid.component_id),
            fo.Space(children=tabs, active_child=tabs[0].component_id),
        ],
        sizes=[0.55, 0.45],  # of the window's width
    )


_MARK = "umscosod_demo"  # key in the data set's info: the demo made it from these pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoReport:
    """The contents of the demo's data set.

    Attributes
    ----------
    name : str
        Name of the data set.
    n_images, n_groups : int
    runs : tuple of RunReport
        The main run first.
    comparison : Comparison or None
        The main run (A) compared with TokenCut (B); None without ground truth.
    notes : tuple of str
        Remarks on problems.
    """

    name: str
    n_images: int
    n_groups: int
    runs: tuple[RunReport, ...]
    comparison: Comparison | None
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return a few lines for people."""
        lines = [
            f"FiftyOne data set {self.name}: {count_of(self.n_images, 'image')} in {count_of(self.n_groups, 'group')}"
        ]
        lines += [f"  {run.summary}" for run in self.runs]
        lines += [f"  {self.comparison.summary}"] if self.comparison is not None else []
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @property
    def is_success(self) -> bool:
        """Whether every run labelled something, in this call or earlier."""
        return all(run.is_success for run in self.runs)


def build_demo(
    pictures: str | Path,
    *,
    name: str = "",
    results: str | Path | None = None,
    config: PipelineConfig | None = None,
    progress: ProgressFn = ignore_progress,
) -> DemoReport:
    """Make the data set, or complete it: existing results and the appearance are not made again.

    Parameters
    ----------
    pictures : path
        A benchmark folder or a folder with one sub-folder a group; scores need ground truth beside the pictures.
    name : str
        Name of the data set; by default ``umscosod-`` and the name of the folder.
    results : path, optional
        Output folder of ``umscosod label`` for these pictures: imported as the main run, instead of training again.
    config : PipelineConfig, optional
        For the runs made here; the ``fast`` preset by default.
    progress : callable

    Returns
    -------
    DemoReport
        It counts pictures that cannot be read; they do not end the build.

    Raises
    ------
    DataError
        There are no pictures, or the data set of that name was made by something else.
    """
    folder = Path(pictures).expanduser().resolve()
    dataset = _open_dataset(folder, name or f"umscosod-{safe_name(folder.name)}")
    runs = _make_runs(dataset, None if results is None else Path(results).expanduser().resolve(), config, progress)
    has_truth = dataset.has_field(TRUTH_FIELD) and dataset.count(TRUTH_FIELD) > 0
    comparison, notes = _score(dataset, runs, progress) if has_truth else (None, ())
    save_views(dataset)
    if comparison is not None:
        save_comparison_views(dataset, comparison)
    save_workspaces(dataset, has_evaluations=comparison is not None)
    if not _read_mark(dataset).get("is_dressed"):
        set_appearance(dataset, has_truth=has_truth)
        _mark(dataset, is_dressed=True)
    report = DemoReport(
        name=dataset.name,
        n_images=len(dataset),
        n_groups=len(dataset.distinct(GROUP_FIELD)),
        runs=runs,
        comparison=comparison,
        notes=notes,
    )
    logger.info("%s", report.summary)
    return report


def _open_dataset(folder: Path, name: str) -> Any:
    """Open or make the data set; add new pictures, and leave existing samples unchanged."""
    importer = CoSODImporter(dataset_dir=folder, group_field=GROUP_FIELD, gt_field=TRUTH_FIELD)
    importer.setup()  # before the data set is made: a bad folder makes no data set
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if (made_of := _read_mark(dataset).get("pictures")) != str(folder):
            raise DataError(
                f"a data set {name!r} is there and was "
                f"{'not made by the demo' if made_of is None else f'made of {made_of}'}; choose another --name"
            )
    else:
        dataset = fo.Dataset(name, persistent=True)
        dataset.description = "Masks that umscosod found without annotation"
        _mark(dataset, pictures=str(folder))
    present = set(dataset.values("filepath"))
    new = [sample for sample in importer if sample.filepath not in present]
    if new:
        dataset.add_samples(new, progress=False)
        if importer.has_dataset_info:
            dataset.mask_targets = {**dataset.mask_targets, **importer.get_dataset_info()["mask_targets"]}
    return dataset


def _make_runs(
    dataset: Any, results: Path | None, config: PipelineConfig | None, progress: ProgressFn
) -> tuple[RunReport, ...]:
    """Label by the method (or import the command line's result) and by TokenCut on the same tokens; pseudo-labels."""
    own: dict[str, Any] = {"group_field": GROUP_FIELD, "config": config, "progress": progress}
    if results is None:
        main = label_dataset(dataset, field=MAIN_RUN, **own)
    else:
        digest = _digest(results / "report.json")
        is_changed = _read_mark(dataset).get("results") not in (None, digest)
        main = import_predictions(
            dataset, results, MAIN_RUN, group_field=GROUP_FIELD, overwrite=is_changed, progress=progress
        )
        _mark(dataset, results=digest)
    as_peer = replace(load_config(DEFAULT_PRESET) if config is None else config, method="tokencut")
    peer = label_dataset(dataset, field=PEER_RUN, **{**own, "config": as_peer})
    pseudo = pseudo_label_dataset(dataset, field=PSEUDO_RUN, **own)
    return main, peer, pseudo


def _score(
    dataset: Any, runs: tuple[RunReport, ...], progress: ProgressFn
) -> tuple[Comparison | None, tuple[str, ...]]:
    """Evaluate the two runs if labels or evaluation are new, and compare them."""
    try:
        for run in runs:
            key = f"eval_{run.key}"
            if run.key != PSEUDO_RUN and (run.rows or key not in dataset.list_evaluations()):
                options: dict[str, Any] = {"eval_key": key, "group_field": GROUP_FIELD, "overwrite": True}
                evaluate_dataset(dataset, run.key, TRUTH_FIELD, **options, progress=progress)
        return compare_dataset(dataset, f"eval_{MAIN_RUN}", f"eval_{PEER_RUN}"), ()
    except DataError as error:  # for example nothing was labelled: the data set is still useful
        return None, (str(error),)


def _read_mark(dataset: Any) -> dict[str, Any]:
    mark = dataset.info.get(_MARK)
    return dict(mark) if isinstance(mark, dict) else {}


def _mark(dataset: Any, **values: Any) -> None:
    dataset.info[_MARK] = {**_read_mark(dataset), **values}
    dataset.save()


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); run 'umscosod label' into {file.parent}") from error
