"""The feature cache: round trip, damage, pruning order, and errors that name a cure."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umscosod.errors import CacheError
from umscosod.features.cache import FeatureCache, default_root, file_sha256

ARRAYS = {
    "tokens_PD": np.arange(12, dtype=np.float16).reshape(4, 3),
    "attn_AP": np.linspace(0, 1, 8, dtype=np.float16).reshape(2, 4),
    "grid_hw": np.array([2, 2], dtype=np.int64),
}


def put_aged(cache: FeatureCache, name: str, age_s: int, size: int = 1000) -> str:
    key = cache.key(name)
    cache.put(key, {"x": np.zeros(size, np.uint8)})
    then = 1_700_000_000 - age_s
    os.utime(cache.path(key), (then, then))
    return key


def test_round_trip_keeps_bits_types_and_shapes(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image", "backbone")
    assert cache.get(key) is None
    cache.put(key, ARRAYS, {"image": "cat/1.jpg"})
    loaded = cache.get(key)
    assert loaded is not None
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert cache.path(key) == tmp_path / key[:2] / f"{key}.safetensors"
    assert [path.name for path in cache.path(key).parent.iterdir()] == [f"{key}.safetensors"]


def test_strided_and_empty_arrays_round_trip(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    cache.put(key, {"strided": strided, "empty": np.zeros((0, 5), np.float16)})
    loaded = cache.get(key)
    assert loaded is not None
    np.testing.assert_array_equal(loaded["strided"], strided)
    assert loaded["empty"].shape == (0, 5)


def test_key_depends_on_every_part_and_on_where_parts_end() -> None:
    keys = {
        FeatureCache.key("a"),
        FeatureCache.key("b"),
        FeatureCache.key("a", "bc"),
        FeatureCache.key("ab", "c"),
        FeatureCache.key("a", "b", "c"),
        FeatureCache.key("a", "c", "b"),
    }
    assert len(keys) == 6
    assert FeatureCache.key("a", "bc") == FeatureCache.key("a", "bc")


@pytest.mark.parametrize("key", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_foreign_keys_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(CacheError, match="64 hexadecimal digits"):
        FeatureCache(tmp_path).get(key)


@pytest.mark.parametrize("damage", ["empty", "torn", "header", "flipped"])
def test_damaged_file_counts_as_absent_is_removed_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    cache.put(key, ARRAYS)
    path = cache.path(key)
    data = bytearray(path.read_bytes())
    if damage == "empty":
        data.clear()
    elif damage == "torn":
        del data[-5:]
    elif damage == "header":
        data[:8] = b"\xff" * 8
    else:
        data[-1] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert cache.get(key) is None
    assert not path.exists()
    assert str(path) in caplog.text
    assert "damaged" in caplog.text
    cache.put(key, ARRAYS)
    assert cache.get(key) is not None


def test_foreign_safetensors_without_checksum_is_not_trusted(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    cache.path(key).parent.mkdir(parents=True)
    save_file(ARRAYS, cache.path(key))
    assert cache.get(key) is None


def test_prune_removes_oldest_first_and_reports(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    old, middle, new = (put_aged(cache, name, age) for name, age in (("old", 300), ("middle", 200), ("new", 100)))
    size = cache.path(old).stat().st_size
    report = cache.prune(2 * size)
    assert (report.removed_files, report.removed_bytes) == (1, size)
    assert (report.kept_files, report.kept_bytes) == (2, 2 * size)
    assert cache.get(old) is None
    assert cache.get(middle) is not None
    assert cache.get(new) is not None


def test_get_saves_an_old_entry_from_pruning(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    old, new = put_aged(cache, "old", 300), put_aged(cache, "new", 100)
    assert cache.get(old) is not None
    cache.prune(cache.path(old).stat().st_size)
    assert cache.path(old).exists()
    assert not cache.path(new).exists()


def test_prune_to_zero_empties_and_sweeps_only_stale_temporaries(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = put_aged(cache, "one", 100)
    stale, fresh = cache.path(key).parent / ".stale.tmp", cache.path(key).parent / ".fresh.tmp"
    stale.touch()
    fresh.touch()
    os.utime(stale, (1, 1))
    assert cache.prune(0).kept_files == 0
    assert cache.stats().files == 0
    assert not stale.exists()
    assert fresh.exists()


def test_prune_refuses_negative_sizes(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="-1"):
        FeatureCache(tmp_path).prune(-1)


def test_stats_of_absent_and_filled_folders(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "not" / "yet")
    empty = cache.stats()
    assert (empty.files, empty.bytes) == (0, 0)
    assert empty.free_bytes > 0
    assert not cache.root.exists()
    key = put_aged(cache, "one", 1)
    assert cache.stats().bytes == cache.path(key).stat().st_size


def test_unwritable_folder_names_the_cure(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")  # root ignores permission bits, but nobody can make a folder inside a file
    cache = FeatureCache(blocker / "cache")
    with pytest.raises(CacheError, match=r"cache-dir.*UMSCOSOD_CACHE"):
        cache.put(cache.key("image"), ARRAYS)


def test_failed_replace_leaves_no_temporary(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    (cache.path(key) / "in the way").mkdir(parents=True)
    with pytest.raises(CacheError, match="cannot write"):
        cache.put(key, ARRAYS)
    assert [path.name for path in cache.path(key).parent.iterdir()] == [f"{key}.safetensors"]


def test_check_free_names_sizes_and_cure(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.check_free(1)
    with pytest.raises(CacheError, match=r"1000000\.00 GB are needed.*prune"):
        cache.check_free(10**15)


def test_default_root_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UMSCOSOD_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert FeatureCache(None).root == tmp_path / "own"
    monkeypatch.delenv("UMSCOSOD_CACHE")
    assert default_root() == tmp_path / "xdg" / "umscosod" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_root() == tmp_path / "home" / ".cache" / "umscosod" / "features"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_root() == tmp_path / "home" / "Library" / "Caches" / "umscosod" / "features"


def test_file_sha256_of_known_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def write_often(root: Path, key: str) -> None:
    for _ in range(50):
        FeatureCache(root).put(key, ARRAYS)


def test_concurrent_writers_never_show_a_torn_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    cache.put(key, ARRAYS)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_often, args=(tmp_path, key)) for _ in range(2)]
    for writer in writers:
        writer.start()
    reads = [cache.get(key)]
    while any(writer.is_alive() for writer in writers):
        reads.append(cache.get(key))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert all(arrays is not None for arrays in reads)
    assert "damaged" not in caplog.text
    assert cache.stats().files == 1


def test_imports_no_torch() -> None:
    code = "import sys, umscosod.features.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
