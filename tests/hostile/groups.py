"""Hostile folders, names and lists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.hostile.base import Make, both, name_photo, picture_bytes, write
from tests.hostile.harness import Case


def _label(what: str, make: Make, *, code: int, says: str, images: str = "photos") -> Case:
    return Case(what=what, command=f"label {images} --out out", code=code, says=says, make=make)


def _list(what: str, text: str, *, code: int, says: str) -> Case:
    def make(folder: Path) -> None:
        for number, path in enumerate(sorted((folder / "photos" / "coffee").iterdir())):
            shutil.copy(path, folder / f"{number}.jpg")
        (folder / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))

    return Case(what=what, command="label list.csv --out out", code=code, says=says, make=make)


def _named(what: str, name: str | bytes, *, code: int = 0, says: str = "5 labelled") -> Case:
    def make(folder: Path) -> None:
        sound = name_photo(folder)
        target = os.path.join(os.fsencode(folder / "photos/coffee"), os.fsencode(name))  # noqa: PTH118
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        shutil.copy(os.fsencode(sound), target)

    return _label(what, make, code=code, says=says)


def _nest(folder: Path) -> None:
    """Folders 1,100 deep, made step by step: the path as a whole is longer than the system takes."""
    here = os.getcwd()  # noqa: PTH109
    os.chdir(folder / "photos")
    try:
        for _ in range(1100):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
    finally:
        os.chdir(here)


def _circle(folder: Path) -> None:
    (folder / "photos/coffee/again").symlink_to("..")
    (folder / "photos/shuttle/up").symlink_to("../coffee")


def _two_long_stems(folder: Path) -> None:
    for suffix in (".jpg", ".png"):
        (folder / "photos/coffee" / ("x" * 251 + suffix)).write_bytes(picture_bytes())


def _layout(folder: Path) -> None:
    """``images`` and ``masks`` beside another group."""
    (folder / "photos/images/cups").mkdir(parents=True)
    (folder / "photos/masks/cups").mkdir(parents=True)
    for path in sorted((folder / "photos/coffee").iterdir()):
        shutil.copy(path, folder / "photos/images/cups" / path.name)
        (folder / "photos/masks/cups" / f"{path.stem}.png").write_bytes(picture_bytes(mode="1"))


CASES = [
    _named("name with a backslash", "a\\b.jpg", says="not taken"),
    _list("list: Windows paths", "0.jpg,cup\na\\1.jpg,cup\n", code=2, says="error: "),
    _list("list: a group nested 2,500 deep", "0.jpg," + "g/" * 2500 + "g\n1.jpg,cup\n", code=2, says="error: "),
    Case(
        what="discover: a name that is not UTF-8",
        command="discover photos --out l.csv",
        code=2,
        says="error: ",
        make=lambda folder: shutil.copy(
            name_photo(folder), os.fsdecode(os.fsencode(folder) + b"/photos/coffee/\xe9.jpg")
        ),
    ),
    Case(what="no such folder", command="label nowhere --out out", code=2, says="error: "),
    Case(what="IMAGES is ''", command="label '' --out out", code=2, says="error: "),
    Case(what="IMAGES is /", command="label / --out out", code=2, says="error: "),
    Case(what="IMAGES is /dev/null", command="label /dev/null --out out", code=2, says="error: "),
    Case(what="IMAGES holds a NUL", command="label 'a\0b' --out out", code=2, says="error: "),
    _label("IMAGES is a file", lambda folder: None, code=2, says="error: ", images="photos/coffee/coffee_00.jpg"),
    _label("IMAGES is an empty folder", lambda folder: (folder / "no").mkdir(), code=2, says="error: ", images="no"),
    _label(
        "IMAGES is a link to itself",
        lambda folder: (folder / "no").symlink_to("no"),
        code=2,
        says="error: ",
        images="no",
    ),
    _label("folders that link in a circle", _circle, code=0, says="4 labelled"),
    _label("1,100 folders deep", _nest, code=0, says="4 labelled"),
    _label(
        "HEIC, video and text beside the pictures",
        both(
            write("photos/coffee/a.heic", b"x"),
            write("photos/coffee/b.HEIC", b"x"),
            write("photos/c.mp4", b"x"),
            write("photos/shuttle/notes.txt", b"x"),
        ),
        code=0,
        says="not taken",
    ),
    _label("a group beside images/ and masks/", _layout, code=0, says="not what lies beside them"),
    _label("two stems of 251 letters that differ in their suffix", _two_long_stems, code=0, says="6 labelled"),
    _label("one image only in a group", lambda folder: name_photo(folder).unlink(), code=0, says="has one image"),
    _named("name that is not UTF-8", b"caf\xe9.jpg"),
    _named("folder that is not UTF-8", b"caf\xe9/1.jpg"),
    _named("name with ESC [2J", "a\x1b[2Jb.jpg"),
    _named("name with BEL and newline", "a\x07\nb.jpg"),
    _named("name with a right-to-left override", "a\u202egpj.jpg"),
    _named("name of 255 bytes, in letters of two", "é" * 125 + "x.jpg"),
    _named("name that is HTML", "<img src=x onerror=alert(1)>.jpg"),
    _named("name with quotes and $(...)", "'\"$(touch x)`id`.jpg"),
    _named("name of spaces", "   .jpg"),
    _named("name that begins with -", "-rf.jpg"),
    _named("folder named ~", "~/x.jpg"),
    _list("list: header path,label", "path,label\n0.jpg,cup\n1.jpg,cup\n", code=0, says="2 labelled"),
    _list("list: no header", "0.jpg,cup\n1.jpg,cup\n", code=0, says="2 labelled"),
    _list(
        "list: semicolons, header in capitals", "Path;Group\r\n0.jpg;cup\r\n1.jpg;cup\r\n", code=0, says="2 labelled"
    ),
    _list("list: empty", "", code=2, says="error: "),
    _list("list: header only", "path,group\n", code=2, says="error: "),
    _list("list: one column", "0.jpg\n1.jpg\n", code=2, says="error: "),
    _list("list: an image twice in a group", "0.jpg,cup\n0.jpg,cup\n", code=2, says="error: "),
    _list("list: group ../../x", "0.jpg,../../x\n1.jpg,cup\n", code=2, says="error: "),
    _list("list: absolute group", "0.jpg,/etc\n1.jpg,cup\n", code=2, says="error: "),
    _list("list: NUL in a path", "0\0.jpg,cup\n1.jpg,cup\n", code=2, says="error: "),
    _list("list: UTF-16", "\udcff\udcfep\0a\0t\0h\0", code=2, says="error: "),
    _list("list: quote never closed", '"0.jpg,cup\n1.jpg,cup\n', code=2, says="error: "),
    _list("list: an image that is not there", "0.jpg,cup\n9.jpg,cup\n1.jpg,cup\n", code=1, says="9.jpg"),
    _list("list: a cell of 200,000 letters", "0.jpg,cup\n" + "x" * 200_000 + ",cup\n", code=2, says="error: "),
]
