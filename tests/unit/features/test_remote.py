"""Lists of addresses: names, copies in the cache, what cannot be fetched, and the same results as from files."""

from __future__ import annotations

import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import quick_config, read_results
from tests.synthetic import tiny_collection
from umscosod import label_groups
from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_csv, groups_from_images, groups_from_list, groups_from_rows
from umscosod.errors import Cancelled, DataError, MissingDependencyError
from umscosod.features import remote
from umscosod.features.cache import FeatureCache
from umscosod.features.remote import fetch_copies
from umscosod.grouping.discover import write_groups_csv
from umscosod.progress import ignore_progress
from umscosod.types import ImageGroup, ImageRef, Status

pytest.importorskip("fsspec")


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, Counter[str]]]:
    """A server of a folder on the loopback address, with the paths that were asked for."""
    asked: Counter[str] = Counter()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two groups of three pictures, as GROUP/NAME below a folder."""
    tiny_collection(tmp_path / "data", groups=2, images=3, size=64)
    return tmp_path / "data" / "image"


def write_list(file: Path, pictures: Path, base: str) -> Path:
    """List the pictures below a folder by what `base` makes of it."""
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.jpg"))
    file.write_text("".join(f"{base}/{name},{name.partition('/')[0]}\n" for name in names), encoding="utf-8")
    return file


def copied(address: str, cache: FeatureCache) -> tuple[ImageRef, str]:
    """The image at an address, and why it could not be fetched."""
    (group,), lost = fetch_copies(groups_from_list([(address, "cat")]), cache, ignore_progress)
    return group.images[0], lost.get(group.images[0].id, "")


# ---- names


def test_an_address_gives_the_names_that_a_path_gives(tmp_path: Path) -> None:
    lines = " s3://me:word@bucket/a/1.jpg?signature=x ,cat\nhttp://host:81/b/1.jpg,cat\n2.jpg,cat\nmemory://7,cat\n"
    (tmp_path / "list.csv").write_text(lines, encoding="utf-8")
    (group,) = groups_from_csv(tmp_path / "list.csv")
    found = {image.id: (image.address, image.output) for image in group.images}
    assert found == {
        "cat/2.jpg": ("", "cat/2.png"),
        "cat/7": ("memory://7", "cat/7.png"),
        "cat/a/1.jpg": ("s3://me:word@bucket/a/1.jpg?signature=x", "cat/a/1.png"),
        "cat/b/1.jpg": ("http://host:81/b/1.jpg", "cat/b/1.png"),
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("s3://me:word@b/1.jpg?s=key,cat\ns3://b/1.jpg?s=key,cat\n", "is in group 'cat' already"),
        ("s3://b/1.jpg,cat\ns3://me:word@b/\\1.jpg?s=key,cat\n", "a backslash in the name"),
        ("s3://me:word@b/1.jpg?s=key,\n", "has no group"),
        ("zip://1.jpg::https://me:word@b/a.zip?s=key,cat\n", "give the address of the image itself"),
        ("simplecache::https://me:word@b/1.jpg?s=key,cat\n", "give the address of the image itself"),
    ],
)
def test_bad_rows_of_addresses_are_named(lines: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        groups_from_csv(tmp_path / "list.csv")
    assert "word" not in str(caught.value)
    assert "key" not in str(caught.value)


def test_a_parquet_list_may_hold_addresses(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"path": ["s3://b/1.jpg", "2.jpg"], "group": ["cat", "cat"]})
    parquet.write_table(table, tmp_path / "list.parquet")
    (group,) = groups_from_images(tmp_path / "list.parquet")
    assert [image.address for image in group.images] == ["s3://b/1.jpg", ""]


def test_samples_of_a_data_set_are_files(tmp_path: Path) -> None:
    (group,) = groups_from_rows([("1", "s3://b/1.jpg", "cat")])
    assert group.images[0].address == ""


def test_a_list_of_groups_names_the_addresses_not_the_copies(tmp_path: Path) -> None:
    image, _ = copied("memory://b/1.jpg", FeatureCache(tmp_path / "cache"))
    write_groups_csv([ImageGroup(name="cat", images=(image,))], tmp_path / "groups.csv")
    assert (tmp_path / "groups.csv").read_text(encoding="utf-8") == "path,group\nmemory://b/1.jpg,cat\n"


# ---- copies


def test_a_file_is_copied_once_and_pruned_with_the_cache(tmp_path: Path) -> None:
    cache, source = FeatureCache(tmp_path / "cache"), tmp_path / "1.jpg"
    source.write_bytes(b"picture")
    image, _ = copied(source.as_uri(), cache)
    assert image.path.read_bytes() == b"picture"
    source.write_bytes(b"another")
    assert copied(source.as_uri(), cache) == (image, "")
    assert image.path.read_bytes() == b"picture"
    assert (cache.stats().files, cache.stats().bytes) == (1, 7)
    cache.prune(0)
    assert not image.path.exists()
    copied(source.as_uri(), cache)
    assert image.path.read_bytes() == b"another"


def test_what_cannot_be_fetched_leaves_nothing_and_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    (tmp_path / "1.jpg").write_bytes(b"picture")
    assert "2.jpg: cannot be fetched (FileNotFoundError: " in copied((tmp_path / "2.jpg").as_uri(), cache)[1]
    monkeypatch.setattr(remote, "_MOST_BYTES", 3)
    reason = copied((tmp_path / "1.jpg").as_uri(), cache)[1]
    assert "1.jpg: cannot be fetched (OSError: the file has more than 3 bytes" in reason
    assert [path for path in cache.root.rglob("*") if path.is_file()] == []
    _, reason = copied("memory://me:word@host/1.jpg?signature=abc", cache)
    assert "memory://host/1.jpg: cannot be fetched" in reason
    assert "word" not in reason
    assert "abc" not in reason


def test_fetching_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = groups_from_list([(f"memory://{number}.jpg", "cat") for number in range(50)])
    tried: list[str] = []

    def wait_at_the_second(image: ImageRef, stopped: threading.Event) -> str:
        tried.append(image.id)
        assert len(tried) == 1 or stopped.wait(60.0)
        return ""

    monkeypatch.setattr(remote, "_try", wait_at_the_second)
    monkeypatch.setattr(remote, "_THREADS", 1)

    def stop(done: int, total: int, stage: str) -> None:
        assert (total, stage) == (50, "fetch")
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        fetch_copies(groups, FeatureCache(tmp_path), stop)
    assert len(tried) <= 2


def test_what_is_missing_for_an_address_is_told_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)
    with pytest.raises(DataError, match=r"an image at nowhere:// cannot be fetched: .*; give paths"):
        copied("nowhere://b/1.jpg", cache)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r'run: pip install "umscosod\[remote\]"'):
        copied("memory://b/1.jpg", cache)
    groups = groups_from_list([("1.jpg", "cat")])
    assert fetch_copies(groups, cache, ignore_progress) == (tuple(groups), {}), "files need no fsspec"


# ---- jobs


class Worker:
    """An engine whose worker is this process; all goes through pickles."""

    def network_device(self, here: str) -> str:
        return here

    def map(self, work: Callable[[Any], Any], items: Iterable[Any], *, network_on: str = "") -> Iterator[Any]:
        for item in items:
            yield pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(item)))


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return quick_config(tmp_path / "cache")


@pytest.mark.parametrize("engine", [None, Worker()])
def test_results_are_those_of_the_files(engine: Any, pictures: Path, tmp_path: Path, config: PipelineConfig) -> None:
    pytest.importorskip("aiohttp")
    own = replace(config, features=replace(config.features, cache_dir=str(tmp_path / "own")))
    label_groups(write_list(tmp_path / "files.csv", pictures, str(pictures)), tmp_path / "here", own, train=False)
    with serve(pictures) as (base, asked):
        listed = write_list(tmp_path / "list.csv", pictures, base)
        label_groups(listed, tmp_path / "there", config, train=False, engine=engine)
        assert set(asked.values()) == {1}
    assert read_results(tmp_path / "there") == read_results(tmp_path / "here")
    again = label_groups(listed, tmp_path / "there", config, train=False, engine=engine)  # the server is gone
    assert again.counts[Status.LABELLED] == 6


def test_an_address_that_fails_is_one_failed_row_and_comes_in_later(
    pictures: Path, tmp_path: Path, config: PipelineConfig
) -> None:
    pytest.importorskip("aiohttp")
    lost = min(pictures.rglob("*.jpg"))
    with serve(pictures) as (base, _):
        listed = write_list(tmp_path / "list.csv", pictures, base)
        content = lost.read_bytes()
        lost.unlink()
        report = label_groups(listed, tmp_path / "out", config, train=False)
        (failed,) = [row for row in report.rows if row.status is Status.FAILED]
        assert failed.reason.startswith(f"{base}/{lost.relative_to(pictures).as_posix()}: cannot be fetched")
        lost.write_bytes(content)
        with pytest.raises(DataError, match="files were added, removed, renamed or changed since"):
            label_groups(listed, tmp_path / "out", config, train=False)
        report = label_groups(listed, tmp_path / "out", config, train=False, overwrite=True)
    assert report.counts[Status.FAILED] == 0


def test_other_content_at_an_address_is_no_silent_change(
    pictures: Path, tmp_path: Path, config: PipelineConfig
) -> None:
    listed = write_list(tmp_path / "list.csv", pictures, pictures.as_uri())
    first = label_groups(listed, tmp_path / "out", config, train=False)
    one, other = sorted(pictures.rglob("*.jpg"))[:2]
    one.write_bytes(other.read_bytes())
    again = label_groups(listed, tmp_path / "out", config, train=False)  # by its copies
    assert again.rows == first.rows
    FeatureCache(tmp_path / "cache").prune(0)
    with pytest.raises(DataError, match="files were added, removed, renamed or changed since"):
        label_groups(listed, tmp_path / "out", config, train=False)


def test_without_a_cache_copies_last_as_long_as_the_job(pictures: Path, tmp_path: Path, config: PipelineConfig) -> None:
    private = replace(config, features=replace(config.features, use_cache=False))
    listed = write_list(tmp_path / "list.csv", pictures, pictures.as_uri())
    report = label_groups(listed, tmp_path / "out", private, train=False)
    assert report.counts[Status.LABELLED] == 6
    assert not (tmp_path / "cache").exists()
