"""Ablations: the rows of the two studies as settings that differ, their runs and their tables."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from umscosod.bench.entries import Entry
from umscosod.bench.run import run_bench
from umscosod.bench.table import SHOWN, TITLES, BenchReport, format_markdown, report_to_json, show_figure
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, config_to_dict, load_config
from umscosod.data.files import open_atomic
from umscosod.errors import ConfigError
from umscosod.evaluation.scoring import Measure, make_finite
from umscosod.progress import ProgressFn, ignore_progress

StudyName = Literal["modules", "labels", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row of a study.

    Attributes
    ----------
    name : str
        Part of the name of its folder.
    title : str
        What it has, for the table.
    settings : mapping of str to object
        What differs from the settings given, by dotted name.
    train : bool
        Off: pseudo-labels are refined, no network is trained.
    network_of : str
        Variant of the same seed whose trained network it takes: the two differ after training alone.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: bool = True
    network_of: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Variants that share a table.

    Attributes
    ----------
    name : str
    title : str
    variants : tuple of Variant
    is_trained : bool
        Rows are repeated with several seeds; else nothing is trained and one seed is enough.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    is_trained: bool

    def seeds(self, first: int, count: int) -> tuple[int, ...]:
        """Seeds of its rows: `first` and those after it, or `first` alone."""
        return tuple(range(first, first + count)) if self.is_trained else (first,)

    def entry_name(self, variant: Variant, seed: int) -> str:
        """Name of a row's folder; with the seed where there may be several."""
        return f"{variant.name}-seed{seed}" if self.is_trained else variant.name

    def entries(self, first_seed: int, count: int) -> tuple[Entry, ...]:
        """Everything to be run, seed by seed, so that what is cut short has whole tables of the first seeds."""
        return tuple(
            Entry(
                name=self.entry_name(one, seed),
                settings={**one.settings, "seed": seed},
                train=one.train,
                network_of=f"{one.network_of}-seed{seed}" if one.network_of else "",
            )
            for seed in self.seeds(first_seed, count)
            for one in self.variants
        )


def _modules(*on: str) -> dict[str, Any]:
    """Settings of a row of the paper's Table 3, every switch said, whatever the settings given; see `MODULES`."""
    switches = {f"network.{name}.enabled": name in on for name in ("afmm", "cfmm", "fram")}
    return {"method": "ums", "keep": "network", **switches, "refine.enabled": "rrbe" in on}


def _labels(**pseudo: Any) -> dict[str, Any]:
    """Settings of CM-SPLG alone with some of its own changed."""
    return {"method": "pseudo", **{f"pseudo.{name}": value for name, value in pseudo.items()}}


MODULES = Study(
    name="modules",
    title="Modules (the paper's Table 3)",
    variants=(
        Variant(name="none", title="none", settings=_modules()),
        Variant(name="afmm-cfmm", title="AFMM + CFMM", settings=_modules("afmm", "cfmm")),
        Variant(name="afmm-cfmm-fram", title="AFMM + CFMM + FRAM", settings=_modules("afmm", "cfmm", "fram")),
        Variant(
            name="afmm-cfmm-rrbe",
            title="AFMM + CFMM + RRBE",
            settings=_modules("afmm", "cfmm", "rrbe"),
            network_of="afmm-cfmm",
        ),
        Variant(
            name="all",
            title="all four",
            settings=_modules("afmm", "cfmm", "fram", "rrbe"),
            network_of="afmm-cfmm-fram",
        ),
        Variant(name="default", title="default", settings={"method": "ums"}),
    ),
    is_trained=True,
)
"""``keep=network`` in all rows but the last, or the pseudo-label's share in the final map would hide the modules.

RRBE comes after training, so a row with it takes the network of the row without it: the same masks in less time.
"""

_ALONE: Mapping[str, Any] = {"category_distance": 1e-6, "top_k": 1_000_000}  # every mask its own category; all compete
_EVERY_K = 1_000_000  # more categories than an image has

LABELS = Study(
    name="labels",
    title="Pseudo-labels",
    variants=(
        Variant(name="attention-only", title="attention only", settings={"method": "attention"}),
        Variant(name="masks-only", title="masks only", settings=_labels(select="masks")),
        Variant(
            name="cm-splg-no-categories",
            title="CM-SPLG, no categories",
            settings=_labels(select="co-saliency", **_ALONE),
        ),
        Variant(name="cm-splg-k1", title="CM-SPLG, k = 1", settings=_labels(select="co-saliency", top_k=1)),
        Variant(
            name="cm-splg-every-k", title="CM-SPLG, every k", settings=_labels(select="co-saliency", top_k=_EVERY_K)
        ),
        Variant(name="cm-splg", title="CM-SPLG", settings=_labels(select="co-saliency")),
        Variant(
            name="cm-splg-cleaned",
            title="CM-SPLG + group cleaning",
            settings=_labels(select="co-saliency", clean="prototype", probe="none") | {"method": "ums"},
            train=False,
        ),
        Variant(
            name="cm-splg-cleaned-probe",
            title="CM-SPLG + group cleaning + probe",
            settings=_labels(select="co-saliency", clean="prototype", probe="linear") | {"method": "ums"},
            train=False,
        ),
        Variant(name="default-untrained", title="default, not trained", settings={"method": "ums"}, train=False),
    ),
    is_trained=False,
)
"""All refined alike. ``clean=prototype`` where cleaning is claimed: ``auto`` leaves it out for ``embedded``."""

