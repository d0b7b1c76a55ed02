"""The command line: what is passed on, who wins over whom, what is said, and the exit codes."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from umscosod import cli
from umscosod.cli.console import LineHandler, ProgressBar, format_label_report, say
from umscosod.cli.parser import parse
from umscosod.config import PipelineConfig
from umscosod.config.schema import settings
from umscosod.errors import ConfigError, DataError
from umscosod.features.cache import FeatureCache
from umscosod.types import Labelled, Status

ROOT = Path(cli.__file__).resolve().parents[2]
LABEL = ["label", "photos", "--out", "result"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the pipeline hands back after labelling or training."""

    rows: tuple[Labelled, ...]
    out: Path = Path("result")
    notes: tuple[str, ...] = ()
    seconds: float = 3.0
    checkpoint: Path = Path("result/run/checkpoint")
    steps: int = 4
    final_loss: float = 0.25

    @property
    def counts(self) -> dict[Status, int]:
        return dict(Counter(row.status for row in self.rows))

    @property
    def exit_code(self) -> int:
        if not self.counts.get(Status.LABELLED):
            return 3
        return int(bool(self.counts.get(Status.FAILED)))


def row(name: str, status: Status = Status.LABELLED, reason: str = "") -> Labelled:
    return Labelled(image_id=name, group="g", output=f"{name}.png", status=status, reason=reason)


class Pipeline(ModuleType):
    """Stands in for `umscosod.pipeline`: notes each call, hands back `report` or raises it."""

    def __init__(self) -> None:
        super().__init__("umscosod.pipeline")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.report: Report | BaseException = Report(rows=(row("a"),))

    def __getattr__(self, name: str) -> Any:
        if name not in {"label_groups", "make_pseudo_labels", "train", "predict"}:
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Report:
            kwargs.pop("progress")(1, 2, "features")
            self.calls.append((name, args, kwargs))
            if isinstance(self.report, BaseException):
                raise self.report
            return self.report

        return call


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    module = Pipeline()
    monkeypatch.setitem(sys.modules, "umscosod.pipeline", module)
    return module


def config_of(*flags: str) -> PipelineConfig:
    return parse([*LABEL, *flags])[1]


# what is passed on


def test_label_passes_everything_on(pipeline: Pipeline) -> None:
    assert cli.main([*LABEL, "--overwrite", "--seed", "5", "--config.refine.crf.iterations", "3"]) == 0
    [(name, args, kwargs)] = pipeline.calls
    images, out, config = args
    assert (name, images, out) == ("label_groups", Path("photos"), Path("result"))
    assert (config.seed, config.refine.crf.iterations) == (5, 3)
    assert kwargs == {"checkpoint": None, "examples": None, "train": None, "engine": None, "overwrite": True}


def test_of_several_processes_only_train_is_taken_and_the_first_reports(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.report = Report(rows=(row("a", Status.FAILED),))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, (code, said) in enumerate([(1, True), (0, False)]):  # another code of the second would end the first
        monkeypatch.setenv("RANK", str(rank))
        assert cli.main(LABEL) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: WORLD_SIZE is 2, but only 'umscosod train' is done by several processes")
        assert (out, err.count("\n")) == ("", 1)
        assert cli.main(["train", "photos", "--pseudo", "p", "--out", "o"]) == code
        assert ("4 steps" in capsys.readouterr().out) is said
    assert [name for name, *_ in pipeline.calls] == ["train", "train"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ["--train", "auto"],
            {"checkpoint": None, "examples": None, "train": None, "engine": None, "overwrite": False},
        ),
        (
            ["--train", "always"],
            {"checkpoint": None, "examples": None, "train": True, "engine": None, "overwrite": False},
        ),
        (
            ["--train", "never"],
            {"checkpoint": None, "examples": None, "train": False, "engine": None, "overwrite": False},
        ),
        (["--no-train"], {"checkpoint": None, "examples": None, "train": False, "engine": None, "overwrite": False}),
        (
            ["--checkpoint", "net"],
            {"checkpoint": Path("net"), "examples": None, "train": None, "engine": None, "overwrite": False},
        ),
    ],
)
def test_label_trains_as_it_is_told(pipeline: Pipeline, flags: list[str], expected: dict[str, Any]) -> None:
    assert cli.main([*LABEL, *flags]) == 0
    assert pipeline.calls[0][2] == expected


