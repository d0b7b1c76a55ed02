"""A real browser and our decoder turn the same pictures, so that a mask lies on its picture in the App."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from tests.oriented_pictures import OBEYED, blocks_of, upright_blocks, write_pictures
from umscosod.data.images import decode_image

pytestmark = pytest.mark.slow
DRAW = """async url => {
    const picture = new Image();
    picture.src = url;
    try { await picture.decode(); } catch { return null; }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    return [canvas.height, canvas.width, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""
"""As the App does: an image element gives size and pixels."""


def draw(page: Any, url: str) -> np.ndarray | None:
    """The picture as the browser shows it, uint8 (H, W, 3); None if it shows none."""
    drawn = page.evaluate(DRAW, url)
    return None if drawn is None else np.array(drawn[2], np.uint8).reshape(drawn[0], drawn[1], 4)[..., :3]


@pytest.fixture
def page(browser: Any, app_url: str) -> Any:
    page = browser.new_page()
    page.goto(f"{app_url}/favicon.ico")  # the App's own address, without the App
    yield page
    page.close()


@pytest.mark.parametrize("orientation", [6, 3, 8, 5])
def test_the_browser_and_the_decoder_turn_the_same(page: Any, app_url: str, tmp_path: Path, orientation: int) -> None:
    for kind, path in write_pictures(tmp_path, orientation).items():
        seen = draw(page, f"{app_url}/media?filepath={quote(str(path))}")
        if kind == "TIFF":
            assert seen is None
            continue
        assert seen is not None, kind
        decoded = decode_image(path)
        assert seen.shape == decoded.shape, kind
        assert np.array_equal(blocks_of(seen), blocks_of(decoded)), kind
        assert np.array_equal(blocks_of(seen), upright_blocks(orientation if OBEYED[kind] else 1)), kind
