"""States pass the codec of the model: encoded before inversion, decoded after denoising."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from workspace import MODEL, OTHER, SEEN, change, fetch_all, run_stages

import flows.stages.analyze
import flows.stages.denoise
import flows.stages.invert
from flows.dispatch import run_stage
from flows.loading.frozen import load_frozen
from flows.loading.opened import Opened
from unseen_core.analysis.latents.reconstruction import reconstruction
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.judging.metrics import psnr
from unseen_core.store import TensorStore, read_json, read_pictures, read_tensors
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
    for domain in (OTHER, SEEN):
        change(workspace, "domains", domain, "fit", to=16)
        change(workspace, "domains", domain, "limit", to=40)
    fetch_all((OTHER, SEEN))

    def load(*args: object, **kwargs: object) -> Opened:
        return replace(load_frozen(*args, **kwargs), codec=Turned())

    for stage in STAGES:
        monkeypatch.setattr(stage, "load_frozen", load)
    run_stage("invert", {"model": MODEL})
    run_stages(["invert", "fit", "finetune", "sample", "denoise", "analyze"], OTHER)
    opened, codec = load_frozen(MODEL, device="cpu", precision="float32", batch=1), Turned()
    assert isinstance(opened.codec, Pixels)
    images, frame = read_pictures(Path("data/source/domains", OTHER, "fit.parquet"))
    store = TensorStore(Path("data/latents", MODEL, OTHER))
    grid = tuple(store.manifest["grid"])
    part = grid[: grid.index(100) + 1]
    wanted = invert(opened.network, codec.encode(to_float(images)), part)
    torch.testing.assert_close(store.rows(100, frame["id"].tolist()), wanted, rtol=1e-3, atol=1e-3)
    generated = Path("data/generated", MODEL, OTHER)
    made, _ = read_pictures(generated / "L0100-noise.parquet")
    starts = [read_tensors(file)["x"] for file in sorted(
        Path("data/starts", MODEL, OTHER, "L0100-noise").glob("*.safetensors"))]
    pixels = to_uint8(codec.decode(denoise(opened.network, torch.cat(starts), part)))
    assert (made.int() - pixels.int()).abs().max() <= 1
    # Pixel space is no state: those start states are the images themselves.
    starts = read_tensors(Path("data/starts", MODEL, OTHER, "L0000-pixel-blend",
                               "part-00000.safetensors"))
    drawn, _ = read_pictures(generated / "L0000-pixel-blend.parquet")
    assert torch.equal(drawn[: len(starts["x"])], to_uint8(starts["x"]))
    # Without fresh noise the analysis sees the originals again.
    analysis = read_json(Path("data/analysis", MODEL, OTHER, "analysis.json"))
    assert analysis["levels"]["100"]["bandwidth"]["content"]["kept"][0] > 0.9
    x = to_float(images[:3])
    trip, *_ = reconstruction(opened.network, codec, x, [100], [6], method="dpm3m",
                              spacing="karras")
    grid = opened.network.schedule.grid(6, 100)
    back = codec.decode(denoise(opened.network, invert(opened.network, codec.encode(x), grid),
                                grid))
    assert trip["psnr"] == pytest.approx(psnr((back.double() + 1) / 2,
                                              (x.double() + 1) / 2).median().item(), rel=1e-4)
