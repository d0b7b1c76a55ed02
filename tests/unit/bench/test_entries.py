"""Names of methods and data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from umscosod.bench.entries import ORDER, find_datasets, parse_methods
from umscosod.errors import ConfigError


def test_all_is_every_method_of_the_setting_and_folders_may_join() -> None:
    entries = parse_methods("all,theirs=/a/b")
    assert [entry.name for entry in entries] == [*ORDER, "theirs"]
    assert ORDER == ("attention", "tokencut", "dvfdvd", "scosparc", "pseudo", "ums")
    assert entries[-1].folder == Path("/a/b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokenkut", "unknown method 'tokenkut'"),
        ("", "unknown method"),
        ("ums,ums", "asked for 2 times"),
        ("all,ums", "asked for 2 times"),
        ("../x=/maps", "a name of its own"),
        ("ums=/maps", "a name of its own"),
        ("x=", "name=FOLDER"),
    ],
)
def test_what_cannot_be_a_method_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_methods(text)


def test_a_folder_of_several_stands_for_them(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "many" / name / "Image").mkdir(parents=True)
        (tmp_path / "many" / name / "GT").mkdir()
    (tmp_path / "many" / "notes").mkdir()
    assert list(find_datasets([tmp_path / "many"])) == ["a", "b"]
    assert find_datasets([tmp_path / "many" / "a"]) == {"a": tmp_path / "many" / "a"}
    assert list(find_datasets([tmp_path / "missing", tmp_path / "many" / "notes"])) == ["missing", "notes"]
    with pytest.raises(ConfigError, match="2 data sets are named 'a'"):
        find_datasets([tmp_path / "many", tmp_path / "many" / "a"])
    with pytest.raises(ConfigError, match="no data set"):
        find_datasets([])
