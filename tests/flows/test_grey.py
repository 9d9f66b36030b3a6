"""A network of one channel through the pipeline: images become grey, judges see three channels."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from workspace import (
    CHAIN,
    DOMAIN,
    MODEL,
    OTHER,
    SEEN,
    SIZE,
    change,
    draw_pictures,
    fetch_all,
    run_stages,
)

from flows.dispatch import run_stage
from flows.loading.fitted import channels_of, references_at
from flows.loading.frozen import load_frozen
from flows.report.applications_data import side
from unseen_core.basics.images import to_float, with_channels
from unseen_core.errors import UnseenError
from unseen_core.judging.features import Pixels
from unseen_core.store import TensorStore, read_json, read_pictures, read_tensors


def save_network(folder: Path, channels: int) -> None:
    """Write a U-Net of so many channels with random weights."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIZE, in_channels=channels, out_channels=channels, block_out_channels=(8, 8),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2)
    DDPMPipeline(network, DDPMScheduler(clip_sample=False)).save_pretrained(folder)


@pytest.fixture
def grey(workspace: Path) -> Iterator[Path]:
    """A project with a network of one channel, fetched with its domains."""
    side.cache_clear()  # it knows images by their domain's name, which other projects share
    save_network(workspace / "grey", 1)
    change(workspace, "models", MODEL, "path", to="grey")
    fetch_all((DOMAIN, OTHER, SEEN))
    yield workspace
    side.cache_clear()


@pytest.mark.parametrize("domain", [OTHER, DOMAIN])  # grey images, and coloured ones
def test_grey_images_go_through_the_pipeline(grey: Path, domain: str) -> None:
    run_stage("invert", {"model": MODEL})
    run_stages(CHAIN, domain)
    data = Path("data")
    fit, _ = read_pictures(data / "source/domains" / domain / "fit.parquet")
    assert fit.shape[1] == 3 and channels_of(MODEL) == 1
    store = TensorStore(data / "latents" / MODEL / domain)
    assert store.shape == (1, SIZE, SIZE)
    pixels, _ = references_at(MODEL, domain, 0)
    assert torch.equal(pixels.rows([0, 1]), to_float(with_channels(fit, 1)[:2]))
    if domain == OTHER:
        assert torch.equal(pixels.rows([0, 1]), to_float(fit[:2, :1]))
    starts = read_tensors(data / "starts" / MODEL / domain / "L0100-noise/part-00000.safetensors")
    assert starts["x"].shape[1:] == (1, SIZE, SIZE)
    generated = data / "generated" / MODEL / domain
    images, _ = read_pictures(generated / "L0100-reconstruction.parquet")
    assert images.shape[1:] == (1, SIZE, SIZE)
    with Image.open(generated / "L0100-reconstruction.png") as sheet:
        assert sheet.mode == "RGB"
    rows = read_json(data / "metrics" / MODEL / f"{domain}.json")["cells"]
    assert len(rows) > 10 and all(row["metrics"]["kd_projections"] is not None for row in rows)
    assert read_json(data / "selection" / MODEL / f"{domain}.json")["candidates"] > 0


def test_what_looks_at_a_grey_network_works(grey: Path) -> None:
    for domain in (OTHER, SEEN):
        change(grey, "domains", domain, "fit", to=16)
        change(grey, "domains", domain, "limit", to=40)
    fetch_all((OTHER, SEEN))
    run_stage("invert", {"model": MODEL})
    run_stages(["invert", "fit", "analyze"], OTHER)
    assert read_json(Path("data/analysis", MODEL, OTHER, "analysis.json"))["levels"]
    run_stages(["invert"])
    for name in ("trajectory", "steer", "applications"):
        run_stage(name, {"model": MODEL})
    seen, _ = read_pictures(Path("data/source/models", MODEL, "seen.parquet"))
    assert seen.shape[1] == 1


def test_a_folder_is_read_as_the_network_takes_it(grey: Path, command) -> None:
    draw_pictures(grey / "mine", 4, seed=3)
    code, _, said = command("generate", "mine", "out", "--model", MODEL, "--sampler", "signal-leak",
                            "--set", "kind=diagonal", "--level", 200, "--count", 3, "--steps", 4)
    assert code == 0, said
    modes = {}
    for file in Path("out").glob("*.png"):
        with Image.open(file) as picture:
            modes[file.name] = picture.mode
    assert modes.pop("sheet.png") == "RGB"
    assert len(modes) == 3 and set(modes.values()) == {"L"}


def test_a_network_of_two_channels_is_one_line(workspace: Path) -> None:
    save_network(workspace / "two", 2)
    change(workspace, "models", MODEL, "path", to="two")
    run_stage("fetch", {"domain": SEEN})
    with pytest.raises(UnseenError, match=r"models\.tiny works on images of 2 channels; give"):
        run_stage("fetch_model", {"model": MODEL})


def test_models_of_differing_channels_share_a_domain(grey: Path) -> None:
    from flows.settings.params import load_params

    models = load_params().model_dump(mode="json", exclude_unset=True)["models"]
    change(grey, "models", to=models | {"coloured": {"path": "checkpoint", "seen": SEEN}})
    run_stage("fetch_model", {"model": "coloured"})
    for model, channels in ((MODEL, 1), ("coloured", 3)):
        run_stage("invert", {"model": model, "domain": DOMAIN})
        assert TensorStore(Path("data/latents", model, DOMAIN)).shape[0] == channels
        opened = load_frozen(model, device="cpu", precision="float32", batch=1)
        assert (opened.channels, opened.size, opened.name) == (channels, SIZE, model)


def test_channels_are_changed_without_loss_of_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 256, (70, 1, 8, 8), generator=generator, dtype=torch.uint8)
    three = with_channels(one, 3)
    assert torch.equal(three, one.repeat(1, 3, 1, 1)) and torch.equal(with_channels(three, 1), one)
    assert with_channels(three, 3) is three
    assert torch.equal(Pixels()(one), Pixels()(three))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert with_channels(red, 1).item() == 76  # 0.299 x 255
    for wrong, channels in ((three[:, :2], 3), (three.float(), 1), (three[0], 1), (three, 4)):
        with pytest.raises(UnseenError, match=r"channels|give uint8"):
            with_channels(wrong, channels)
