"""Files of tensors: every usual container, and one line for what is none; code never runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unseen_core.checkpoints.reading import read_state
from unseen_core.errors import UnseenError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -0.5])}
RAW = {name: tensor + 100 for name, tensor in STATE.items()}
OPTIMISER = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}


def under_module(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As DataParallel names them."""
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("content", [
    STATE,
    under_module(STATE),
    {"state_dict": STATE, "epoch": 3},
    {"model": RAW, "ema": under_module(STATE), "step": 7},
    [under_module(RAW), OPTIMISER, 4, 1000, STATE],
    [under_module(STATE), OPTIMISER, 4, 1000],
], ids=["plain", "parallel", "lightning", "average", "ddim with average", "ddim"])
@pytest.mark.parametrize("zipped", [True, False])
def test_usual_containers_give_the_same_state(
    tmp_path: Path, content: object, zipped: bool
) -> None:
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    found = read_state(tmp_path / "x.ckpt")
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_all_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pt")
    for file in ("x.safetensors", "x.pt"):
        found = read_state(tmp_path / file)
        assert {x.dtype for x in found.values()} == {torch.float32}
        assert torch.equal(found["a.weight"], STATE["a.weight"])


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_code_in_a_pickle_never_runs(tmp_path: Path, zipped: bool, inside: bool) -> None:
    trap = Trap(tmp_path / "sprung")
    content = {**STATE, "b": trap} if inside else trap
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnseenError, match="code in it is never run") as caught:
        read_state(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "sprung").exists()  # the trap works where it is not stopped


@pytest.mark.parametrize("content, words", [
    ({**STATE, "steps": torch.tensor([3])}, "'steps' is torch.int64"),
    ({**STATE, "c": torch.tensor([1 + 1j])}, "'c' is torch.complex64"),
    ({**STATE, "c": torch.tensor([1.0, float("nan")])}, "'c' is not finite"),
    ({**STATE, "c": torch.tensor([float("inf")])}, "'c' is not finite"),
    ({**STATE, "epoch": 3}, "holds no state dict"),
    ({0: torch.zeros(2)}, "holds no state dict"),
    ({"weights": STATE}, "holds no state dict"),
    ({}, "holds no state dict"),
    ([1, 2], "holds no state dict"),
    (torch.zeros(3), "holds no state dict"),
    ("text", "holds no state dict"),
])
def test_what_is_no_state_dict_is_one_line(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UnseenError, match=words) as caught:
        read_state(tmp_path / "x.pt")
    assert "x.pt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_line(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else torch.save(STATE, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnseenError, match=f"{name} is damaged") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\x80\x02.", b"PK\x03\x04", b"hello", b"<html></html>"])
def test_other_files_are_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(UnseenError, match=r"x\.bin is damaged"):
        read_state(tmp_path / "x.bin")
    with pytest.raises(UnseenError, match="does not exist"):
        read_state(tmp_path / "y.bin")
