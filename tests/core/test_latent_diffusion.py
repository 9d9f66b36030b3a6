"""A Stable Diffusion folder as network and codec: what diffusers computes, and every sampler."""

from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.diffusion.latent_diffusion import LatentDiffusion, load_latent_diffusion
from unseen_core.diffusion.transport import ancestral, denoise, invert
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import Envelope
from unseen_core.laws.references import References
from unseen_core.starts import StartContext, build_sampler
from unseen_core.types import Pixels

PROMPT, NEGATIVE = "red", "a b"
KINDS = ("epsilon", "v_prediction")
SHAPE = (4, 8, 8)


@cache
def pipeline(folder: Path) -> StableDiffusionPipeline:
    """The pipeline of diffusers itself, under DDIM without clipping."""
    found = StableDiffusionPipeline.from_pretrained(
        folder, local_files_only=True, safety_checker=None, requires_safety_checker=False)
    # The last step goes to the clean image itself, as ours does.
    found.scheduler = DDIMScheduler.from_config(found.scheduler.config, set_alpha_to_one=True,
                                                steps_offset=0)
    found.set_progress_bar_config(disable=True)
    return found


def states(n: int, *shape: int) -> Tensor:
    """Standard normals, float32 (n, *shape)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape, generator=generator)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, pipelines: dict[str, Path]) -> Path:
    """A pipeline of each kind of prediction."""
    return pipelines[request.param]


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_final_latents_are_those_of_diffusers(folder: Path, guidance: float) -> None:
    model = load_latent_diffusion(folder, prompt=PROMPT, negative=NEGATIVE, guidance=guidance)
    x = states(3, *SHAPE)
    wanted = pipeline(folder)(
        [PROMPT] * 3, negative_prompt=[NEGATIVE] * 3, latents=x, guidance_scale=guidance,
        num_inference_steps=10, eta=0.0, output_type="latent").images
    levels = (0, *range(1, 1001, 100))
    found = denoise(model, x, levels, method="ddim")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - x).abs().max() > 0.1


@torch.no_grad()
def test_noise_of_a_velocity_and_of_a_noise_are_told_apart(pipelines: dict[str, Path]) -> None:
    x, level = states(2, *SHAPE), 400
    for kind in KINDS:
        model = load_latent_diffusion(pipelines[kind], prompt=PROMPT)
        output = model.unet(x, level - 1, model.prompt.expand(2, -1, -1), return_dict=False)[0]
        a, s = model.schedule.a(level).item(), model.schedule.s(level).item()
        wanted = output if kind == "epsilon" else a * output + s * x
        torch.testing.assert_close(model(x, level), wanted, rtol=1e-5, atol=1e-5)
    assert model.schedule.prediction == "v_prediction"
    # scaled_linear, as diffusers tabulates it
    wanted_bar = pipeline(pipelines["epsilon"]).scheduler.alphas_cumprod[level - 1]
    assert a**2 == pytest.approx(wanted_bar.item(), rel=1e-5)


def test_prompt_negative_and_guidance_each_change_the_noise(pipelines: dict[str, Path]) -> None:
    x, folder = states(2, *SHAPE), pipelines["v_prediction"]

    def noise(prompt: str, negative: str = "", guidance: float = 1.0) -> Tensor:
        return load_latent_diffusion(folder, prompt=prompt, negative=negative,
                                     guidance=guidance)(x, 500)

    plain = noise(PROMPT)
    assert (noise("blue") - plain).abs().max() > 1e-4
    torch.testing.assert_close(noise(PROMPT, NEGATIVE), plain)  # no guidance: no negative prompt
    told, free = noise(PROMPT), noise(NEGATIVE)
    torch.testing.assert_close(noise(PROMPT, NEGATIVE, 3.0), free + 3.0 * (told - free),
                               rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_codec_is_the_autoencoder_with_its_scale(folder: Path) -> None:
    model, vae = load_latent_diffusion(folder), pipeline(folder).vae
    images = states(3, 3, 16, 16).clamp(-1, 1)
    found = model.encode(images)
    wanted = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert found.shape == (3, *model.shape) and model.size == 16
    torch.testing.assert_close(model.decode(found), vae.decode(wanted / vae.config.scaling_factor,
                                                              return_dict=False)[0])
    with pytest.raises(UnseenError, match="give 3 x 16 x 16"):
        model.encode(states(1, 3, 32, 32))
    assert Pixels().decode(Pixels().encode(images)) is images


def test_a_configured_shift_is_taken_off_and_put_back(pipelines: dict[str, Path]) -> None:
    plain = load_latent_diffusion(pipelines["epsilon"])
    images = states(1, 3, 16, 16)
    before = plain.encode(images)
    plain.vae.register_to_config(shift_factor=0.5)
    shifted = LatentDiffusion(plain.unet, plain.vae, plain.schedule, prompt=plain.prompt)
    moved = shifted.encode(images)
    torch.testing.assert_close(moved, before - 0.5 * plain.vae.config.scaling_factor)
    torch.testing.assert_close(shifted.decode(moved), plain.decode(before))


def test_slices_and_precision_keep_the_result(pipelines: dict[str, Path]) -> None:
    folder = pipelines["epsilon"]
    whole, cut = (load_latent_diffusion(folder, prompt=PROMPT, guidance=2.0, batch=batch)
                  for batch in (8, 2))
    x = states(5, *SHAPE)
    torch.testing.assert_close(cut(x, 300), whole(x, 300), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cut.decode(x), whole.decode(x), rtol=1e-4, atol=1e-5)
    half = load_latent_diffusion(folder, prompt=PROMPT, guidance=2.0, precision="bf16")
    assert half.unet.dtype == torch.bfloat16 and half.vae.dtype == torch.float32
    found, wanted = half(x, 300), whole(x, 300)
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 0.2 * wanted.norm()
    assert not any(p.requires_grad for p in [*whole.unet.parameters(), *whole.vae.parameters()])


def context(model: LatentDiffusion, images: Tensor, level: int) -> StartContext:
    """What samplers see of the images' latents."""
    clean = References.of(model.encode(images))
    free = torch.full((5,), torch.inf, dtype=torch.float64)
    return StartContext(model.schedule, level, clean, {}, Envelope(-free, free, 1.0), images=clean)


