"""Ablations: the rows of the two studies as settings that differ, their runs and their tables."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from umscosod.bench.entries import Entry
from umscosod.bench.run import run_bench
from umscosod.bench.table import (
    SHOWN,
    TITLES,
    BenchReport,
    format_document,
    format_maps,
    format_markdown,
    format_sections,
    report_to_json,
    save_tables,
    show_figure,
)
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, config_to_dict, load_config
from umscosod.data.mask_rules import MaskValue
from umscosod.errors import ConfigError
from umscosod.evaluation.scoring import Measure
from umscosod.progress import ProgressFn, ignore_progress

StudyName = Literal["modules", "labels", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Variants that share a table.

    Attributes
    ----------
    name : str
    title : str
    variants : tuple of Entry
        Rows; what differs from the settings given, and for a study that trains without the seed in their names.
    is_trained : bool
        Rows are repeated with several seeds; else nothing is trained and one seed is enough.
    """

    name: str
    title: str
    variants: tuple[Entry, ...]
    is_trained: bool

    def seeds(self, first: int, count: int) -> tuple[int, ...]:
        """Seeds of its rows: `first` and those after it, or `first` alone."""
        return tuple(range(first, first + count)) if self.is_trained else (first,)

    def entry_name(self, variant: Entry, seed: int) -> str:
        """Name of a row's folder; with the seed where there may be several."""
        return f"{variant.name}-seed{seed}" if self.is_trained else variant.name

    def entries(self, first_seed: int, count: int) -> tuple[Entry, ...]:
        """Everything to be run, seed by seed, so that what is cut short has whole tables of the first seeds."""
        return tuple(
            replace(
                one,
                name=self.entry_name(one, seed),
                settings={**one.settings, "seed": seed},
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
        Entry(name="none", title="none", settings=_modules()),
        Entry(name="afmm-cfmm", title="AFMM + CFMM", settings=_modules("afmm", "cfmm")),
        Entry(name="afmm-cfmm-fram", title="AFMM + CFMM + FRAM", settings=_modules("afmm", "cfmm", "fram")),
        Entry(
            name="afmm-cfmm-rrbe",
            title="AFMM + CFMM + RRBE",
            settings=_modules("afmm", "cfmm", "rrbe"),
            network_of="afmm-cfmm",
        ),
        Entry(
            name="all", title="all four", settings=_modules("afmm", "cfmm", "fram", "rrbe"), network_of="afmm-cfmm-fram"
        ),
        Entry(name="default", title="default", settings={"method": "ums"}),
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
        Entry(name="attention-only", title="attention only", settings={"method": "attention"}),
        Entry(name="masks-only", title="masks only", settings=_labels(select="masks")),
        Entry(
            name="cm-splg-no-categories",
            title="CM-SPLG, no categories",
            settings=_labels(select="co-saliency", **_ALONE),
        ),
        Entry(name="cm-splg-k1", title="CM-SPLG, k = 1", settings=_labels(select="co-saliency", top_k=1)),
        Entry(name="cm-splg-every-k", title="CM-SPLG, every k", settings=_labels(select="co-saliency", top_k=_EVERY_K)),
        Entry(name="cm-splg", title="CM-SPLG", settings=_labels(select="co-saliency")),
        Entry(
            name="cm-splg-cleaned",
            title="CM-SPLG + group cleaning",
            settings=_labels(select="co-saliency", clean="prototype", probe="none") | {"method": "ums"},
            train=False,
        ),
        Entry(
            name="cm-splg-cleaned-probe",
            title="CM-SPLG + group cleaning + probe",
            settings=_labels(select="co-saliency", clean="prototype", probe="linear") | {"method": "ums"},
            train=False,
        ),
        Entry(name="default-untrained", title="default, not trained", settings={"method": "ums"}, train=False),
    ),
    is_trained=False,
)
"""All refined alike. ``clean=prototype`` where cleaning is claimed: ``auto`` leaves it out for ``embedded``."""

STUDIES: Mapping[StudyName, tuple[Study, ...]] = {
    "modules": (MODULES,),
    "labels": (LABELS,),
    "all": (LABELS, MODULES),  # minutes before hours
}


def save_ablation(report: AblationReport) -> str:
    """Write ``OUT/ablation.json`` and ``OUT/ablation.md``; return the tables."""
    text = format_ablation(report)
    save_tables(report.bench.out, "ablation", ablation_to_json(report), text)
    return text


def format_ablation(report: AblationReport) -> str:
    """All tables of all studies: the mean over data sets, each data set, the soft maps, and what went wrong.

    Returns
    -------
    str
        Markdown that ends in a newline. Figures have three digits.
    """
    bench, sections = report.bench, []
    for study in report.studies:
        rows = {variant.title: partial(report.mean_of_maps, study, variant) for variant in study.variants}
        maps = f"MAE/S/IoU, means; IoU at 0.5.\n\n{format_maps(bench, 'row', rows)}"
        table = partial(_table, report, study)
        sections += [f"## {study.title}", _say_seeds(report, study), *format_sections(bench, "###", table, maps)]
    head = f"- definition: {bench.facts['definition']}\n- backbones: {', '.join(bench.backbones)}"
    return format_document("Ablation", head, bench, sections)


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
        figures = (report.figures(study, variant, measure, dataset) for measure in SHOWN)
        lines.append([variant.title, *(_show(one) for one in figures)])
    return format_markdown(lines)


def _show(values: Sequence[float]) -> str:
    mean = show_figure(statistics.fmean(values) if values else None)
    return f"{mean} ± {show_figure(statistics.stdev(values))}" if len(values) > 1 else mean


def _row_to_json(report: AblationReport, study: Study, variant: Entry) -> dict[str, Any]:
    def figures(dataset: str | None, *, of_maps: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for measure in SHOWN:
            values = report.figures(study, variant, measure, dataset, of_maps=of_maps)
            found[measure] = None
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else None
                found[measure] = {"mean": statistics.fmean(values), "deviation": deviation, "values": list(values)}
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

    def figures(
        self, study: Study, variant: Entry, measure: Measure, dataset: str | None = None, *, of_maps: bool = False
    ) -> tuple[float, ...]:
        """A measure of one row, one value a seed.

        Parameters
        ----------
        study, variant : Study, Entry
        measure : str
        dataset : str, optional
            By default the mean over data sets, each counting once, is taken before seeds are compared.
        of_maps : bool
            Of the soft maps, not of the final masks.

        Returns
        -------
        tuple of float
            None at all if any of its jobs failed: a partial run must not look good.
        """
        names = [study.entry_name(variant, seed) for seed in self.seeds(study)]
        values = [self.bench.figure(name, measure, dataset, of_maps=of_maps) for name in names]
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(values) else ()

    def mean_of_maps(self, study: Study, variant: Entry, measure: Measure, dataset: str | None) -> float | None:
        """Mean over seeds of a measure of the soft maps; None if any of the jobs failed."""
        values = self.figures(study, variant, measure, dataset, of_maps=True)
        return statistics.fmean(values) if values else None


def run_ablation(
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: PipelineConfig | None = None,
    *,
    study: StudyName = "all",
    seeds: int = 3,
    overwrite: bool = False,
    mask_value: MaskValue | None = None,
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
    mask_value : int, str or sequence, optional
        Ids in the ground truths that are foreground; see `umscosod.evaluate`.
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
    bench = run_bench(data, entries, Path(out), config, overwrite=overwrite, mask_value=mask_value, progress=progress)
    return AblationReport(bench=bench, config=config, studies=studies, n_seeds=seeds)
