"""An ablation on a tiny data set: rows do what they say, figures by hand, nothing done twice, failures kept apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs import quick_config, read_tree, select
from tests.synthetic import tiny_collection
from umscosod.bench import ablation
from umscosod.bench.ablation import (
    LABELS,
    MODULES,
    AblationReport,
    Study,
    format_ablation,
    run_ablation,
    save_ablation,
)
from umscosod.bench.entries import Entry
from umscosod.bench.run import run_bench
from umscosod.bench.table import BenchReport, Cell
from umscosod.cli import main
from umscosod.config import PipelineConfig
from umscosod.config.io import change_config
from umscosod.errors import ConfigError, DataError
from umscosod.evaluation import Evaluation, evaluate
from umscosod.evaluation.scores import Scores
from umscosod.pipeline import label_groups

SWITCHES = ("network.afmm.enabled", "network.cfmm.enabled", "network.fram.enabled", "refine.enabled")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    config = quick_config(tmp_path_factory.mktemp("cache"))
    return replace(config, train=replace(config.train, epochs=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tiny"
    tiny_collection(root, groups=1, images=3, size=96)
    return root


def cut(study: Study, *names: str) -> Study:
    """A study with some of its rows only: every row costs seconds."""
    return replace(study, variants=tuple(row for row in study.variants if row.name in names))


CUT = (cut(LABELS, "masks-only", "cm-splg-cleaned-probe"), cut(MODULES, "afmm-cfmm-fram", "all"))


@pytest.fixture(scope="module")
def few_rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "STUDIES", {"labels": CUT[:1], "modules": CUT[1:], "all": CUT})
        yield


@pytest.fixture(scope="module")
def done(
    data: Path, config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory, few_rows: None
) -> tuple[AblationReport, str]:
    """Both studies, cut short, with two seeds; and the tables."""
    report = run_ablation([data], tmp_path_factory.mktemp("ablation"), config, seeds=2)
    return report, save_ablation(report)


def value_of(config: PipelineConfig, name: str) -> Any:
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("given", [True, False])
def test_each_module_row_switches_what_its_title_says_whatever_is_given(given: bool) -> None:
    base = change_config(PipelineConfig(keep="pseudo"), dict.fromkeys(SWITCHES, given))
    *rows, default = MODULES.variants
    found = {}
    for row in rows:
        resolved = change_config(base, row.settings)
        assert (resolved.method, resolved.keep) == ("ums", "network")
        on = tuple(value_of(resolved, name) for name in SWITCHES)
        named = row.title.split(" + ") if "+" in row.title else []
        expected = [name in named for name in ("AFMM", "CFMM", "FRAM", "RRBE")]
        assert list(on) == ([True] * 4 if row.title == "all four" else expected)
        found[row.name] = on
        if row.network_of:  # the network is the other's: nothing before refinement may differ
            assert found[row.network_of][:3] == on[:3]
            assert found[row.network_of][3] is False
            assert resolved.pseudo == base.pseudo
    assert len(set(found.values())) == len(rows)
    assert change_config(base, default.settings) == base


def test_each_label_row_changes_what_its_title_says() -> None:
    base = PipelineConfig(seed=5)
    rows = {row.title: change_config(base, row.settings) for row in LABELS.variants}
    assert rows["attention only"].method == "attention"
    assert rows["masks only"].pseudo.select == "masks"
    assert rows["CM-SPLG, no categories"].pseudo.category_distance < 1e-3
    assert rows["CM-SPLG, no categories"].pseudo.top_k > 1000
    assert rows["CM-SPLG, k = 1"].pseudo.top_k == 1
    assert rows["CM-SPLG, every k"].pseudo.top_k > 1000
    assert rows["CM-SPLG, every k"].pseudo.category_distance == base.pseudo.category_distance
    assert rows["CM-SPLG"].pseudo == base.pseudo
    assert {rows[title].method for title in rows if title.startswith("CM-SPLG") and "cleaning" not in title} == {
        "pseudo"
    }
    cleaned, probed = rows["CM-SPLG + group cleaning"], rows["CM-SPLG + group cleaning + probe"]
    assert (cleaned.method, cleaned.pseudo.clean, cleaned.pseudo.probe) == ("ums", "prototype", "none")
    assert (probed.method, probed.pseudo.clean, probed.pseudo.probe) == ("ums", "prototype", "linear")
    assert rows["default, not trained"] == base
    assert all(resolved.refine == base.refine for resolved in rows.values())
    trained = [row.title for row in LABELS.variants if row.train and rows[row.title].method == "ums"]
    assert trained == []


def test_names_are_folders_of_their_own_and_seeds_follow_the_first() -> None:
    entries = [entry for study in (LABELS, MODULES) for entry in study.entries(7, 3)]
    assert len({entry.name for entry in entries}) == len(entries) == len(LABELS.variants) + 3 * len(MODULES.variants)
    assert {entry.settings["seed"] for entry in entries if entry.name.startswith("none-")} == {7, 8, 9}
    assert {entry.settings["seed"] for entry in LABELS.entries(7, 3)} == {7}
    names = [entry.name for entry in entries]
    for place, entry in enumerate(entries):
        assert not entry.network_of or entry.network_of in names[:place]


def test_rows_are_jobs_with_their_settings_and_scores_those_of_evaluate(
    done: tuple[AblationReport, str], data: Path, config: PipelineConfig
) -> None:
    report, _ = done
    assert report.bench.exit_code == 0
    for study in report.studies:
        for entry in study.entries(config.seed, 2):
            folder = report.bench.out / "tiny" / entry.name
            settings = json.loads((folder / "run" / "job.json").read_bytes())["settings"]
            for name, value in entry.settings.items():
                stored = settings["config"]
                for part in name.split("."):
                    stored = stored[part]
                assert stored == value
            assert settings["verb"] == ("predict" if entry.network_of else "label")
            trains = study.is_trained and not entry.network_of
            assert (folder / "run" / "checkpoints").is_dir() is trains
            cell = report.bench.cell("tiny", entry.name).masks
            assert cell is not None
            assert cell.dataset == evaluate(folder / "masks", data / "gt").dataset


def test_a_row_with_anothers_network_has_the_masks_it_would_have_trained_itself(
    done: tuple[AblationReport, str], data: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    row = next(one for one in MODULES.variants if one.name == "all")
    label_groups(data / "image", tmp_path, change_config(config, row.settings))
    shared = read_tree(done[0].bench.out / "tiny" / f"all-seed{config.seed}")
    own = read_tree(tmp_path)
    assert select(shared, "masks", "maps") == select(own, "masks", "maps")
    assert len(select(own, "masks")) == 3


def test_seeds_train_other_networks(done: tuple[AblationReport, str], config: PipelineConfig) -> None:
    first, second = (
        select(read_tree(done[0].bench.out / "tiny" / f"all-seed{config.seed + step}"), "maps") for step in (0, 1)
    )
    assert first.keys() == second.keys()
    assert first != second


def made_up(cells: dict[tuple[str, str], float | None]) -> BenchReport:
    """A bench whose every measure is the figure given, or failed."""

    def evaluation(figure: float) -> Evaluation:
        zeros = dict.fromkeys(
            ("mae", "f_max", "f_mean", "f_adaptive", "e_max", "e_mean", "e_adaptive", "s", "iou"), figure
        )
        scores = Scores(n=1, undefined_s=0, **zeros)
        found = Evaluation.__new__(Evaluation)  # the curves are of no concern here
        object.__setattr__(found, "dataset", scores)
        object.__setattr__(found, "groups", {})
        object.__setattr__(found, "definition", "cosod")
        return found

    def cell(dataset: str, method: str, figure: float | None) -> Cell:
        if figure is None:
            return Cell(dataset=dataset, method=method, error="made to fail")
        return Cell(dataset=dataset, method=method, masks=evaluation(figure), maps=evaluation(figure / 2))

    return BenchReport(
        out=Path("nowhere"),
        methods=tuple(dict.fromkeys(method for _, method in cells)),
        cells=tuple(cell(*key, figure) for key, figure in cells.items()),
        encoding={},
        facts={"definition": "cosod"},
        backbones=("x", "y"),
    )


def test_mean_and_deviation_by_hand() -> None:
    rows = tuple(Entry(name=name, title=name.upper()) for name in ("x", "y"))
    study = Study(name="s", title="S", variants=rows, is_trained=True)
    bench = made_up(
        {
            ("a", "x-seed1"): 0.2, ("a", "x-seed2"): 0.4, ("b", "x-seed1"): 0.6, ("b", "x-seed2"): 0.6,
            ("a", "y-seed1"): 0.2, ("a", "y-seed2"): 0.3, ("b", "y-seed1"): 0.5, ("b", "y-seed2"): None,
        }
    )  # fmt: skip
    report = AblationReport(bench=bench, config=PipelineConfig(seed=1), studies=(study,), n_seeds=2)
    assert report.figures(study, rows[0], "iou") == pytest.approx((0.4, 0.5))  # a mean over data sets for each seed
    assert report.figures(study, rows[0], "iou", "a") == pytest.approx((0.2, 0.4))
    assert report.mean_of_maps(study, rows[0], "s", None) == pytest.approx(0.225)
    assert report.figures(study, rows[1], "iou") == ()  # one job failed
    assert report.figures(study, rows[1], "iou", "b") == ()
    assert report.bench.exit_code == 1
    text = format_ablation(report)
    lines = text.split("### Mean of 2 data sets, final masks")[1].splitlines()
    assert next(line for line in lines if line.startswith("| X ")).count("0.450 ± 0.071") == 5
    assert next(line for line in lines if line.startswith("| Y ")).split("|")[2].strip() == "-"
    assert "Mean ± sample standard deviation over 2 seeds (1, 2)" in text
    assert "- b, y-seed2: made to fail" in text


def test_the_files_hold_the_figures(done: tuple[AblationReport, str], config: PipelineConfig) -> None:
    report, text = done
    assert (report.bench.out / "ablation.md").read_text(encoding="utf-8") == text
    stored = json.loads((report.bench.out / "ablation.json").read_bytes())
    assert [study["name"] for study in stored["studies"]] == ["labels", "modules"]
    assert [study["seeds"] for study in stored["studies"]] == [[config.seed], [config.seed, config.seed + 1]]
    labels, modules = stored["studies"]
    assert len(labels["rows"][0]["masks"]["mean"]["iou"]["values"]) == 1
    row = modules["rows"][-1]
    values = row["masks"]["datasets"]["tiny"]["iou"]["values"]
    cells = [report.bench.cell("tiny", f"all-seed{config.seed + step}").figure("iou") for step in (0, 1)]
    assert values == cells
    assert row["masks"]["mean"]["iou"]["mean"] == pytest.approx(np.mean(values))
    assert row["masks"]["mean"]["iou"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert row["settings"]["network.fram.enabled"] is True
    assert row["network_of"] == "afmm-cfmm-fram"
    assert f"One seed, {config.seed}: no network is trained." in text
    assert "Mean of" not in text  # one data set


def test_the_same_call_again_computes_nothing(
    done: tuple[AblationReport, str], data: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, text = done
    before = read_tree(report.bench.out)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("there was nothing left to do")

    for name in ("training_stage", "label_source"):
        monkeypatch.setattr(f"umscosod.pipeline.verbs.{name}", refuse)
    monkeypatch.setattr("umscosod.pipeline.segment.begin_refining", refuse)
    again = run_ablation([data], report.bench.out, config, seeds=2)
    assert format_ablation(again) == text
    after = read_tree(report.bench.out)
    outputs = [name for name in before if Path(name).parts[2:3] in (("masks",), ("maps",))]
    assert len(outputs) == 2 * 3 * 6
    assert all(after[name] == before[name] for name in outputs)


def test_what_fails_is_a_cell_and_ends_nothing_else(
    tmp_path: Path, data: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        Entry(name="breaks", settings={"method": "ums", "train.epochs": 2}),
        Entry(name="leans", settings={"method": "ums", "keep": "network"}, network_of="breaks"),
        Entry(name="stands", settings={"method": "attention"}),
    ]

    def fail(*_: object, **__: object) -> None:
        raise DataError("the disk is full")

    monkeypatch.setattr("umscosod.pipeline.verbs.training_stage", fail)
    report = run_bench([data, tmp_path / "missing"], entries, tmp_path / "out", config)
    assert report.cell("tiny", "breaks").error == "the disk is full"
    assert "network of breaks" in report.cell("tiny", "leans").error
    assert report.cell("tiny", "stands").masks is not None
    assert report.cell("missing", "stands").error
    assert report.exit_code == 1
    assert not (tmp_path / "out" / "tiny" / "leans").exists()


def test_wrong_questions_are_refused_before_anything_is_done(
    tmp_path: Path, data: Path, config: PipelineConfig
) -> None:
    with pytest.raises(ConfigError, match="--seeds must be >= 1, got 0"):
        run_ablation([data], tmp_path, config, seeds=0)
    with pytest.raises(ConfigError, match="unknown study 'colours'"):
        run_ablation([data], tmp_path, config, study="colours")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown key 'keeps'"):
        run_bench([data], [Entry(name="x", settings={"keeps": "network"})], tmp_path, config)
    assert not any(tmp_path.iterdir())


def test_the_command(
    tmp_path: Path, done: tuple[AblationReport, str], data: Path, config: PipelineConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = done[0].bench.out  # finished: the command finds its own results again
    line = ["ablate", str(data), "--preset", "smoke", "--device", "cpu", "--study", "labels"]
    line += ["--config.features.cache-dir", config.features.cache_dir]
    assert main([*line, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "## Pseudo-labels" in said
    assert "Modules" not in said
    assert "| masks only " in said
    assert str(out / "ablation.json") in said
    assert main([*line, "--out", str(tmp_path), "--seeds", "0"]) == 2
    assert "--seeds must be >= 1" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    nothing = [
        "ablate",
        str(tmp_path / "empty"),
        "--preset",
        "smoke",
        "--study",
        "labels",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(nothing) == 3
