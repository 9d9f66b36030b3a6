"""A network on disk as a predictor of noise: exact where nothing is rounded, one line where bad."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from unseen_core.basics.device import pick_device
from unseen_core.basics.images import resize, to_float
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.errors import UnseenError

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def network(**changes: object) -> UNet2DModel:
    """An untrained U-Net of two blocks for images of 16 pixels."""
    torch.manual_seed(0)
    return UNet2DModel(**{
        "sample_size": 16, "layers_per_block": 1, "block_out_channels": (8, 16),
        "norm_num_groups": 4, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), **changes,
    }).eval()


def saved(folder: Path, unet: UNet2DModel, **scheduler: object) -> Path:
    """Write a checkpoint as diffusers does."""
    DDPMPipeline(unet, DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


def states(n: int, channels: int = 3) -> torch.Tensor:
    """Standard normals, float64 (n, channels, 16, 16)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, 16, 16, generator=generator, dtype=torch.float64)


@torch.no_grad()
def test_it_is_the_network_at_the_level_s_timestep(tmp_path: Path) -> None:
    unet, x = network(), states(3)
    model = load_model(saved(tmp_path, unet))
    assert model.shape == (3, 16, 16) and model.schedule.top == 1000
    assert not any(p.requires_grad for p in model._network.parameters())
    for level, timestep in ((0, 0), (1, 0), (2, 1), (500, 499), (1000, 999)):
        found = model(x, level)
        wanted = unet(x.float(), torch.tensor(timestep), return_dict=False)[0]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert (model(x, 1) - model(x, 500)).abs().max() > 1e-3  # the level is not ignored


