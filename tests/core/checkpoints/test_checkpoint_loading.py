"""The public loader: every layout of diffusers, single files, and what it stores of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from published import SMALL_DDPM, SMALL_GUIDED, SMALL_IDDPM, random_state
from safetensors.torch import load_file, save_file
from torch import nn

from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.loading import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    weights_files,
)
from unseen_core.checkpoints.network import CONFIG, HEADS, LABEL, SCHEDULER, WEIGHTS
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.errors import UnseenError

LEGACY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SMALL = Architecture(image_size=8, num_heads=2, use_new_attention_order=False,
                     noise_schedule="linear", diffusion_steps=1000)
BEYOND = {"noise_schedule": "cosine", "diffusion_steps": 4000, "rescale_timesteps": True}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``DDPMPipeline`` folder as diffusers writes it; read only."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"))
    folder = tmp_path_factory.mktemp("pipeline")
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="scaled_linear")).save_pretrained(folder)
    return folder


def x(n: int = 2) -> torch.Tensor:
    """States, float32 (n, 3, 8, 8)."""
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def noise(loaded: Checkpoint) -> torch.Tensor:
    """What a network predicts at level 300."""
    return UNetEps(loaded.network, loaded.schedule)(x(), 300)


def old_layout(pipeline: Path, folder: Path, *, safetensors: bool) -> Path:
    """The layout of the first hub repositories: all at the root, attention layers by old names."""
    tensors = load_file(pipeline / WEIGHTS)
    for new, old in LEGACY.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert any(".query." in name for name in tensors)
    if safetensors:
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    else:
        torch.save(tensors, folder / "diffusion_pytorch_model.bin")
    config = json.loads((pipeline / CONFIG).read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_diffusers_version": "0.1.1"}))
    (folder / "scheduler_config.json").write_text((pipeline / SCHEDULER).read_text())
    return folder


@pytest.mark.parametrize("safetensors", [True, False])
def test_the_old_layout_of_the_hub_is_the_same_network(
    pipeline: Path, tmp_path: Path, safetensors: bool
) -> None:
    folder = old_layout(pipeline, tmp_path, safetensors=safetensors)
    assert [file.parent for file in weights_files(folder)] == [folder]
    loaded, wanted = load_checkpoint(folder), load_checkpoint(pipeline)
    assert torch.equal(noise(loaded), noise(wanted))
    assert loaded.scheduler["beta_schedule"] == "scaled_linear"
    assert loaded.shape == (3, 8, 8) and loaded.folder is None and wanted.folder == pipeline


def test_a_pipeline_with_a_bin_is_the_same_network(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    for part in (CONFIG, SCHEDULER):
        (tmp_path / part).write_bytes((pipeline / part).read_bytes())
    torch.save(load_file(pipeline / WEIGHTS), tmp_path / "unet/diffusion_pytorch_model.bin")
    assert torch.equal(noise(load_checkpoint(tmp_path)), noise(load_checkpoint(pipeline)))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("spread", [False, True])
def test_weights_in_fp16_alone_or_in_several_files_are_the_same_network(
    pipeline: Path, tmp_path: Path, half: bool, spread: bool
) -> None:
    unet = UNet2DModel.from_pretrained(pipeline / "unet", low_cpu_mem_usage=False)
    wanted = {name: (x.half() if half else x).float() for name, x in unet.state_dict().items()}
    (unet.half() if half else unet).save_pretrained(
        tmp_path / "unet", variant="fp16" if half else None,
        max_shard_size="20KB" if spread else "1GB")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / SCHEDULER).write_bytes((pipeline / SCHEDULER).read_bytes())
    files = weights_files(tmp_path)
    assert (len(files) > 1) == spread and all(file.suffix == ".safetensors" for file in files)
    found = load_checkpoint(tmp_path).network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    if spread:
        files[1].unlink()
        with pytest.raises(UnseenError, match=rf"{files[1].name} does not exist"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize("index, words", [
    ({"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]},
     "is a LDMPipeline with a vqvae; give a DDPMPipeline or .* work on pixels alone"),
    ({"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]},
     "are for `generate`"),
    ({"_class_name": "DDPMPipeline", "vqvae": ["diffusers", "VQModel"]}, "with a vqvae"),
    ({"_class_name": "ScoreSdeVePipeline"}, "is a ScoreSdeVePipeline; give a"),
])
def test_a_pipeline_of_something_else_than_pixels_is_refused(
    pipeline: Path, tmp_path: Path, index: dict[str, object], words: str
) -> None:
    shutil.copytree(pipeline, tmp_path / "x")
    (tmp_path / "x/model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnseenError, match=words):
        load_checkpoint(tmp_path / "x")


def test_folders_without_weights_name_what_they_hold(pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / "x")
    (tmp_path / "x" / WEIGHTS).rename(tmp_path / "x/unet/model.ckpt")
    with pytest.raises(UnseenError, match=r"safetensors but config\.json, model\.ckpt"):
        load_checkpoint(tmp_path / "x")


def test_sizes_without_convolutions_are_pooled_and_repeated(tmp_path: Path) -> None:
    state = {name: x for name, x in random_state(SMALL_DDPM).items() if "sample.conv." not in name}
    assert len(state) < len(random_state(SMALL_DDPM))
    torch.save(state, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt", architecture=SMALL)
    seen = []

    def watch(wanted: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        def hook(module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            torch.testing.assert_close(output, wanted(inputs[0]))
            seen.append(output.shape[-1])
        return hook

    for block in loaded.network.down_blocks[:-1]:
        block.downsamplers[0].register_forward_hook(watch(lambda h: nn.functional.avg_pool2d(h, 2)))
    for block in loaded.network.up_blocks[:-1]:
        block.upsamplers[0].register_forward_hook(
            watch(lambda h: h.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    wanted = noise(loaded)
    assert seen == sorted(seen[: len(seen) // 2], reverse=True) + sorted(seen[len(seen) // 2 :])
    assert len(seen) == 2 * (len(loaded.network.down_blocks) - 1)
    save_checkpoint(loaded, tmp_path / "out")
    assert torch.equal(load_model(tmp_path / "out")(x(), 300), wanted)
    with pytest.raises(UnseenError, match="sizes halved by average pooling"):
        loaded.check_diffusers()


def test_a_pipeline_is_stored_as_it_is(pipeline: Path, tmp_path: Path) -> None:
    save_checkpoint(load_checkpoint(pipeline).labelled(None), tmp_path)
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert found == sorted([WEIGHTS, CONFIG, SCHEDULER])
    for part in found:
        assert (tmp_path / part).read_bytes() == (pipeline / part).read_bytes()


@pytest.mark.parametrize("shapes, changes, label", [
    (SMALL_DDPM, {}, None),
    (SMALL_DDPM, {"beta_start": 0.001, "beta_end": 0.01}, None),
    (SMALL_IDDPM, {"num_heads": 4}, None),
    (SMALL_IDDPM, {"num_heads": None, "num_head_channels": 16, **BEYOND}, None),
    (SMALL_GUIDED, {"use_new_attention_order": True}, 3),
    (SMALL_IDDPM, BEYOND, None),
])
def test_a_file_is_stored_and_loaded_again_as_the_same_denoiser(
    tmp_path: Path, shapes, changes: dict[str, object], label: int | None
) -> None:
    torch.save(random_state(shapes), tmp_path / "x.pt")
    asked = Architecture.from_settings({**vars(SMALL), **changes})
    loaded = load_checkpoint(tmp_path / "x.pt", architecture=asked).labelled(label)
    save_checkpoint(loaded, tmp_path / "out")
    again = load_model(tmp_path / "out")
    wanted = UNetEps(loaded.network, loaded.schedule).bound(label)
    assert torch.equal(again.schedule.alpha_bar, wanted.schedule.alpha_bar)
    for level in (0, 500, 1000):
        assert again.schedule.timestep(level) == wanted.schedule.timestep(level)
        assert torch.equal(again(x(), level), wanted(x(), level))
    config = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert "_name_or_path" not in config and config.get(LABEL) == label
    # Only there several heads meet attentions of two widths.
    assert (HEADS in config) == (shapes is SMALL_IDDPM and "num_head_channels" not in changes)


def test_the_schedule_of_a_file_is_that_of_guided_diffusion(tmp_path: Path) -> None:
    torch.save(random_state(SMALL_DDPM), tmp_path / "x.pt")
    for steps in (250, 4000):
        asked = Architecture(image_size=8, noise_schedule="linear", diffusion_steps=steps,
                             rescale_timesteps=False)
        schedule = load_checkpoint(tmp_path / "x.pt", architecture=asked).schedule
        betas = 1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]
        ends = torch.tensor([0.1 / steps, 20 / steps], dtype=torch.float64)
        torch.testing.assert_close(betas[[0, -1]], ends, rtol=1e-6, atol=1e-9)
        assert schedule.top == steps
    cosine = load_checkpoint(tmp_path / "x.pt", architecture=Architecture.from_settings(
        {"image_size": 8, **BEYOND})).schedule
    t = torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64)
    bar = ((t + 0.008) / 1.008 * torch.pi / 2).cos().square()
    torch.testing.assert_close(cosine.alpha_bar[[0, 1000, 2000]], bar / bar[0])
    last = 1 - cosine.alpha_bar[-1] / cosine.alpha_bar[-2]
    assert last.item() == pytest.approx(0.999)


def test_the_size_may_come_from_elsewhere(tmp_path: Path) -> None:
    torch.save(random_state(SMALL_DDPM), tmp_path / "x.pt")
    bare = Architecture(noise_schedule="linear", diffusion_steps=1000)
    assert load_checkpoint(tmp_path / "x.pt", architecture=bare, size=16).shape == (3, 16, 16)
    found = load_checkpoint(tmp_path / "x.pt", architecture=SMALL, size=16)
    assert found.shape == (3, 8, 8)
    with pytest.raises(UnseenError, match=r"x\.pt: the file does not record image_size"):
        load_checkpoint(tmp_path / "x.pt", architecture=bare)


@pytest.mark.parametrize("missing", ["noise_schedule", "diffusion_steps", "rescale_timesteps"])
def test_a_schedule_is_not_guessed(tmp_path: Path, missing: str) -> None:
    torch.save(random_state(SMALL_DDPM), tmp_path / "x.pt")
    given = {"image_size": 8, **BEYOND, missing: None}
    with pytest.raises(UnseenError, match=f"set architecture.{missing}"):
        load_checkpoint(tmp_path / "x.pt", architecture=Architecture.from_settings(given))


def test_files_of_other_families_are_one_line(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match=r"give the folder with their config\.json"):
        load_checkpoint(pipeline / WEIGHTS, architecture=SMALL)
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(UnseenError, match=r"a tensor 'layer\.weight' is of no known family"):
        load_checkpoint(tmp_path / "x.pt", architecture=SMALL)
    with pytest.raises(UnseenError, match="describes itself; remove architecture"):
        load_checkpoint(pipeline, architecture=SMALL)


@pytest.mark.parametrize("part", ["config.json", "scheduler_config.json",
                                  "diffusion_pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["absent", "cut", "foreign"])
def test_a_damaged_old_layout_is_one_line(
    pipeline: Path, tmp_path: Path, part: str, damage: str
) -> None:
    file = old_layout(pipeline, tmp_path, safetensors=False) / part
    data = file.read_bytes()
    file.unlink()
    if damage != "absent":
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"[1, 2, 3]")
    with pytest.raises(UnseenError) as caught:
        load_checkpoint(tmp_path)
    assert tmp_path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage, words", [
    (lambda state: state.pop("conv_out.bias"), "lack 'conv_out.bias'"),
    (lambda state: state.update(more=torch.zeros(1)), "have 'more', for which"),
    (lambda state: state.update({"conv_in.weight": torch.zeros(3, 8, 3, 3)}),
     "'conv_in.weight' as"),
])
def test_weights_that_do_not_fit_their_config_are_named(
    pipeline: Path, tmp_path: Path, damage, words: str
) -> None:
    old_layout(pipeline, tmp_path, safetensors=False)
    state = load_file(pipeline / WEIGHTS)
    damage(state)
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(UnseenError, match=words):
        load_checkpoint(tmp_path)


def test_what_diffusers_would_lose_is_refused(tmp_path: Path) -> None:
    torch.save(random_state(SMALL_IDDPM), tmp_path / "x.pt")
    heads = load_checkpoint(tmp_path / "x.pt", architecture=SMALL)
    with pytest.raises(UnseenError, match=r"fixed number of heads over .* give the file itself"):
        heads.check_diffusers()
    rescaled = load_checkpoint(tmp_path / "x.pt", architecture=Architecture.from_settings(
        {"image_size": 8, "num_heads": 1, **BEYOND}))
    with pytest.raises(UnseenError, match="timesteps rescaled to a thousand"):
        rescaled.check_diffusers()
    load_checkpoint(tmp_path / "x.pt", architecture=Architecture.from_settings(
        {"preset": "iddpm-lsun", "image_size": 8})).check_diffusers()
