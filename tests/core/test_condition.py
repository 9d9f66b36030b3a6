"""A condition is bound to a network: closed forms, direct calls, and batches of conditions."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from published import SMALL_GUIDED, random_state
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.loading import load_checkpoint
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.latent_diffusion import embed, load_latent_diffusion
from unseen_core.diffusion.oracle import MixtureEps
from unseen_core.diffusion.transport import denoise, integrate, invert
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 2, 2)
CLASSES = torch.tensor([2, 0, 1, 2, 0])
PROMPTS = ["red", "a b", "blue"]


def normal(name: str, *shape: int) -> Tensor:
    """Standard normals that belong to ``name``, float64."""
    return Streams(0, "condition", [name]).normal(*shape)[0]


def oracle(schedule: Schedule) -> MixtureEps:
    """Three classes with means and variances of their own."""
    return MixtureEps(schedule, SHAPE, torch.ones(3), 2 * normal("means", 3, 4),
                      normal("variances", 3, 4).square() + 0.1)


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    """An untrained class-conditional U-Net of five classes, for images of 16 pixels."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), num_class_embeds=5).eval()


def test_each_class_of_an_oracle_is_inverted_by_its_own_affine_map(schedule: Schedule) -> None:
    model, x = oracle(schedule), normal("x", 5, *SHAPE)
    levels = (1, *range(20, 501, 20))
    found = integrate(model.bound(CLASSES), x, levels, method="ddim").flatten(1)
    a, s = schedule.a(levels), schedule.s(levels)
    for row, i in enumerate(CLASSES.tolist()):
        mean, variance = model.means[i], model.variances[i]
        deviation = x[row].flatten() - a[0] * mean
        for k in range(len(levels) - 1):
            both = a[k] * a[k + 1] * variance + s[k] * s[k + 1]
            deviation = deviation * both / (a[k] ** 2 * variance + s[k] ** 2)
        torch.testing.assert_close(found[row], a[-1] * mean + deviation, rtol=0, atol=1e-12)
        alone = integrate(model.bound(i), x[row : row + 1], levels, method="ddim")
        assert torch.equal(alone.flatten(), found[row])
    free = integrate(model, x, levels, method="ddim").flatten(1)
    assert (free - found).abs().max() > 0.1
    assert torch.equal(integrate(model.bound(0).bound(None), x, levels, method="ddim").flatten(1),
                       free)