@torch.no_grad()
def test_noise_is_the_first_half_of_a_network_that_predicts_variance(tmp_path: Path) -> None:
    unet, x = network(out_channels=6), states(2)
    found = load_model(saved(tmp_path, unet))(x, 300)
    wanted = unet(x.float(), 299, return_dict=False)[0]
    assert wanted.shape[1] == 6
    torch.testing.assert_close(found, wanted[:, :3], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_a_prediction_becomes_the_noise_that_diffusers_makes_of_it(
    tmp_path: Path, kind: str
) -> None:
    unet, x = network(), states(2).float()
    model = load_model(saved(tmp_path, unet, prediction_type=kind))
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(1000)
    for level in (1, 2, 500, 1000):
        output = unet(x, level - 1, return_dict=False)[0]
        wanted = scheduler.step(output, level - 1, x)
        a, s = model.schedule.a(level).item(), model.schedule.s(level).item()
        noise = model(x, level)
        torch.testing.assert_close(x, a * wanted.pred_original_sample + s * noise,
                                   rtol=1e-4, atol=1e-4)
        lower = (model.schedule.a(level - 1).item() * (x - s * noise) / a
                 + model.schedule.s(level - 1).item() * noise)
        torch.testing.assert_close(lower, wanted.prev_sample, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_bottleneck_is_the_middle_block_s_output(tmp_path: Path) -> None:
    unet, x = network(), states(3)
    model = load_model(saved(tmp_path, unet))
    found = model.bottleneck(x, 500)
    assert found.shape == (3, 16, 8, 8)
    assert not model._network.mid_block._forward_hooks
    middle = unet.mid_block.resnets[-1].register_forward_hook(
        lambda module, inputs, output: torch.testing.assert_close(output, found))
    unet(x.float(), 499)
    middle.remove()


def test_batch_size_changes_nothing(tmp_path: Path) -> None:
    model, x = load_model(saved(tmp_path, network())), states(8)
    whole = model(x, 400)
    for size in (1, 4):
        parts = torch.cat([model(part, 400) for part in x.split(size)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_bf16_is_close_and_states_stay_wide(tmp_path: Path) -> None:
    folder, x = saved(tmp_path, network()), states(4)
    full, half = load_model(folder)(x, 500), load_model(folder, precision="bf16")(x, 500)
    assert half.dtype == torch.float32
    error = (half - full).norm() / full.norm()
    assert 1e-5 < error < 3e-2


def test_the_schedule_is_the_checkpoint_s_own(tmp_path: Path) -> None:
    folder = saved(tmp_path, network(), beta_schedule="scaled_linear", num_train_timesteps=200)
    model = load_model(folder)
    wanted = DDPMScheduler(beta_schedule="scaled_linear", num_train_timesteps=200).alphas_cumprod
    torch.testing.assert_close(model.schedule.alpha_bar[1:], wanted.double(), rtol=1e-5, atol=0)


def test_a_network_of_two_sides_and_one_channel() -> None:
    unet = network(sample_size=(16, 8), in_channels=1, out_channels=1)
    model = UNetEps(unet, Schedule.linear())
    assert model.shape == (1, 16, 8)
    assert model(states(2, 1)[..., :8], 7).shape == (2, 1, 16, 8)


@torch.no_grad()
def test_a_label_is_a_shift_of_the_time_embedding() -> None:
    conditional, plain, x = network(num_class_embeds=5), network(), states(3)
    tensors = conditional.state_dict()
    shift = tensors.pop("class_embedding.weight")
    found = []
    for label in (1, 4):
        folded = dict(tensors)
        folded["time_embedding.linear_2.bias"] = folded["time_embedding.linear_2.bias"] \
            + shift[label]
        plain.load_state_dict(folded)
        wanted = UNetEps(plain, Schedule.linear())(x, 300)
        found.append(UNetEps(conditional, Schedule.linear()).bound(label)(x, 300))
        torch.testing.assert_close(found[-1], wanted, rtol=1e-5, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("classes, label, words", [
    (None, 0, "knows no classes; remove label"),
    (5, None, r"set label \(models.NAME.label\) to 0..4"),
    (5, 5, "to 0..4, the class that it is to receive, not 5"),
    (5, -1, "not -1"),
])
def test_a_label_fits_the_network(classes: int | None, label: int | None, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        UNetEps(network(num_class_embeds=classes), Schedule.linear()).bound(label)


@torch.no_grad()
def test_the_network_is_told_rescaled_timesteps(tmp_path: Path) -> None:
    unet, x = network(), states(2)
    folder = saved(tmp_path, unet, num_train_timesteps=4000, beta_schedule="squaredcos_cap_v2")
    edit(folder, "scheduler/scheduler_config.json", unseen_rescale_timesteps=True)
    model = load_model(folder)
    for level, timestep in ((0, 0.0), (2, 0.25), (1002, 250.25), (4000, 999.75)):
        wanted = unet(x.float(), torch.tensor([timestep]), return_dict=False)[0]
        torch.testing.assert_close(model(x, level), wanted, rtol=1e-5, atol=1e-5)


def edit(folder: Path, file: str, **changes: object) -> None:
    """Change keys of a config."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_weight(folder: Path) -> None:
    """Put a tensor into the weights, which diffusers alone would leave out."""
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"conv_more.weight": torch.zeros(3)}, folder / WEIGHTS)


def drop_weight(folder: Path) -> None:
    """Leave one layer out of the weights, which diffusers alone would draw at random."""
    tensors = load_file(folder / WEIGHTS)
    del tensors["conv_out.weight"]
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda f: (f / WEIGHTS).unlink(), "has no unet/diffusion_pytorch_model.safetensors"),
        (lambda f: (f / "unet/config.json").unlink(), "has no unet/config.json"),
        (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "has no scheduler"),
        (lambda f: (f / "scheduler/scheduler_config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "unet/config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:9000]),
         "cannot be loaded"),
        (lambda f: edit(f, "unet/config.json", block_out_channels=[8, 32]), "config.json wants"),
        (lambda f: edit(f, "unet/config.json", block_out_channels=[8, 10**6]),
         "config.json wants"),  # refused before any memory is asked for
        (lambda f: edit(f, "unet/config.json", down_block_types=["NoBlock", "DownBlock2D"]),
         "no UNet2DModel's"),
        (lambda f: edit(f, "unet/config.json", norm_groups=4),
         "has norm_groups, .* did you mean norm_num_groups"),
        (lambda f: edit(f, "unet/config.json", _class_name="UNet2DConditionModel"),
         "is of a UNet2DConditionModel; give a network of pixels"),
        (lambda f: edit(f, "unet/config.json", sample_size=None), "sample_size"),
        (drop_weight, "conv_out.weight"),
        (add_weight, "conv_more.weight"),
        (lambda f: edit(f, "scheduler/scheduler_config.json", prediction_type="flow_prediction"),
         "'flow_prediction' is not supported"),
        (lambda f: edit(f, "scheduler/scheduler_config.json", beta_schedule="sigmoid"),
         "'sigmoid' is not known"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # diffusers warns on its way to the error
def test_a_spoilt_checkpoint_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    folder = saved(tmp_path, network())
    spoil(folder)
    with pytest.raises(UnseenError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes, words", [
    ({"class_embed_type": "timestep"}, "class-conditional"),
    ({"out_channels": 4}, "predicts 4 channels for images of 3"),
])
def test_another_kind_of_network_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UnseenError, match=words):
        load_model(saved(tmp_path, network(**changes)))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match="give a diffusers DDPMPipeline folder"):
        load_model(tmp_path / "absent")


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda", "mps")
    for wrong in ("gpu", "tpu:0"):
        with pytest.raises(UnseenError, match="not on this machine; use auto or one of cpu"):
            pick_device(wrong)


@pytest.mark.data
def test_unseen_digits_survive_the_round_trip(shared: Path) -> None:
    folder = shared / "models/shapes32"
    if not folder.is_dir():
        pytest.skip(f"checkpoint {folder} is absent")
    model = load_model(folder)
    grey = load_digits().images[:4] / 16 * 255
    pixels = [resize(image[..., None].repeat(3, 2), 32) for image in grey]
    images = to_float(torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pixels]))
    grid = model.schedule.grid(20, 500)
    assert len(grid) == 21
    latents = invert(model, images, grid)
    assert (latents - images).norm() > images.norm() / 2  # it went somewhere
    back = denoise(model, latents, grid)
    error = (back - images).flatten(1).norm(dim=1) / images.flatten(1).norm(dim=1)
    assert error.max() < 0.01, error
