"""Weights from a hub on this machine: whole and checked, or one line with the cure and nothing to be found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download
from safetensors.torch import save, save_file
from timm.models import VisionTransformer

from tests.loopback_hub import COMMIT, LoopbackHub, serve_hub, set_constant, set_endpoint
from umscosod.errors import Cancelled, ConfigError, DataError, WeightsError
from umscosod.features import hub as verbs
from umscosod.features import weights
from umscosod.features.cache import FeatureCache
from umscosod.features.records import RECORDS_FILE, read_records, training_note, weights_dir
from umscosod.features.specs import VitSpec
from umscosod.features.store import find_weights, hash_weights

Make = Callable[[str], VisionTransformer]
Specs = dict[str, VitSpec]
SMALL = ("dino_vits8", "dinov2_vits14_reg")
FILE = "model.safetensors"


@pytest.fixture(autouse=True)
def empty_home(tiny_specs: Specs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is here, and the architectures are small."""
    set_constant(monkeypatch, "HF_HUB_CACHE", str(tmp_path / "hub"))
    set_constant(monkeypatch, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    monkeypatch.setenv("UMSCOSOD_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setattr(verbs, "VIT_SPECS", tiny_specs)
    monkeypatch.setattr(weights, "VIT_SPECS", tiny_specs)


@pytest.fixture
def hub(tiny_specs: Specs, make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub with the small pair, and no waiting between two tries."""
    files = {(f"timm/{tiny_specs[name].timm_name}", FILE): save(make_tiny(name).state_dict()) for name in SMALL}
    with serve_hub(LoopbackHub(files=files)) as served:
        set_endpoint(monkeypatch, served.endpoint)
        set_constant(monkeypatch, "DOWNLOAD_CHUNK_SIZE", 1 << 12)
        monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
        yield served


def key_of(spec: VitSpec) -> tuple[str, str]:
    return f"timm/{spec.timm_name}", FILE


def test_a_set_is_downloaded_found_and_recorded(hub: LoopbackHub, tiny_specs: Specs) -> None:
    seen: list[str] = []
    stored = verbs.get_weights(["small"], progress=lambda done, total, stage: seen.append(stage))
    assert [each.name for each in stored] == list(SMALL)
    assert set(seen) == {"dino_vits8 (MB)", "dinov2_vits14_reg (MB)"}
    for each in stored:
        spec = tiny_specs[each.name]
        assert each.is_new
        assert each.notes == ()
        assert find_weights(spec) == each.path
        assert each.path.read_bytes() == hub.files[key_of(spec)]
        assert each.sha256 == hashlib.sha256(hub.files[key_of(spec)]).hexdigest() == read_records()[each.name].sha256
        assert read_records()[each.name].source == f"timm/{spec.timm_name}@{COMMIT[:12]}"
    asked = len(hub.tokens)
    assert [each.is_new for each in verbs.get_weights(SMALL)] == [False, False]
    assert len(hub.tokens) == asked  # what is here needs no hub


def test_a_cut_connection_is_resumed_within_a_call_and_by_the_next(hub: LoopbackHub, tiny_specs: Specs) -> None:
    content = hub.files[key_of(tiny_specs["dino_vits8"])]
    hub.cuts = [20_000]
    verbs.get_weights(["dinov2_vits14_reg"])  # goes on by itself
    assert hub.ranges[0] == 0
    assert 0 < hub.ranges[1] <= 20_000
    hub.ranges.clear()
    hub.cuts = [20_000] + [0] * 20
    with pytest.raises(WeightsError, match=r"connection failed .*; run the same command again: it goes on"):
        verbs.get_weights(["dino_vits8"])
    assert find_weights(tiny_specs["dino_vits8"]) is None
    hub.ranges.clear()
    hub.cuts = []
    (stored,) = verbs.get_weights(["dino_vits8"])
    assert len(hub.ranges) == 1
    assert 0 < hub.ranges[0] <= 20_000
    assert stored.path.read_bytes() == content


def test_a_download_that_was_stopped_goes_on(hub: LoopbackHub, tiny_specs: Specs) -> None:
    def stop(done: int, total: int, stage: str) -> None:
        if hub.ranges:  # the first bytes are here
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        verbs.get_weights(["dino_vits8"], progress=stop)
    assert find_weights(tiny_specs["dino_vits8"]) is None
    (stored,) = verbs.get_weights(["dino_vits8"])
    assert hub.ranges[1] > 0
    assert hash_weights(stored.path) == stored.sha256


def test_a_wrong_hash_leaves_nothing(hub: LoopbackHub, tiny_specs: Specs, tmp_path: Path) -> None:
    spec = tiny_specs["dino_vits8"]
    hub.stated[key_of(spec)] = "0" * 64
    with pytest.raises(WeightsError, match=r"has the sha256 [0-9a-f]{12}\.\.\., the hub states 000000000000.*removed"):
        verbs.get_weights([spec.name])
    assert find_weights(spec) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 100] == []


REFUSALS = {
    "no such repository": ((404, "RepoNotFound"), "no such repository, or a private one; check the name"),
    "private": ((401, "RepoNotFound"), "or a private one; .*set HF_TOKEN, or run: hf auth login"),
    "gated, no token": ((401, "GatedRepo"), r"is gated: accept its licence at http\S+vits?\S*, then set HF_TOKEN"),
    "gated, not accepted": ((403, "GatedRepo"), "is gated: accept its licence"),
    "bad token": ((403, ""), r"refused access \(403\): the token lacks the right"),
    "broken hub": ((500, ""), "answered 500; wait a little"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_line_with_the_cure(hub: LoopbackHub, tiny_specs: Specs, case: str) -> None:
    answer, message = REFUSALS[case]
    hub.refusals[key_of(tiny_specs["dino_vits8"])[0]] = answer
    with pytest.raises(WeightsError, match=message.replace("vits?", "vit_small")) as caught:
        verbs.get_weights(["dino_vits8"])
    assert "\n" not in str(caught.value)


def test_offline_is_said_and_nothing_is_asked(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    set_constant(monkeypatch, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set.*umscosod weights import FILE"):
        verbs.get_weights(["dino_vits8"])
    assert hub.tokens == []


def test_no_hub_at_all_is_one_line(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    set_endpoint(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(
        WeightsError, match=r"127\.0\.0\.1:1/timm/.*: the connection failed .*run the same command again"
    ):
        verbs.get_weights(["dino_vits8"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_one_line(hub: LoopbackHub, tiny_specs: Specs) -> None:
    spec = tiny_specs["dino_vits8"]
    folder = Path(constants.HF_HUB_CACHE, f"models--timm--{spec.timm_name}", "blobs")
    folder.mkdir(parents=True)
    sha256 = hashlib.sha256(hub.files[key_of(spec)]).hexdigest()
    (folder / f"{sha256}.incomplete").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"the disk of .* is full; make room, then run the same command again"):
        verbs.get_weights([spec.name])
    assert find_weights(spec) is None


def test_too_little_room_is_said_before_the_download(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(WeightsError, match=r"10 bytes free, .* needed; make room, or set HF_HOME"):
        verbs.get_weights(["dino_vits8"])
    assert hub.ranges == []


def test_damage_is_found_by_the_next_reader_and_mended_by_get(hub: LoopbackHub, tiny_specs: Specs) -> None:
    spec = tiny_specs["dino_vits8"]
    (stored,) = verbs.get_weights([spec.name])
    assert [check.is_sound for check in verbs.verify_weights()] == [True]
    content = bytearray(stored.path.read_bytes())
    content[-1] ^= 1
    stored.path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged or were changed: sha256 .*recorded"):
        hash_weights(stored.path)
    assert [check.is_sound for check in verbs.verify_weights()] == [False]
    verbs.get_weights([spec.name])
    assert hash_weights(stored.path) == stored.sha256


def test_the_cache_names_its_files_by_hash_without_any_record(hub: LoopbackHub, tiny_specs: Specs) -> None:
    (stored,) = verbs.get_weights(["dino_vits8"])
    (weights_dir() / RECORDS_FILE).unlink()
    stored.path.write_bytes(b"x")
    with pytest.raises(WeightsError, match="damaged or were changed"):
        hash_weights(stored.path)


def test_any_repository_can_be_downloaded_with_its_config(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["some-one/vit", "config.json"] = b'{"architecture": "vit"}'
    hub.files["some-one/vit", "pytorch_model.bin"] = b"y" * 3_000_000
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (offer,) = verbs.plan_weights(["hf-hub:some-one/vit"])
    assert (offer.size_mb, offer.licence, offer.is_label_free) == (3, "", None)
    (stored,) = verbs.get_weights(["hf-hub:some-one/vit"])
    assert stored.path.read_bytes() == b"y" * 3_000_000
    assert (stored.path.parent / "config.json").is_file()
    assert hub.tokens[-1] == "Bearer hf_secret"
    assert verbs.list_weights()[-1].path == stored.path
    assert verbs.plan_weights(["timm:vit_small_patch8_224.dino"])[0].name == "dino_vits8"
    del hub.files["some-one/vit", "pytorch_model.bin"]
    stored.path.unlink()
    with pytest.raises(WeightsError, match=r"holds no pytorch_model\.bin"):
        verbs.get_weights(["hf-hub:some-one/vit"])


@pytest.mark.parametrize("name", ["dino_vitb88", "hf-hub:one", "hf-hub:a/b/c", "timm:../x", ""])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no weights are named|names no repository"):
        verbs.plan_weights([name])


@pytest.fixture
def file(make_tiny: Make, tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_file(make_tiny("dino_vits8").state_dict(), path)
    return path


@pytest.mark.parametrize("link", [False, True])
def test_an_imported_file_is_found_and_its_training_is_not_known(
    file: Path, tiny_specs: Specs, tmp_path: Path, link: bool
) -> None:
    stored = verbs.import_weights(file, link=link)
    assert stored.name == "dino_vits8"
    assert find_weights(tiny_specs["dino_vits8"]) == stored.path == tmp_path / "own" / "dino_vits8.safetensors"
    assert stored.path.is_symlink() == link
    assert "training is not known" in training_note(stored.path)
    assert stored.notes == (training_note(stored.path),)
    assert [check.is_sound for check in verbs.verify_weights()] == [True]
    cache = FeatureCache(tmp_path / "own")  # even where someone puts both into one folder
    cache.prune(0)
    assert stored.path.is_file()
    if link:
        file.write_bytes(b"other")
        with pytest.raises(WeightsError, match="were changed"):
            hash_weights(stored.path)


def test_an_imported_file_whose_hash_is_known_carries_no_note(
    hub: LoopbackHub, tiny_specs: Specs, tmp_path: Path
) -> None:
    (stored,) = verbs.get_weights(["dino_vits8"])
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(stored.path.read_bytes())
    assert verbs.import_weights(copy).notes == ()


def test_shapes_that_fit_several_backbones_ask_for_a_name(
    file: Path, tiny_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = replace(tiny_specs["dino_vits8"], name="supervised_vits8", is_label_free=False)
    monkeypatch.setattr(verbs, "VIT_SPECS", {**tiny_specs, twin.name: twin})
    with pytest.raises(WeightsError, match="fit the shapes of dino_vits8, supervised_vits8 alike; pass --name"):
        verbs.import_weights(file)
    assert verbs.import_weights(file, twin.name).name == twin.name
    with pytest.raises(WeightsError, match="expected"):
        verbs.import_weights(file, "dino_vitb8")


def test_an_import_that_fails_leaves_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    monkeypatch.setenv("UMSCOSOD_WEIGHTS", str(tmp_path / "full"))

    def fail(self: object, *args: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(DataError, match=r"cannot write .*dino_vits8.safetensors: No space left on device"):
        verbs.import_weights(file)
    assert list((tmp_path / "full").iterdir()) == []


def test_a_file_of_torch_hub_has_its_hash_recorded_when_it_is_verified(
    tmp_path: Path, make_tiny: Make, tiny_specs: Specs
) -> None:
    import torch

    path = tmp_path / "torch" / "hub" / "checkpoints" / tiny_specs["dino_vits8"].original_file
    path.parent.mkdir(parents=True)
    torch.save(make_tiny("dino_vits8").state_dict(), path)
    assert "recorded now" in verbs.verify_weights()[0].message
    assert "as recorded" in verbs.verify_weights()[0].message
    path.write_bytes(b"x")
    assert not verbs.verify_weights()[0].is_sound


def test_damaged_records_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for content in ("{", "[]", '{"a": 1}', json.dumps({"a": {"path": "p", "sha256": "x", "source": "s"}})):
        (tmp_path / "own" / RECORDS_FILE).write_text(content)
        with pytest.raises(WeightsError, match=r"records of weights in .* are damaged .*remove that file"):
            verbs.list_weights()
