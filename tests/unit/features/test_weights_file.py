"""Weight files of hostile content: no code in them runs, and each gets one line that says what to do."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from umscosod.errors import WeightsError
from umscosod.features.weights import read_state_dict


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "weights_only" not in message
    assert caught.value.__suppress_context__ or caught.value.__cause__ is None
    assert str(path) in message
    return message


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_never_runs_and_is_named(tmp_path: Path, legacy: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save({"cls_token": Malicious(marker)}, path, _use_new_zipfile_serialization=not legacy)
    assert "it holds posix.mkdir, which is no tensor and is never run; fetch the file again" in refusal(path)
    assert not marker.exists()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_a_bare_pickle_never_runs(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(Malicious(marker)))
    assert "cannot be read" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a weight file at all", b"PK\x03\x04torn", b"\x80\x02" + b"(" * 9999])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert "cannot be read: " in message
    assert message.endswith("; fetch the file again, or save its tensors as .safetensors")


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-300])
    assert "cannot be read: it is damaged, cut short" in refusal(path)


def test_the_old_tar_format_is_named_without_the_advice_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert "cannot be read" in refusal(path)


def test_a_scripted_module_is_named_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the making of such files deprecated
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    assert "holds more than tensors" in refusal(path)


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "fifo.pth")
    os.mkfifo(tmp_path / "fifo.safetensors")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    for name in ("folder.pth", "fifo.pth", "fifo.safetensors"):
        assert "(not a regular file); check the path" in refusal(tmp_path / name)
    for name in ("loop.pth", "none.pth", "n" * 300 + ".pth"):
        assert refusal(tmp_path / name).startswith("no weights at ")
    with pytest.raises(WeightsError, match=r"unknown ending '\.onnx'"):
        read_state_dict(tmp_path / "model.onnx")


def wrap_in_itself() -> object:
    content: dict[str, object] = {}
    content["model"] = content
    return content


def nest(depth: int) -> object:
    content: object = {"a": torch.zeros(1)}
    for _ in range(depth):
        content = {"state_dict": content}
    return content


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: [torch.zeros(1)], "expected named tensors, got list"),
        (lambda: "text", "expected named tensors, got str"),
        (dict, "expected named tensors, found none"),
        (lambda: torch.zeros(2), "expected named tensors, got Tensor"),
        (lambda: {"a": 1}, "entry a is int, expected a tensor"),
        (lambda: {"a": "text"}, "entry a is str, expected a tensor"),
        (lambda: {"a": torch.zeros(1), "epoch": 3}, "entry epoch is int, expected a tensor"),
        (lambda: {5: torch.zeros(1)}, "entry 5 has no text for a name"),
        (lambda: {"a\x1b[2J\n": 1}, "entry a?[2J? is int"),
        (lambda: {"a": np.float64(1)}, "it holds numpy"),
        (lambda: {"a": torch.zeros(2, 2).to_sparse()}, "a is a sparse or nested tensor"),
        (lambda: {"a": torch.empty(3, device="meta")}, "a has a shape but no values"),
        (lambda: {"a": torch.zeros(2, dtype=torch.complex64)}, "a is of type complex64"),
        (lambda: {"a": torch.zeros(2, dtype=torch.float8_e5m2)}, "a is of type float8_e5m2"),
        (lambda: {"a": torch.zeros(1).half().expand(10**12)}, "a has the shape (1000000000000,), more values than"),
        (wrap_in_itself, "dictionaries in dictionaries, more than 8 deep"),
        (lambda: nest(9), "dictionaries in dictionaries, more than 8 deep"),
    ],
)
def test_anything_but_named_plain_tensors_is_refused(tmp_path: Path, make: Callable[[], object], reason: str) -> None:
    torch.save(make(), tmp_path / "x.pth")
    assert reason in refusal(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore")  # torch's remarks on making such tensors
@pytest.mark.parametrize("kind", ["quantised", "csr", "nested"])
def test_tensors_of_unusual_layout_are_refused(tmp_path: Path, kind: str) -> None:
    plain = torch.zeros(2, 2)
    odd = {
        "quantised": lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
        "csr": plain.to_sparse_csr,
        "nested": lambda: torch.nested.nested_tensor([plain, plain]),
    }[kind]()
    torch.save({"a": odd}, tmp_path / "x.pth")
    assert refusal(tmp_path / "x.pth").endswith("; save it as a plain tensor")


def test_a_safetensors_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert "cannot be read: Error while deserializing header" in refusal(path)


def test_nested_checkpoints_and_tensors_of_other_devices_are_read(tmp_path: Path) -> None:
    torch.save(nest(7), tmp_path / "x.pth")
    assert read_state_dict(tmp_path / "x.pth").keys() == {"a"}
    save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    assert read_state_dict(tmp_path / "x.safetensors")["a"].dtype == torch.bfloat16