STUDIES: Mapping[StudyName, tuple[Study, ...]] = {
    "modules": (MODULES,),
    "labels": (LABELS,),
    "all": (LABELS, MODULES),  # minutes before hours
}


_OF_MAPS: tuple[Measure, ...] = ("mae", "s", "iou")


def save_ablation(report: AblationReport) -> str:
    """Write ``OUT/ablation.json`` and ``OUT/ablation.md``; return the tables."""
    text = format_ablation(report)
    content = json.dumps(make_finite(ablation_to_json(report)), indent=1, ensure_ascii=False, allow_nan=False)
    for name, data in (("ablation.json", content), ("ablation.md", text)):
        with open_atomic(report.bench.out / name) as stream:
            stream.write(data.encode("utf-8", "replace"))
    return text


def format_ablation(report: AblationReport) -> str:
    """All tables of all studies: the mean over data sets, each data set, the soft maps, and what went wrong.

    Returns
    -------
    str
        Markdown that ends in a newline. Figures have three digits.
    """
    bench = report.bench
    parts = ["# Ablation", f"- definition: {bench.facts['definition']}\n- backbones: {', '.join(bench.backbones)}"]
    parts += [f"note: {note}" for note in bench.notes]
    for study in report.studies:
        parts += [f"## {study.title}", _say_seeds(report, study)]
        if len(bench.datasets) > 1:
            parts += [f"### Mean of {len(bench.datasets)} data sets, final masks", _table(report, study, None)]
        for dataset in bench.datasets:
            parts += [f"### {dataset}, final masks", _table(report, study, dataset)]
        parts += ["### Soft maps before refinement", _map_table(report, study)]
    errors = [f"- {cell.dataset}, {cell.method}: {cell.error}" for cell in bench.cells if cell.error]
    if errors:
        parts += ["## Not scored", "\n".join(errors)]
    return "\n\n".join(parts) + "\n"


def ablation_to_json(report: AblationReport) -> dict[str, Any]:
    """Everything the tables show, the settings of each row, and the bench below, as a dictionary JSON can hold."""
    return {
        "config": config_to_dict(report.config),
        "studies": [
            {
                "name": study.name,
                "title": study.title,
                "seeds": list(report.seeds(study)),
                "rows": [_row_to_json(report, study, variant) for variant in study.variants],
            }
            for study in report.studies
        ],
        "bench": report_to_json(report.bench),
    }


def _say_seeds(report: AblationReport, study: Study) -> str:
    seeds = report.seeds(study)
    if not study.is_trained:
        return f"One seed, {seeds[0]}: no network is trained."
    if len(seeds) == 1:
        return f"One seed, {seeds[0]}: no spread."
    named = ", ".join(map(str, seeds))
    return f"Mean ± sample standard deviation over {len(seeds)} seeds ({named}) of training."


def _table(report: AblationReport, study: Study, dataset: str | None) -> str:
    lines = [["row", *(TITLES[measure] for measure in SHOWN)]]
    for variant in study.variants:
        figures = (report.spread(study, variant, measure, dataset=dataset) for measure in SHOWN)
        lines.append([variant.title, *(_show(one) for one in figures)])
    return format_markdown(lines)


def _map_table(report: AblationReport, study: Study) -> str:
    """Means of MAE, S and IoU of the maps, one column a data set; deviations are in the JSON."""
    datasets = report.bench.datasets
    columns: list[tuple[str, str | None]] = [(name, name) for name in datasets]
    if len(datasets) > 1:
        columns.append(("mean", None))
    lines = [["row", *(title for title, _ in columns)]]
    for variant in study.variants:
        line = [variant.title]
        for _, dataset in columns:
            spreads = [report.spread(study, variant, each, dataset=dataset, of_maps=True) for each in _OF_MAPS]
            line.append("/".join(show_figure(None if one is None else one.mean) for one in spreads))
        lines.append(line)
    return "MAE/S/IoU, means; IoU at 0.5.\n\n" + format_markdown(lines)


