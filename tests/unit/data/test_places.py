"""Where results may lie, and how they are recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from umscosod.data.files import check_place, kind_of_results, real_path
from umscosod.errors import DataError

JOB = '{"settings": {"schema": 1}, "bound": {}}'
EXPORT = '{"schema": 1, "format": "png", "files": []}'


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_json", ".json").replace("_html", ".html").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"run__job_json": JOB}, "job"),
        ({"run__job_json": "{torn"}, "job"),
        ({"run__job_json": "[" * 100_000}, "job"),
        ({"run__job_json": '{"jobs": ["of somebody else"]}'}, ""),
        ({"report_json": "", "index_html": "", "masks__a": ""}, "job"),
        ({"export_json": EXPORT}, "export"),
        ({"export_json": "[]"}, ""),
        ({"bench_json": "", "bench_md": "", "index_html": ""}, "bench"),
        ({"index_html": "", "report_json": ""}, ""),
    ],
)
def test_results_are_recognised_by_their_record(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    assert kind_of_results(write(tmp_path, **files)) == kind


def test_a_missing_folder_holds_no_results(tmp_path: Path) -> None:
    assert kind_of_results(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"--out '' is empty; name a folder"),
        ("a\x00b", r"--out 'a\\x00b' has a NUL; choose another name"),
        ("n" * 300, r"--out .* has a part of more than 255 bytes; choose a shorter name"),
        ("file", r"--out .*file is a file, not a folder; choose another --out"),
        ("file/below", r"--out .*below: .*file is a file, not a folder"),
        ("loop", r"--out .*loop is a link that leads to no folder"),
        ("loop/below", r"--out .*below: .*loop is a link that leads to no folder"),
        ("dangling", r"--out .*dangling is a link that leads to no folder"),
        ("job/run", r"--out .*run lies among the results in .*job"),
        ("job/masks/cat", r"--out .*cat lies among the results in .*job"),
        ("linked/masks/cat/new", r"--out .*new lies among the results in .*job"),
        ("export/images/new", r"--out .*new lies among the results in .*export"),
        ("export", r"--out .*export holds the results of an export"),
        ("a/" * 2500 + "a", r"--out .*a/?\.\.\. has \d{4} bytes; choose a shorter name"),
    ],
)
def test_places_that_cannot_hold_results_are_refused_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / "job", run__job_json=JOB)
    write(tmp_path / "export", export_json=EXPORT)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "linked").symlink_to("job")
    with pytest.raises(DataError, match=message) as caught:
        check_place(f"{tmp_path}/{name}" if name and "\x00" not in name else name, "job")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["new", "new/deep", "job", "job/beside"])
def test_other_places_are_free(tmp_path: Path, name: str) -> None:
    write(tmp_path / "job", run__job_json=JOB)
    check_place(tmp_path / name, "job")


def test_a_circle_of_links_has_a_real_path(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert real_path(tmp_path / "loop") == tmp_path / "loop"
    assert real_path("a\x00b").name == "a\x00b"


def test_a_folder_that_may_not_be_looked_into_is_left_to_who_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    check_place(tmp_path / "closed" / "out", "job")
