"""The table of speed: what holds, what is compared, what a failing measure leaves. No row is measured here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import __main__ as program
from benchmarks import table
from benchmarks.rows import NEEDS_WEIGHTS, Given, Measure, Row, Spent, times_in_turn, without_weights
from benchmarks.run import MEASURES, collect

FAST = Row(name="fast", target=2.0, figure=3.0, command="run fast")
SMALL = Row(name="small", target=1.0, better="lower", unit="GB", figure=1.5, detail="of a lot")
ABSENT = Row(name="absent", target=1.0, detail=NEEDS_WEIGHTS)
BROKEN = Row(name="broken", is_failed=True, detail="OSError: no | room\nleft")
ROWS = [FAST, SMALL, ABSENT, BROKEN]


def test_a_figure_holds_on_the_good_side_of_its_target() -> None:
    assert [row.holds for row in ROWS] == [True, False, None, None]
    assert Row(name="even", target=2.0, figure=2.0).holds
    assert Row(name="even", target=2.0, figure=2.0, better="lower").holds
    assert Row(name="no number", target=2.0, figure=float("nan")).holds is False
    assert Row(name="no target", figure=2.0).holds is None


def test_the_table_shows_figures_verdicts_what_was_before_and_reasons() -> None:
    lines = table.markdown(ROWS, {"fast": Row(name="fast", figure=2.5)}).splitlines()
    assert lines[0] == "| row | target | figure | holds? | before | command |"
    assert lines[2] == "| fast | \u2265 2 x | 3 x | yes | 2.5 x | `run fast` |"
    assert lines[3] == "| small | \u2264 1 GB | 1.5 GB (of a lot) | **no** |  |  |"
    assert lines[4] == "| absent | \u2265 1 x | not run: needs --weights |  |  |  |"
    assert lines[5] == "| broken |  | failed: OSError: no / room left |  |  |  |"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.json"
    assert table.read_rows(file) == {}
    table.write_record(file, table.as_record(ROWS, table.machine_facts(), {"quick": True}))
    assert list(table.read_rows(file).values()) == ROWS
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["machine"]["cores"] >= 1
    assert [row["holds"] for row in record["rows"]] == [True, False, None, None]
    file.write_text(json.dumps({**record, "format": 0}))
    with pytest.raises(ValueError, match="format 0"):
        table.read_rows(file)


def test_rows_measured_anew_take_the_place_of_earlier_ones() -> None:
    before = {row.name: row for row in (FAST, SMALL)}
    again = Row(name="small", figure=0.5)
    assert table.merge(before, [Row(name="other"), again]) == [FAST, again, Row(name="other")]


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter"
    assert table.replace_between(page, "new") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter"
    for bad in ("no marks", f"{table.END}{table.BEGIN}", page + page):
        with pytest.raises(ValueError, match="once each"):
            table.replace_between(bad, "new")


def test_the_page_has_its_marks() -> None:
    table.replace_between(program.PAGE.read_text(encoding="utf-8"), "new")


def test_a_measure_that_fails_keeps_what_it_had_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(given: Given) -> Iterator[Row]:
        yield FAST
        raise OSError("the disk\nis full")

    module = ModuleType("failing")
    module.rows = rows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing", module)
    found = collect(Measure("failing", "failing"), Given(images=Path()))
    assert found == [FAST, Row(name="failing", is_failed=True, detail="OSError: the disk is full")]


def test_a_run_prints_writes_and_ends_with_1_where_a_row_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, last, out = tmp_path / "page.md", tmp_path / "last.json", tmp_path / "out.json"
    page.write_text(f"a\n{table.BEGIN}\n{table.END}\nz\n", encoding="utf-8")
    monkeypatch.setattr(program, "PAGE", page)
    monkeypatch.setattr(program, "LAST", last)
    monkeypatch.setattr(program, "run_measure", lambda measure, given: [FAST])
    words = [str(tmp_path), "--only", "start", "--out", str(out), "--keep"]
    assert program.main(words) == 0
    assert "| fast |" in capsys.readouterr().out
    assert "| fast |" in page.read_text(encoding="utf-8")
    monkeypatch.setattr(program, "run_measure", lambda measure, given: [SMALL, BROKEN])
    assert program.main(words) == 1
    assert list(table.read_rows(last)) == ["fast", "small"]  # another part's rows stay, what failed is not kept
    assert list(table.read_rows(out)) == ["small", "broken"]


def test_every_word_names_a_module_with_rows() -> None:
    folder = Path(program.__file__).parent
    assert len({one.word for one in MEASURES}) == len(MEASURES)
    for one in MEASURES:
        assert "\ndef rows(given: Given" in (folder / f"{one.module.partition('.')[2]}.py").read_text(encoding="utf-8")


def test_rows_that_need_weights_say_so() -> None:
    assert list(without_weights([FAST])) == [Row(name="fast", target=2.0, detail=NEEDS_WEIGHTS, command="run fast")]


def test_ways_are_timed_in_turn() -> None:
    order: list[str] = []
    clock = iter(range(100))
    ways = {"one": lambda: order.append("one"), "two": lambda: order.append("two")}
    assert times_in_turn(ways, 2, lambda: Spent(float(next(clock)), 5.0)) == dict.fromkeys(ways, Spent(1.0, 0.0))
    assert order == ["one", "two", "one", "two"]
