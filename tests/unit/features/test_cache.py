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
from safetensors.numpy import save_file

from umscosod.errors import CacheError
from umscosod.features.cache import FeatureCache, file_sha256, open_cache

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


def test_an_array_is_read_and_checked_without_the_others(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    cache.put(key, ARRAYS)
    path = cache.path(key)
    data = path.read_bytes()
    path.write_bytes(data.replace(ARRAYS["attn_AP"].tobytes(), bytes(16)))
    loaded = cache.get(key, ["tokens_PD"])
    assert loaded is not None
    assert loaded.keys() == {"tokens_PD"}
    np.testing.assert_array_equal(loaded["tokens_PD"], ARRAYS["tokens_PD"])
    assert cache.get(key, ["attn_AP"]) is None
    assert not path.exists()


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
    stale, fresh = (cache.path(key).parent / f".{key[:16]}.77.0123456{digit}.tmp" for digit in "78")
    stale.touch()
    fresh.touch()
    os.utime(stale, (1, 1))
    assert cache.prune(0).kept_files == 0
    assert cache.stats().files == 0
    assert not stale.exists()
    assert fresh.exists()


def age(path: Path) -> Path:
    os.utime(path, (1, 1))
    return path


def test_prune_leaves_foreign_files_alone(tmp_path: Path) -> None:
    """A cache folder set to one with other things in it loses none of them."""
    cache = FeatureCache(tmp_path)
    key = put_aged(cache, "one", 100)
    folder = cache.path(key).parent
    other = "0" * 64 if not key.startswith("00") else "1" * 64
    names = (
        "model.safetensors",
        ".backup.tmp",
        f".{key[:16]}.tmp",
        f"{key[:63]}.safetensors",
        f"{key.upper()}.safetensors",
        f"{key}.safetensors.bak",
        f"{other}.safetensors",
        f".{other[:16]}.77.01234567.tmp",
    )
    foreign = [folder / name for name in names]
    foreign += [tmp_path / name for name in ("model.safetensors", f"{key}.safetensors", ".backup.tmp")]
    elsewhere = tmp_path / "models"
    elsewhere.mkdir()
    foreign.append(elsewhere / f"{key}.safetensors")
    for path in foreign:
        path.write_bytes(b"mine")
        age(path)
    report = cache.prune(0)
    assert (report.removed_files, report.kept_files) == (1, 0)
    assert all(path.read_bytes() == b"mine" for path in foreign)


def test_prune_follows_no_links(tmp_path: Path) -> None:
    mine, root = tmp_path / "mine", tmp_path / "cache"
    mine.mkdir()
    root.mkdir()
    key = "cd" + "0" * 62
    kept = [
        age(mine / name) for name in (f"{key}.safetensors", f".{key[:16]}.1.01234567.tmp") if not (mine / name).touch()
    ]
    (root / "cd").symlink_to(mine, target_is_directory=True)
    linked = "ab" + "0" * 62
    (root / "ab").mkdir()
    (root / "ab" / f"{linked}.safetensors").symlink_to(kept[0])
    (root / "ef").touch()
    cache = FeatureCache(root)
    assert cache.stats().files == 0
    assert cache.prune(0).removed_files == 0
    assert all(path.exists() for path in kept)
    assert (root / "ab" / f"{linked}.safetensors").is_symlink()


def test_a_cache_folder_that_is_itself_a_link_is_pruned(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk", target_is_directory=True)
    cache = FeatureCache(tmp_path / "cache")
    put_aged(cache, "one", 100)
    assert cache.prune(0).removed_files == 1


def test_swapped_entries_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two sound files under each other's names: neither passes for the other."""
    cache = FeatureCache(tmp_path)
    first, second = cache.key("first"), cache.key("second")
    cache.put(first, ARRAYS)
    cache.put(second, {name: array + 1 for name, array in ARRAYS.items()})
    data = cache.path(first).read_bytes()
    cache.path(first).write_bytes(cache.path(second).read_bytes())
    cache.path(second).write_bytes(data)
    assert cache.get(first) is None
    assert cache.get(second) is None
    assert caplog.text.count("is damaged") == 2


def test_an_entry_whose_header_gives_another_shape_is_noticed(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    cache.put(key, ARRAYS)
    data = cache.path(key).read_bytes()
    assert b'"shape":[4,3]' in data
    cache.path(key).write_bytes(data.replace(b'"shape":[4,3]', b'"shape":[3,4]'))
    assert cache.get(key) is None


def test_entries_of_an_earlier_schema_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)
    monkeypatch.setattr("umscosod.features.cache.SCHEMA", "1")
    cache.put(cache.key("image"), ARRAYS)
    monkeypatch.undo()
    assert cache.get(cache.key("image")) is None
    assert cache.prune(0).removed_files == 1


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_an_entry_that_is_no_regular_file_is_named_not_waited_for(tmp_path: Path, kind: str) -> None:
    cache = FeatureCache(tmp_path)
    key = cache.key("image")
    path = cache.path(key)
    path.parent.mkdir()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(CacheError, match=rf"cannot read {path} \(not a regular file\); remove it, or set --config"):
        cache.get(key)


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.touch()
    cache = FeatureCache(root)
    for ask in (cache.stats, lambda: cache.prune(0)):
        with pytest.raises(CacheError, match=rf"cannot list {root} \(Not a directory\); check the folder"):
            ask()
    with pytest.raises(CacheError, match=rf"cannot read {root}.*Not a directory"):
        cache.get(cache.key("image"))
    with pytest.raises(CacheError, match=rf"cannot write {root}.*; make room .* or set --config"):
        cache.put(cache.key("image"), ARRAYS)


def test_an_unreadable_folder_of_entries_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)
    key = put_aged(cache, "one", 1)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CacheError, match=r"cannot read .*safetensors \(Permission denied\); set --config"):
        cache.get(key)
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CacheError, match=r"cannot list .* \(Permission denied\); check the folder"):
        cache.prune(0)