def _show(spread: Spread | None) -> str:
    if spread is None or spread.deviation is None:
        return show_figure(None if spread is None else spread.mean)
    return f"{show_figure(spread.mean)} ± {show_figure(spread.deviation)}"


def _row_to_json(report: AblationReport, study: Study, variant: Variant) -> dict[str, Any]:
    def figures(dataset: str | None, *, of_maps: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for measure in SHOWN:
            one = report.spread(study, variant, measure, dataset=dataset, of_maps=of_maps)
            found[measure] = one and {"mean": one.mean, "deviation": one.deviation, "values": list(one.values)}
        return found

    by_tree = {
        tree: {
            "mean": figures(None, of_maps=of_maps),
            "datasets": {dataset: figures(dataset, of_maps=of_maps) for dataset in report.bench.datasets},
        }
        for tree, of_maps in (("masks", False), ("maps", True))
    }
    return {
        "name": variant.name,
        "title": variant.title,
        "settings": dict(variant.settings),
        "is_trained": study.is_trained,
        "network_of": variant.network_of or None,
        **by_tree,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A measure over seeds.

    Attributes
    ----------
    values : tuple of float
        One a seed, in the order of the seeds; at least one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean.

        Examples
        --------
        >>> Spread(values=(0.5, 0.75, 1.0)).mean
        0.75
        """
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1 in the denominator); None for one seed.

        Examples
        --------
        >>> Spread(values=(0.5, 0.75, 1.0)).deviation
        0.25
        """
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationReport:
    """Outcome of an ablation.

    Attributes
    ----------
    bench : BenchReport
        Every variant with every seed as a row of a bench.
    config : PipelineConfig
        The settings given, which variants differ from.
    studies : tuple of Study
    n_seeds : int
        Seeds of a study that trains.
    """

    bench: BenchReport
    config: PipelineConfig
    studies: tuple[Study, ...]
    n_seeds: int

    def seeds(self, study: Study) -> tuple[int, ...]:
        """Seeds of the rows of a study."""
        return study.seeds(self.config.seed, self.n_seeds)

    def spread(
        self, study: Study, variant: Variant, measure: Measure, *, dataset: str | None = None, of_maps: bool = False
    ) -> Spread | None:
        """A measure of one row over seeds.

        Parameters
        ----------
        study, variant : Study, Variant
        measure : str
        dataset : str, optional
            By default the mean over data sets, each counting once, is taken before seeds are compared.
        of_maps : bool
            Of the soft maps, not of the final masks.

        Returns
        -------
        Spread or None
            None if any of its jobs failed: a partial run must not look good.
        """
        values = []
        for seed in self.seeds(study):
            name = study.entry_name(variant, seed)
            if dataset is None:
                value = self.bench.mean(name, measure, of_maps=of_maps)
            else:
                value = self.bench.cell(dataset, name).figure(measure, of_maps=of_maps)
            if value is None:
                return None
            values.append(value)
        return Spread(values=tuple(values))

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if anything failed, 3 if nothing was scored."""
        return self.bench.exit_code


def run_ablation(
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: PipelineConfig | None = None,
    *,
    study: StudyName = "all",
    seeds: int = 3,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> AblationReport:
    """Run every variant of one study or both on every data set, and score the masks.

    Parameters
    ----------
    data : sequence of path
        See `umscosod.bench.entries.find_datasets`.
    out : path
        ``OUT/<data set>/<variant>``, with ``-seedN`` where training depends on it, are output folders like those of
        `label_groups`, and are resumed like them; more seeds later add to those that are there.
    config : PipelineConfig, optional
        By default the ``fast`` preset. What a variant does not name stays as given here. Seeds are ``config.seed``
        and the numbers after it.
    study : {"modules", "labels", "all"}
    seeds : int
        At least 1; studies that train nothing have one anyway.
    overwrite : bool
        Replace results of other settings or images.
    progress : callable

    Returns
    -------
    AblationReport
        What fails is a cell with an error, as in `run_bench`.

    Raises
    ------
    ConfigError
        `study` or `seeds` is wrong, or what `run_bench` refuses.
    WeightsError
        The backbone's weights are missing.
    """
    if study not in STUDIES:
        raise ConfigError(f"unknown study {study!r}; choose among {', '.join(STUDIES)}")
    if seeds < 1:
        raise ConfigError(f"--seeds must be >= 1, got {seeds}")
    config = load_config(DEFAULT_PRESET) if config is None else config
    studies = STUDIES[study]
    entries = [entry for one in studies for entry in one.entries(config.seed, seeds)]
    bench = run_bench(data, entries, Path(out), config, overwrite=overwrite, progress=progress)
    return AblationReport(bench=bench, config=config, studies=studies, n_seeds=seeds)