def test_the_other_stages_pass_their_folders_on(pipeline: Pipeline) -> None:
    assert cli.main(["pseudo", "photos", "--out", "o"]) == 0
    assert cli.main(["train", "photos", "--pseudo", "p", "--out", "o", "--overwrite"]) == 0
    assert cli.main(["predict", "list.csv", "--checkpoint", "net", "--out", "o"]) == 0
    assert [(name, args[:-1]) for name, args, _ in pipeline.calls] == [
        ("make_pseudo_labels", (Path("photos"), Path("o"))),
        ("train", (Path("photos"), Path("p"), Path("o"))),
        ("predict", (Path("list.csv"), Path("o"), Path("net"))),
    ]
    assert [kwargs["overwrite"] for _, _, kwargs in pipeline.calls] == [False, True, False]


@pytest.mark.parametrize(
    "flags",
    [
        ["--checkpoint", "net", "--no-train"],
        ["--checkpoint", "net", "--train", "always"],
        ["--train", "always", "--no-train"],
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert cli.main([*LABEL, *flags]) == 2
    assert "contradict" in capsys.readouterr().err


def test_export_writes_what_was_labelled_and_says_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from umscosod.export.png import write_mask
    from umscosod.export.report import write_report

    write_mask(tmp_path / "out" / "masks" / "a.png", np.ones((4, 6), bool))
    rows = [Labelled(image_id="a.jpg", group="g", output="a.png", status=Status.LABELLED)]
    write_report(tmp_path / "out" / "report.json", rows, {})
    line = ["export", str(tmp_path / "out"), "--to", str(tmp_path / "coco"), "--format", "coco", "--category", "bird"]
    assert cli.main(line) == 0
    assert f"1 image with 1 object exported to {tmp_path / 'coco'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "coco" / "instances.json").read_text())["categories"][0]["name"] == "bird"
    assert cli.main(line) == 2  # the folder is in use
    failed = Labelled(image_id="b.jpg", group="g", output="b.png", status=Status.FAILED, reason="no image")
    write_report(tmp_path / "out" / "report.json", [*rows, failed], {})
    assert cli.main([*line, "--overwrite", "--per-group"]) == 1
    assert "1 left out: b.jpg: failed (no image)" in capsys.readouterr().out
    write_report(tmp_path / "out" / "report.json", [failed], {})
    assert cli.main([*line, "--overwrite"]) == 3


# who wins over whom


def test_flags_win_over_file_over_preset_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("train: {epochs: 7, batch_images: 3}\nrefine: {th0: 0.4}\n", encoding="utf-8")
    flags = ["--preset", "smoke", f"--config-file={file}", "--config.train.batch_images", "2"]
    config = config_of(*flags)
    assert config.network.decoder.channels == 8  # preset
    assert (config.train.epochs, config.refine.th0) == (7, 0.4)  # file
    assert config.train.batch_images == 2  # flag, spelt with an underscore
    assert config.train.learning_rate == PipelineConfig().train.learning_rate


def test_a_flag_with_the_default_value_still_wins_over_the_preset() -> None:
    default = PipelineConfig().network.decoder.channels
    assert default != config_of("--preset", "smoke").network.decoder.channels
    config = config_of("--preset", "smoke", "--config.network.decoder.channels", str(default))
    assert config.network.decoder.channels == default


def test_short_flags_stand_for_long_ones() -> None:
    config = config_of("--device", "cpu", "--seed", "9", "--backbone", "dino_vits8", "--weights", "w.pth")
    assert (config.device, config.seed) == ("cpu", 9)
    assert (config.features.backbone, config.features.weights) == ("dino_vits8", "w.pth")
    assert config_of("--preset", "paper", "--backbone", "embedded").features.backbone == "embedded"


def test_short_and_long_flag_must_not_contradict_each_other() -> None:
    assert config_of("--seed", "4", "--config.seed", "4").seed == 4
    with pytest.raises(ConfigError, match=r"--seed 3 and --config\.seed 4 contradict"):
        config_of("--seed", "3", "--config.seed", "4")


def test_lists_switches_choices_and_negative_numbers() -> None:
    config = config_of(
        *("--config.pseudo.hac-thresholds", "0.3", "0.1"),
        *("--config.refine.th-clamp", "0", "2"),
        "--config.refine.no-keep-best",
        *("--config.network.cfmm.rm-relu", "eval"),
        *("--config.refine.sim-th", "-0.5"),
    )
    assert config.pseudo.hac_thresholds == (0.3, 0.1)
    assert config.refine.th_clamp == (0.0, 2.0)
    assert not config.refine.keep_best
    assert (config.network.cfmm.rm_relu, config.refine.sim_th) == ("eval", -0.5)


# what is refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.refine.crf.iterations", "0"], "refine.crf.iterations must be >= 1 and <= 100, got 0"),
        (["--preset", "papr"], "did you mean 'paper'"),
        (["--config.refine.connectivity", "4"], "refine.connectivity is no setting any more; its value is fixed at 8"),
        (["--config.train.no-mirror"], "train.mirror is no setting any more; its value is fixed at False"),
        (["--config-file", "absent.yaml"], "absent.yaml cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*LABEL, *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "photos"], "--out"),
        (["lable", "photos"], "label"),
        ([*LABEL, "--config.refine.crf.iteratons", "3"], "--config.refine.crf.iterations"),
        ([*LABEL, "--config.train.epochs", "many"], "--config.train.epochs"),
        (["evaluate", "a", "b", "--definition", "mine"], "cosod"),
        ([*LABEL, "--preset"], "--preset"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_flag(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_of_the_library_is_one_line_without_traceback(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.report = DataError("photos: no images found;\n give a folder")
    assert cli.main(LABEL) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: photos: no images found; give a folder"
    with pytest.raises(DataError):
        cli.main([*LABEL, "--debug"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "error: not enough memory; close other programs"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "error: not enough memory; close"),
        (ImportError("libtorch_cpu.so: failed to map segment"), "error: a library cannot be loaded (libtorch_cpu.so: "),
    ],
)
def test_too_little_memory_is_one_line(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    pipeline.report = error
    assert cli.main(LABEL) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(message)


def test_a_fault_of_ours_keeps_its_traceback(pipeline: Pipeline) -> None:
    pipeline.report = RuntimeError("tensors of other shapes")
    with pytest.raises(RuntimeError):
        cli.main(LABEL)


def test_an_interrupted_run_says_how_to_go_on(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.report = KeyboardInterrupt()
    assert cli.main(LABEL) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; the same command resumes from what was written"


# what is said


def test_the_help_fits_one_screen_and_leads_to_the_rest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        cli.main(["label", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 40
    words = shown.replace("│", " ").split()
    flags = "IMAGES --out --checkpoint --train --overwrite --preset --device --seed --backbone --weights --help-all"
    assert set(flags.split()) <= set(words)
    assert "--config-file" not in words
    assert "--config.train.epochs" not in words


def test_all_help_has_every_setting_with_meaning_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["label", "--help-all"])
    assert caught.value.code == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, setting in settings().items():
        head, _, leaf = f"config.{name}".rpartition(".")
        assert f"--{head}.{leaf.replace('_', '-')}" in words
        assert " ".join(setting.meaning.split()) in words
        if setting.bounds:
            assert f"[{setting.bounds}]" in words


def test_the_help_shows_the_defaults_of_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["label", "--preset", "smoke", "--help-all"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Width of the decoder. [>= 4 and <= 512] (default: 8)" in words


@pytest.mark.parametrize("line", [["--help"], ["label", "--help"], ["label", "--help-all"]])
def test_help_needs_no_heavy_package(line: list[str]) -> None:
    code = (
        "import sys\nfrom umscosod.cli import main\n"
        f"try:\n    main({line})\nexcept SystemExit:\n    pass\n"
        "heavy = [n for n in ('torch', 'timm', 'fiftyone', 'cv2', 'scipy', 'skimage') if n in sys.modules]\n"
        "print(heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr.strip() == "[]"


def test_version_and_bare_call(capsys: pytest.CaptureFixture[str]) -> None:
    from umscosod import __version__

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"umscosod {__version__}\n"
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 0
    assert "evaluate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.LABELLED, Status.EMPTY, Status.SKIPPED], 0),
        ([Status.LABELLED, Status.FAILED], 1),
        ([Status.EMPTY, Status.FAILED], 3),
        ([], 3),
    ],
)
def test_exit_code_says_what_became_of_the_images(pipeline: Pipeline, statuses: list[Status], code: int) -> None:
    pipeline.report = Report(rows=tuple(row(str(i), status) for i, status in enumerate(statuses)))
    assert cli.main(LABEL) == code


def test_the_end_report_counts_gives_reasons_and_places(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    bad = [row(f"g/{i}.jpg", Status.FAILED, "zero bytes") for i in range(22)]
    rows = (row("g/a.jpg"), row("g/b.jpg", Status.EMPTY, "nothing stands out"), *bad)
    text = format_label_report(Report(rows=rows, out=tmp_path, notes=("auto: no weights",), seconds=12.0))
    lines = text.splitlines()
    assert lines[0] == "note: auto: no weights"
    assert "  g/0.jpg: zero bytes" in lines
    assert "  ... and 2 more: see report.json" in lines
    assert "  g/b.jpg: nothing stands out" in lines
    assert "1 labelled, 1 empty, 22 failed, 0 skipped of 24 images; 12.0 s, 0.50 s an image" in lines
    assert [line.split()[-1] for line in lines[-2:]] == [str(tmp_path / "masks"), str(tmp_path / "report.json")]


def test_training_reports_its_checkpoint_and_failures(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "photos", "--pseudo", "p", "--out", "o"]
    assert cli.main(arguments) == 0
    assert str(Path("result/run/checkpoint")) in capsys.readouterr().out
    pipeline.report = Report(rows=(row("a", Status.FAILED, "torn"),))
    assert cli.main(arguments) == 1
    assert "a: torn" in capsys.readouterr().out


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    code = "import sys, umscosod.cli as c; c._print_any_name(); print('caf\\u00e9 \\udcff')"
    environment = {"PYTHONIOENCODING": "ascii", "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment, check=False)
    assert done.stdout.split() == [b"caf\\xe9", b"\\udcff"], done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_with_the_time_left_on_a_terminal() -> None:
    stream = Terminal()
    with ProgressBar(stream) as progress:
        progress(0, 4, "features")
        progress(4, 4, "features")
        progress(0, 2, "train")
    text = stream.getvalue()
    assert "features: 100%" in text
    assert "4/4 [" in text
    assert "train:   0%" in text


def test_a_terminal_that_claims_no_size_gets_a_bar_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty", reason="terminals of this kind exist on POSIX only")
    reader, writer = pty.openpty()
    with os.fdopen(reader, "rb", buffering=0) as screen, os.fdopen(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressBar() as progress:
            progress(2, 4, "features")
        seen = b""  # a terminal hands over what was written in as many pieces as it likes
        while b"50%" not in seen and select.select([screen], [], [], 30)[0]:
            seen += screen.read(4096)
        assert b"features:  50%" in seen


def test_progress_is_a_line_a_stage_without_a_terminal() -> None:
    stream = io.StringIO()
    with ProgressBar(stream) as progress:
        for done in range(4):
            progress(done, 3, "features")
        progress(1, 2, "train")
    assert stream.getvalue() == "features: 3 to do\ntrain: 2 to do\n"


def test_log_messages_are_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("umscosod.x", logging.WARNING, "f", 1, "two\n  lines %d", (7,), None)
    LineHandler().emit(record)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: two lines 7\n")


def test_warnings_are_said_and_information_only_on_request() -> None:
    code = (
        "import logging, warnings\nfrom umscosod.cli.console import set_up_logging\n"
        "set_up_logging(verbose={})\nlog = logging.getLogger('umscosod.a')\n"
        "log.info('chosen')\nlog.warning('odd')\nlogging.getLogger('other').info('noise')\nwarnings.warn('old')\n"
    )
    said = []
    for verbose in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", code.format(verbose)], capture_output=True, text=True, cwd=ROOT, check=False
        )
        said.append(done.stderr.splitlines())
    assert said[0][0] == "warning: odd"
    assert said[0][1].startswith("warning: ")
    assert "old" in said[0][1]
    assert said[1][:2] == ["info: chosen", "warning: odd"]


# the commands that need no pipeline


def save_mask(path: Path, fill: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :fill] = 255
    Image.fromarray(pixels).save(path)


def test_evaluate_prints_a_table_json_and_the_worst(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pred, gt in (("cat/1", 4, 4), ("cat/2", 2, 4)):
        save_mask(tmp_path / "pred" / f"{name}.png", pred)
        save_mask(tmp_path / "gt" / f"{name}.png", gt)
    folders = [str(tmp_path / "pred"), str(tmp_path / "gt")]
    assert cli.main(["evaluate", *folders, "--worst", "1"]) == 0
    table = capsys.readouterr().out
    assert "definition: cosod" in table
    assert table.splitlines()[-1].split() == ["0.5000", "cat/2"]
    assert cli.main(["evaluate", *folders, "--json", "--definition", "sod"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["definition"] == "sod"
    assert scores["dataset"]["iou"] == pytest.approx(0.75)  # mean of 1 and 1/2
    assert scores["groups"]["cat"]["n"] == 2
    assert cli.main(["evaluate", folders[0], str(tmp_path / "absent")]) == 2


def make_photos(folder: Path) -> Path:
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        (folder / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "cat" / f"{number}.png")
    return folder


def test_features_are_estimated_encoded_and_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, cache = make_photos(tmp_path / "photos"), tmp_path / "cache"
    flags = ["--preset", "smoke", "--config.features.cache-dir", str(cache)]
    assert cli.main(["features", "estimate", str(photos), *flags]) == 0
    estimated = capsys.readouterr().out
    assert "2 images in 1 group" in estimated
    assert not cache.exists()
    (photos / "cat" / "torn.jpg").write_bytes(b"")
    assert cli.main(["features", "encode", str(photos), *flags]) == 1
    out = capsys.readouterr().out
    assert "failed: cat/torn.jpg" in out
    assert "2 of 3 images encoded" in out
    stats = FeatureCache(cache).stats()
    each, unit = estimated.partition(" each")[0].split()[-2:]
    assert stats.bytes == pytest.approx(2 * float(each) * {"KB": 1e3, "MB": 1e6}[unit], rel=0.05)
    assert cli.main(["features", "prune", "--max-gb", "0", "--cache-dir", str(cache)]) == 0
    assert FeatureCache(cache).stats().files == 0
    assert " 0.00 GB" not in out


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e300", "1e10"])
def test_prune_refuses_sizes_that_no_disk_has(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["features", "prune", f"--max-gb={value}"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: --max-gb must be a number of GB from 0 to 1e9, got {float(value)}\n"


def test_presets_are_shown_by_difference_or_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets"]) == 0
    listed = capsys.readouterr().out
    assert "# paper" in listed
    assert "network.cfmm.init: kaiming" in listed
    assert cli.main(["presets", "paper"]) == 0
    file = tmp_path / "paper.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert config_of("--config-file", str(file)) == config_of("--preset", "paper")


def test_doctor_fails_only_where_something_required_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from umscosod import doctor

    checks = [doctor.Check(name="a", ok=True, message="fine"), doctor.Check(name="b", ok=None, message="x", cure="y")]
    monkeypatch.setattr(doctor, "run_checks", lambda: checks)
    assert cli.main(["doctor"]) == 0
    assert "cure: y" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "run_checks", lambda: [doctor.Check(name="c", ok=False, message="x", cure="y")])
    assert cli.main(["doctor"]) == 1


def test_the_plugin_is_linked_once_and_nothing_of_the_users_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "plugins"))
    link = tmp_path / "plugins" / "fiftyone-umscosod"
    assert cli.main(["plugin", "info"]) == 0
    assert "not linked" in capsys.readouterr().out
    assert cli.main(["plugin", "install"]) == 0
    assert (link / "fiftyone.yml").is_file()
    assert link.resolve() == ROOT
    assert cli.main(["plugin", "install"]) == 0  # again: nothing to do
    link.unlink()
    link.symlink_to(tmp_path, target_is_directory=True)
    assert cli.main(["plugin", "install"]) == 2
    assert link.resolve() == tmp_path
    assert cli.main(["plugin", "install", "--overwrite"]) == 0
    assert link.resolve() == ROOT
    link.unlink()
    link.mkdir()
    assert cli.main(["plugin", "install", "--overwrite"]) == 2
    assert link.is_dir()


def test_where_fiftyone_looks_for_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from umscosod.integrations.plugin_link import find_plugin_source, find_plugins_dir

    settings_file = tmp_path / "config.json"
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(settings_file))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FIFTYONE_PLUGINS_DIR")
    monkeypatch.delenv("FIFTYONE_DEFAULT_DATASET_DIR")
    assert find_plugins_dir() == tmp_path / "fiftyone" / "__plugins__"
    settings_file.write_text('{"plugins_dir": "~/mine"}', encoding="utf-8")
    assert find_plugins_dir() == tmp_path / "mine"
    packaged = tmp_path / "site-packages" / "umscosod"
    (packaged / "_plugin").mkdir(parents=True)
    (packaged / "_plugin" / "fiftyone.yml").write_text("", encoding="utf-8")
    assert find_plugin_source(packaged) == packaged / "_plugin"


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert cli.main(["presets"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert cli.main(["presets"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


HOSTILE = "cat\x1b[2J\x07\x9b1m\x7f.jpg"
ESCAPED = r"cat\u001b[2J\u0007\u009b1m\u007f.jpg"


def test_control_characters_of_names_reach_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed = format_label_report(Report(rows=(row(HOSTILE, Status.FAILED, f"{HOSTILE}: bad\nfile"),)))
    say(printed)
    LineHandler().handle(logging.makeLogRecord({"msg": f"{HOSTILE} is\nodd  here", "levelno": logging.WARNING}))
    assert cli.main(["evaluate", str(tmp_path), str(tmp_path / HOSTILE)]) == 2
    with ProgressBar() as progress:
        progress(0, 1, HOSTILE)
    out, err = capsys.readouterr()
    assert f"  {ESCAPED}: {ESCAPED}: bad file" in out
    assert f"{ESCAPED} is odd  here\n" in err
    assert f"error: ground truth folder {tmp_path / ESCAPED} does not exist" in err
    assert f"{ESCAPED}: 1 to do" in err
    assert not any(mark in out + err for mark in "\x1b\x07\x9b\x7f")


def test_json_with_control_characters_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    say(json.dumps({"name": HOSTILE}, ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == {"name": HOSTILE}


@pytest.mark.parametrize(
    "line",
    [
        ["label", "", "--out", "o"],
        ["label", "photos", "--out", ""],
        ["label", "photos", "--out="],
        ["train", "photos", "--pseudo", "", "--out", "o"],
        ["evaluate", "", "gt"],
        ["export", "", "--to", "o", "--format", "png"],
        ["export", "o", "--to", "", "--format", "png"],
        ["discover", "photos", "--out", ""],
        ["bench", "", "--out", "o"],
        ["bench", "data", "--out", ""],
        [*LABEL, "--config-file", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_folder(capsys: pytest.CaptureFixture[str], line: list[str]) -> None:
    assert cli.main(line) == 2
    assert capsys.readouterr().err == (
        "error: a path on the command line is empty (''); name a folder or file, or leave its flag out\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        [*LABEL, "--config.train.epochs"],
        [*LABEL, "--seed"],
        ["evaluate", "pred", "gt", "--worst"],
        ["discover", "photos", "--out", "list.csv", "--n-groups"],
    ],
    ids=" ".join,
)
def test_a_number_that_python_does_not_read_is_one_line_of_ours(
    capsys: pytest.CaptureFixture[str], line: list[str]
) -> None:
    assert cli.main([*line, "9" * 5000]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: a number on the command line has 5000 characters (")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        cli.main([*line, "1.5"])  # no whole number: the parser's to refuse


@pytest.mark.parametrize("verb", ["label", "pseudo", "train", "predict", "refine", "export", "bench", "discover"])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file", "is a file, not a folder"),
        ("file/x", "is a file, not a folder"),
        ("loop", "is a link that leads to no folder"),
        ("job/run", "lies among the results in"),
        ("job/masks/cat", "lies among the results in"),
    ],
)
def test_results_are_refused_where_they_may_not_lie_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str, place: str, words: str
) -> None:
    for name in ("photos/cat/1.jpg", "file", "job/run/job.json", "job/masks/cat/1.png", "job/maps/cat/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "job" / "report.json").write_text('{"schema": 1, "images": []}')
    (tmp_path / "job" / "run" / "meta.json").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    job, out = str(tmp_path / "job"), str(tmp_path / place)
    options = {
        "train": ["--pseudo", job],
        "predict": ["--checkpoint", f"{job}/run"],
        "refine": ["--maps", job],
        "export": ["--format", "png"],
    }
    flag, given = ("--to", job) if verb == "export" else ("--out", str(tmp_path / "photos"))
    out = f"{out}/list.csv" if verb == "discover" else out
    assert cli.main([verb, given, *options.get(verb, []), flag, out]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