@pytest.mark.parametrize("root", ["~nobody-of-this-name/cache", "a\0b"])
def test_roots_that_cannot_be_are_refused_at_once(root: str) -> None:
    with pytest.raises(CacheError, match=r"feature cache: .*; set --config\.features\.cache-dir"):
        FeatureCache(Path(root))


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


def test_check_free_never_asks_for_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureCache, "free_bytes", lambda _: 1200)
    with pytest.raises(
        CacheError, match=r"about 2\.5 MB are needed, but the disk of .* has only 1\.2 KB free; make room"
    ):
        FeatureCache(tmp_path).check_free(2_500_000)


FULL_DISK = """
import resource, sys, tempfile
import numpy as np
from umscosod.errors import CacheError
from umscosod.features.cache import open_cache
tempfile.tempdir = sys.argv[1]
with open_cache(use_cache=False) as cache:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    key = cache.key("image")
    try:
        cache.put(key, {"x": np.zeros(100_000, np.uint8)})
    except CacheError as error:
        print(error)
    print(*cache.path(key).parent.iterdir())
"""


def test_a_full_temporary_disk_names_the_file_and_the_cure(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    message, left = ran.stdout.split("\n")[:2]
    assert f"cannot write {tmp_path}/umscosod-" in message
    assert " KB: File too large); make room there, set TMPDIR to a folder on another disk, or leave features" in message
    assert "no-use-cache" not in message
    assert left == ""
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_folder_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("umscosod.features.cache.tempfile.TemporaryDirectory", refuse)
    with (
        pytest.raises(CacheError, match=r"no temporary folder for the features \(No usable .*\); make room there"),
        open_cache(use_cache=False),
    ):
        raise AssertionError


def test_a_temporary_cache_is_gone_at_the_end_and_a_named_one_stays(tmp_path: Path) -> None:
    with open_cache(use_cache=False) as cache:
        cache.put(cache.key("image"), ARRAYS)
        assert cache.root.is_dir()
    assert not cache.root.exists()
    with open_cache(str(tmp_path / "named")) as cache:
        cache.put(cache.key("image"), ARRAYS)
    assert FeatureCache(tmp_path / "named").stats().files == 1


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
