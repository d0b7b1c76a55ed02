"""What cases start from: a few pictures with exact masks, and sound results of them; and small makers of bad files."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.synthetic import tiny_collection

Make = Callable[[Path], object]
PHOTO = "photos/coffee/bad.jpg"


def make_base(base: Path) -> None:
    """Write ``photos``, ``gt``, and by the command line itself ``result`` (with a network) and ``pseudo``."""
    from umscosod.cli import main

    groups = tiny_collection(base / "all", groups=2, images=2, size=96)
    assert groups
    (base / "all" / "image").rename(base / "photos")
    (base / "all" / "gt").rename(base / "gt")
    for verb in ("label", "pseudo"):
        out = base / ("result" if verb == "label" else "pseudo")
        train = ["--train", "always"] if verb == "label" else []
        code = main([verb, str(base / "photos"), "--out", str(out), "--preset", "smoke", *train])
        assert code == 0, f"the base could not be made: umscosod {verb} ended with {code}"


def name_photo(folder: Path, number: int = 0, group: str = "coffee") -> Path:
    """One of the sound pictures of a case."""
    return sorted((folder / "photos" / group).iterdir())[number]


def write(name: str, content: bytes | str) -> Make:
    """Make a file of a content."""

    def make(folder: Path) -> None:
        path = Path(os.fsdecode(os.path.join(folder, name)))  # noqa: PTH118 - the name may be no text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))

    return make


def write_json(name: str, content: Any) -> Make:
    """Make a JSON file."""
    return write(name, json.dumps(content))


def both(*makes: Make) -> Make:
    """Make several things."""

    def make(folder: Path) -> None:
        for one in makes:
            one(folder)

    return make


def picture_bytes(size: tuple[int, int] = (96, 96), kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """A picture of noise."""
    rng = np.random.default_rng(0)
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = rng.integers(0, 255, (size[1], size[0], bands), np.uint8)
    image = Image.fromarray(values if bands > 1 else values[:, :, 0]).convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey_png(value: int, size: tuple[int, int] = (96, 96), mode: str = "L") -> bytes:
    """A picture of one value."""
    stream = io.BytesIO()
    Image.new(mode, size, value).save(stream, "PNG")
    return stream.getvalue()


def png_bomb(side: int = 60_000) -> bytes:
    """A PNG whose header claims far more pixels than its bytes hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def coco_file(folder: Path, *, change: Callable[[dict[str, Any]], object] = lambda content: None) -> None:
    """Write ``masks.json``: one sound box-shaped mask for each picture, then changed."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    root = folder / "photos"
    for number, path in enumerate(sorted(root.rglob("*.jpg")), start=1):
        with Image.open(path) as image:
            width, height = image.size
        images.append({"id": number, "file_name": str(path.relative_to(root)), "height": height, "width": width})
        corners = [20.0, 20.0, 70.0, 20.0, 70.0, 70.0, 20.0, 70.0]
        annotations.append(
            {"id": number, "image_id": number, "segmentation": [corners], "score": 0.9, "bbox": [20, 20, 50, 50]}
        )
    content = {"images": images, "annotations": annotations}
    change(content)
    (folder / "masks.json").write_text(json.dumps(content), encoding="utf-8")
