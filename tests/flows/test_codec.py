"""States pass the codec of the model: encoded before inversion, decoded after denoising."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from workspace import DOMAIN, MODEL, SEEN, fetch_all, run_stages

import flows.stages.analyze
import flows.stages.denoise
import flows.stages.invert
from flows.dispatch import run_stage
from flows.loading.frozen import load_frozen
from flows.loading.opened import Opened
from unseen_core.store import TensorStore, read_pictures, read_tensors
from unseen_core.types import Pixels

STAGES = (flows.stages.invert, flows.stages.denoise, flows.stages.analyze)


class Turned:
    """Half the range and upside down, so that neither way can be left out unseen."""

    def encode(self, images: Tensor) -> Tensor:
        """Return the images as states."""
        return images.flip(2) / 2

    def decode(self, states: Tensor) -> Tensor:
        """Return the states as images."""
        return states.flip(2) * 2


def test_stages_encode_images_and_decode_states(workspace: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_all((DOMAIN, SEEN))
    opened: list[Opened] = []

    def load(*args: object, **kwargs: object) -> Opened:
        opened.append(replace(load_frozen(*args, **kwargs), codec=Turned()))
        return opened[-1]

    run_stage("invert", {"model": MODEL})
    run_stages(["invert"])
    plain = TensorStore(Path("data/latents", MODEL, DOMAIN))
    before = plain.rows(100, plain.ids)
    assert isinstance(load_frozen(MODEL, device="cpu", precision="float32", batch=1).codec, Pixels)
    for stage in STAGES:
        monkeypatch.setattr(stage, "load_frozen", load)
    run_stage("invert", {"model": MODEL})
    run_stages(["invert", "fit", "finetune", "sample", "denoise", "analyze"])
    assert opened
    store = TensorStore(Path("data/latents", MODEL, DOMAIN))
    latents = store.rows(100, store.ids)
    assert (latents - before).abs().max() > 0.1
    images, frame = read_pictures(Path("data/source/domains", DOMAIN, "fit.parquet"))
    assert list(store.ids) == frame["id"].tolist()
    generated = Path("data/generated", MODEL, DOMAIN)
    back, made = read_pictures(generated / "L0100-reconstruction.parquet")
    rows = {key: row for row, key in enumerate(frame["id"])}
    wanted = images[[rows[key] for key in made["parents"]]]
    # The codec undone: what was inverted comes back the right way up, in its own range.
    near = (back.float() - wanted.float()).abs().mean()
    assert near < 0.2 * (back.float() - wanted.flip(2).float()).abs().mean()
    # Pixel space is no state: those start states are the images themselves.
    starts = read_tensors(Path("data/starts", MODEL, DOMAIN, "L0000-pixel-blend",
                               "part-00000.safetensors"))
    drawn, _ = read_pictures(generated / "L0000-pixel-blend.parquet")
    whole = ((starts["x"].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(drawn[: len(whole)], whole)