@pytest.mark.parametrize("settings", [
    {"sampler": "signal-leak", "kind": "dct", "rank": 1}, {"sampler": "boomerang"},
    {"sampler": "signal-leak", "kind": "diagonal"}, {"sampler": "style-noise"},
])
def test_samplers_of_images_run_on_latents(folder: Path, settings: dict[str, object]) -> None:
    model = load_latent_diffusion(folder, prompt=PROMPT)
    images, streams = states(8, 3, 16, 16).clamp(-1, 1), Streams(0, "starts", ["0", "1"])
    starts = build_sampler("x", settings).draw(context(model, images, 500), streams)
    assert starts.x.shape == (2, *SHAPE)
    grid = model.schedule.grid(6, 500)
    if starts.eta:
        down = ancestral(model, starts.x, grid, eta=starts.eta, streams=streams)
    else:
        down = denoise(model, starts.x, grid)
    pictures = model.decode(down)
    assert pictures.shape == (2, 3, 16, 16) and pictures.isfinite().all()
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3


def test_boomerang_at_level_0_is_the_autoencoder_alone(folder: Path) -> None:
    model = load_latent_diffusion(folder, prompt=PROMPT)
    images = states(4, 3, 16, 16).clamp(-1, 1)
    starts = build_sampler("x", {"sampler": "boomerang"}).draw(
        context(model, images, 0), Streams(0, "starts", ["0", "1", "2", "3"]))
    found = model.decode(denoise(model, starts.x, (0,)))
    torch.testing.assert_close(found, model.decode(model.encode(images)))


def test_inversion_returns_without_guidance(pipelines: dict[str, Path]) -> None:
    model = load_latent_diffusion(pipelines["epsilon"], prompt=PROMPT)
    x = states(2, *SHAPE)
    grid = model.schedule.grid(20, 500)
    back = denoise(model, invert(model, x, grid), grid)
    assert (back - x).norm() < 0.02 * x.norm()


@pytest.mark.parametrize("wrong", [{"guidance": -1.0}, {"batch": 0}, {"guidance": float("nan")}])
def test_numbers_out_of_range_are_one_line(pipelines: dict[str, Path], wrong: dict) -> None:
    with pytest.raises(UnseenError, match="out of range") as caught:
        load_latent_diffusion(pipelines["epsilon"], **wrong)
    assert len(str(caught.value).splitlines()) == 1
