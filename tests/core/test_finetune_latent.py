"""Style noise in latent space: the copy learns, the frozen model stays as it is."""

from pathlib import Path

import pytest
import torch

from unseen_core.basics.images import to_float
from unseen_core.diffusion.latent_diffusion import load_latent_diffusion
from unseen_core.errors import UnseenError
from unseen_core.training.finetune import FinetuneConfig
from unseen_core.training.finetune_latent import finetune_latent

CONFIG = FinetuneConfig(steps=12, batch=4, learning_rate=2e-3, warmup=1)


def pictures(n: int) -> torch.Tensor:
    """uint8 images (n, 3, 16, 16), each of one colour and a little noise."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(40, 200, (n, 3, 1, 1), generator=generator)
    return (colours + torch.randint(0, 30, (n, 3, 16, 16), generator=generator)).byte()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_copy_learns_and_the_model_stays(pipelines: dict[str, Path], kind: str) -> None:
    model = load_latent_diffusion(pipelines[kind], prompt="red", guidance=3.0)
    before = {name: x.clone() for name, x in model.unet.state_dict().items()}
    images = pictures(6)
    tuned = finetune_latent(model, images, CONFIG, style=True)
    for name, x in model.unet.state_dict().items():
        assert torch.equal(x, before[name])
    assert any((x != before[name]).any() for name, x in tuned.unet.state_dict().items())
    assert sum(tuned.losses[-3:]) < 0.5 * sum(tuned.losses[:3])
    latents = model.encode(to_float(images)).flatten(1).double().numpy()
    torch.testing.assert_close(tuned.noise.mean, torch.from_numpy(latents.mean(0)))
    torch.testing.assert_close(tuned.noise.diagonal, torch.from_numpy(latents.var(0, ddof=1)))
    assert not any(p.requires_grad for p in tuned.unet.parameters())


def test_white_noise_has_no_law_and_the_prompt_counts(pipelines: dict[str, Path]) -> None:
    short = FinetuneConfig(steps=1, batch=2)
    losses = [finetune_latent(load_latent_diffusion(pipelines["epsilon"], prompt=prompt),
                              pictures(2), short, style=False) for prompt in ("red", "blue")]
    assert losses[0].noise is None
    assert losses[0].losses != losses[1].losses
    half = load_latent_diffusion(pipelines["epsilon"], precision="bf16")
    with pytest.raises(UnseenError, match="float32"):
        finetune_latent(half, pictures(2), short, style=False)
