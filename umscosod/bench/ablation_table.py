"""An ablation as tables in Markdown and as JSON."""

from __future__ import annotations

import json
from typing import Any

from umscosod.bench.ablation import AblationReport, Spread
from umscosod.bench.results import SHOWN, TITLES
from umscosod.bench.save import make_finite
from umscosod.bench.studies import Study, Variant
from umscosod.bench.table import format_markdown, report_to_json, show_figure
from umscosod.config_io import config_to_dict
from umscosod.data.files import open_atomic
from umscosod.evaluation.report import Measure

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
