"""`pretrain --domain`: a network, its card and its own images; and a training that goes on."""

import json

import pytest
import torch
from safetensors.torch import load_file
from workspace import DOMAIN, MODEL, SIZE, change

from flows.dispatch import run_stage
from flows.settings.paths import PATHS
from unseen_core.diffusion.denoiser import load_model
from unseen_core.errors import UnseenError
from unseen_core.store import read_pictures


@pytest.fixture
def small(done, monkeypatch):
    """A finished project whose training takes two steps."""
    monkeypatch.setattr("flows.stages.pretrain._SAMPLE_STEPS", 2)
    monkeypatch.setattr("flows.stages.pretrain._OWN", 3)
    monkeypatch.setattr("flows.stages.pretrain._OWN_CALLS", 3)
    for key, value in {"steps": 2, "batch": 4, "channels": [32, 32]}.items():
        change(done, "pretrain", key, to=value)
    return done


def test_a_network_comes_with_its_card_and_images_of_its_own(small):
    run_stage("pretrain", {"domain": DOMAIN})
    out = PATHS.trained(DOMAIN)
    card = json.loads((out / "card.json").read_text())
    assert card["training"]["steps"] == 2 and card["steps before"] == 0
    weights = load_file(out / "unet/diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    images, frame = read_pictures(out / "own.parquet")
    assert images.shape == (3, 3, SIZE, SIZE) and len(set(frame["id"])) == 3
    assert load_model(out).shape == (3, SIZE, SIZE)
    assert (out / "samples.png").stat().st_size > 0

    # A second training begins with these weights, and its card counts both.
    change(small, "pretrain", "start", to=str(out))
    change(small, "pretrain", "steps", to=3)
    run_stage("pretrain", {"domain": DOMAIN})
    again = json.loads((out / "card.json").read_text())
    assert (again["steps before"], again["begun from"]) == (2, card["sha256"])


def test_what_cannot_be_trained_on_is_refused(small):
    change(small, "pretrain", "start", to=str(PATHS.model(MODEL)))
    with pytest.raises(UnseenError, match=r"card\.json"):
        run_stage("pretrain", {"domain": DOMAIN})
    change(small, "pretrain", "start", to=None)
    change(small, "pretrain", "batch", to=500)
    with pytest.raises(UnseenError, match="too few to train on"):
        run_stage("pretrain", {"domain": DOMAIN})