def test_every_class_tends_to_the_exact_flow_of_its_law(schedule: Schedule) -> None:
    model, x = oracle(schedule), normal("x", 5, *SHAPE)
    found = integrate(model.bound(CLASSES), x, tuple(range(1, 501))).flatten(1)
    for row, i in enumerate(CLASSES.tolist()):
        law = Gaussian(model.means[i], torch.zeros(4, 0), model.variances[i])
        exact = law.transport(x[row : row + 1].flatten(1), schedule, 1, 500)[0]
        torch.testing.assert_close(found[row], exact, rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_bound_network_is_the_network_called_with_its_classes(unet: UNet2DModel) -> None:
    model, x = UNetEps(unet, Schedule.linear()), normal("images", 5, 3, 16, 16).float()
    wanted = unet(x, 299, class_labels=CLASSES, return_dict=False)[0]
    found = model.bound(CLASSES)(x, 300)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for i in range(5):
        told = model.bound(i)
        wanted = unet(x, 299, class_labels=torch.full((5,), i), return_dict=False)[0]
        torch.testing.assert_close(told(x, 300), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(told(x, 300)[CLASSES == i], found[CLASSES == i], rtol=1e-5,
                                   atol=1e-5)
        assert told._network is model._network  # one set of weights
    assert (model.bound(0)(x, 300) - model.bound(1)(x, 300)).abs().max() > 1e-3
    assert torch.equal(model.bound(0).bound(3)(x, 300), model.bound(3)(x, 300))
    deep = torch.cat([model.bound(CLASSES[i : i + 1]).bottleneck(x[i : i + 1], 300)
                      for i in range(5)])
    torch.testing.assert_close(model.bound(CLASSES).bottleneck(x, 300), deep, rtol=1e-5, atol=1e-5)


def test_classes_are_cut_with_the_states(unet: UNet2DModel) -> None:
    model, x = UNetEps(unet, Schedule.linear()), normal("images", 5, 3, 16, 16).float()
    grid = model.schedule.grid(5, 400)
    for carry in (invert, denoise):
        whole = carry(model.bound(CLASSES), x, grid)
        parts = torch.cat([carry(model.bound(CLASSES[i : i + 2]), x[i : i + 2], grid)
                           for i in range(0, 5, 2)])
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
        single = torch.cat([carry(model.bound(label), x[i : i + 1], grid)
                            for i, label in enumerate(CLASSES.tolist())])
        torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_published_class_conditional_file_is_bound_to_classes(tmp_path: Path) -> None:
    torch.save(random_state(SMALL_GUIDED), tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt", architecture=Architecture(
        image_size=8, num_heads=1, noise_schedule="linear", diffusion_steps=1000))
    model, x = UNetEps(loaded.network, loaded.schedule), normal("small", 5, 3, 8, 8).float()
    wanted = loaded.network(x, 299, class_labels=CLASSES, return_dict=False)[0][:, :3]
    torch.testing.assert_close(model.bound(CLASSES)(x, 300), wanted, rtol=1e-4, atol=1e-4)
    assert (model.bound(0)(x, 300) - wanted).abs().max() > 1e-3


def test_an_unbound_class_conditional_folder_asks_for_a_class(
    tmp_path: Path, unet: UNet2DModel
) -> None:
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    model, x = load_model(tmp_path), torch.zeros(2, 3, 16, 16)
    with pytest.raises(UnseenError, match=r"class-conditional; set label .* to 0\.\.4") as caught:
        model(x, 300)
    assert "\n" not in str(caught.value)
    assert torch.equal(model.bound(4)(x, 300), UNetEps(unet, model.schedule).bound(4)(x, 300))


@pytest.mark.parametrize("condition, words", [
    (None, "set label"), (5, "not 5"), (-1, "not -1"), (torch.tensor([0, 7]), "not 7"),
    (torch.tensor([0.5]), "not torch.float32"), (torch.zeros(1, 4, 8), r"of shape \(1, 4, 8\)"),
    (torch.empty(0, dtype=torch.int64), r"of shape \(0,\)"),
])
def test_a_wrong_class_is_one_line(unet: UNet2DModel, condition, words: str) -> None:
    with pytest.raises(UnseenError, match=words) as caught:
        UNetEps(unet, Schedule.linear()).bound(condition)
    assert "0..4" in str(caught.value) and "\n" not in str(caught.value)


def test_classes_of_another_number_of_states_are_refused(
    unet: UNet2DModel, schedule: Schedule
) -> None:
    for model in (UNetEps(unet, schedule), oracle(schedule)):
        for classes, count in ((CLASSES, 4), (CLASSES[:1], 2)):
            x = torch.zeros(count, *model.shape)
            with pytest.raises(UnseenError, match=f"{len(classes)} classes are bound and {count}"):
                model.bound(classes)(x, 300)
    for wrong in (3, -1, torch.tensor([0, 3]), torch.zeros(2)):
        with pytest.raises(UnseenError, match=r"its classes are 0\.\.2"):
            oracle(schedule).bound(wrong)


def test_an_unconditional_network_takes_none_and_no_class() -> None:
    torch.manual_seed(0)
    plain = UNetEps(UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2),
        Schedule.linear())
    x = torch.ones(2, 3, 8, 8)
    assert torch.equal(plain.bound(None)(x, 300), plain(x, 300))
    for condition in (0, torch.tensor([0, 1])):
        with pytest.raises(UnseenError, match="knows no classes; remove label"):
            plain.bound(condition)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_latent_model_bound_twice_is_two_that_were_loaded(
    pipelines: dict[str, Path], guidance: float
) -> None:
    folder, x = pipelines["epsilon"], normal("latents", 3, 4, 8, 8).float()
    model = load_latent_diffusion(folder, prompt="red", negative="a b", guidance=guidance)
    prompts = embed(folder, PROMPTS)
    assert torch.equal(prompts[:1], model.prompt)
    each = []
    for i, prompt in enumerate(PROMPTS):
        loaded = load_latent_diffusion(folder, prompt=prompt, negative="a b", guidance=guidance)
        each.append(loaded(x[i : i + 1], 400))
        bound = model.bound(prompts[i : i + 1])
        assert torch.equal(bound(x, 400), loaded(x, 400)) and bound.unet is model.unet
    torch.testing.assert_close(model.bound(prompts)(x, 400), torch.cat(each), rtol=1e-4, atol=1e-5)
    cut = load_latent_diffusion(folder, negative="a b", guidance=guidance, batch=2)
    torch.testing.assert_close(cut.bound(prompts)(x, 400), torch.cat(each), rtol=1e-4, atol=1e-5)
    assert (each[0] - model.bound(prompts[2:])(x[:1], 400)).abs().max() > 1e-4


def test_no_prompt_is_the_negative_one_without_guidance(pipelines: dict[str, Path]) -> None:
    folder, x = pipelines["epsilon"], normal("latents", 3, 4, 8, 8).float()
    guided = load_latent_diffusion(folder, prompt="red", negative="a b", guidance=3.0)
    alone = load_latent_diffusion(folder, prompt="a b")
    assert torch.equal(guided.bound(None)(x, 400), alone(x, 400))
    again = guided.bound(None).bound(guided.prompt)
    assert torch.equal(again(x, 400), guided(x, 400))


@pytest.mark.parametrize("condition, words", [
    (3, "not 3"), (torch.tensor([1, 2]), r"not \(2,\)"), (torch.zeros(1, 4, 999), "999"),
])
def test_a_wrong_prompt_is_one_line(pipelines: dict[str, Path], condition, words: str) -> None:
    model = load_latent_diffusion(pipelines["epsilon"])
    with pytest.raises(UnseenError, match=words) as caught:
        model.bound(condition)
    assert "embeddings of prompts" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UnseenError, match="3 prompts are bound and 2 states"):
        model.bound(model.prompt.repeat(3, 1, 1))(torch.zeros(2, 4, 8, 8), 400)
