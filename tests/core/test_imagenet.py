"""The judge trained on ImageNet, against torchvision and the original weights."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from workspace import ROOT

from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import load_extractor
from unseen_core.judging.imagenet import FeaturesImagenet, SqueezeFeatures, calibrated
from unseen_core.store import file_hash

FOLDER = ROOT / "data/embedded/features_imagenet"


def pictures(n, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = SqueezeFeatures()
    for weights in made.parameters():  # so that the last modules' outputs still vary
        if weights.ndim > 1:
            torch.nn.init.kaiming_normal_(weights)
    return made


def test_the_network_is_that_of_torchvision(network):
    from torchvision.models import squeezenet1_0
    from torchvision.models.squeezenet import Fire

    theirs = squeezenet1_0(weights=None).features.eval()
    theirs.load_state_dict({name.removeprefix("features."): value
                            for name, value in network.state_dict().items()})
    x, found = torch.randn(2, 3, 64, 64), []
    with torch.no_grad():
        means, y = network(x), x
        for layer in theirs:
            y = layer(y)
            if isinstance(layer, Fire):
                found.append(y.mean((2, 3)))
    assert len(means) == len(found) == 8
    assert all(torch.equal(a, b) for a, b in zip(means, found, strict=True))


def test_over_the_photographs_every_module_is_centred_and_of_unit_scale(network):
    photographs = pictures(20)
    features = calibrated(network, photographs)(photographs)
    assert features.shape == (20, FeaturesImagenet.dimension)
    assert features.mean(0).abs().max() < 1e-2
    for part in features.split([128, 128, 256, 256, 384, 384, 512, 512], 1):
        assert part.square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)


def test_a_saved_judge_gives_the_same_features_in_any_batch(network, tmp_path):
    judge = calibrated(network, pictures(8))
    save_file(judge.state(), tmp_path / "model.safetensors")
    again = load_extractor("features_imagenet", tmp_path)
    x = pictures(5, seed=1)
    assert torch.equal(again(x), judge(x))
    assert torch.allclose(torch.cat([again(x[:2]), again(x[2:])]), again(x), atol=1e-5)
    grey = x[:, :1]
    assert torch.equal(again(grey), again(grey.expand(-1, 3, -1, -1)))
    assert again(pictures(2, size=96)).shape == (2, 2560)


@pytest.mark.parametrize(("damage", "said"), [
    (lambda file: file.unlink(), "no such file"),
    (lambda file: file.write_bytes(b"nonsense"), "not the weights of this extractor"),
    (lambda file: save_file({"mean": torch.zeros(1)}, file), "not the weights"),
    (lambda file: save_file({"mean": torch.zeros(1), "scale": torch.ones(1)}, file),
     "loading state_dict"),
])
def test_a_damaged_judge_is_one_line(network, tmp_path, damage, said):
    file = tmp_path / "model.safetensors"
    save_file(calibrated(network, pictures(4)).state(), file)
    damage(file)
    with pytest.raises(UnseenError) as caught:
        load_extractor("features_imagenet", tmp_path)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_the_shipped_judge_is_the_one_of_its_card():
    card = (FOLDER / "README.md").read_text("utf-8")
    named = re.search(r"^\| sha256 \| (\w+) \|$", card, re.MULTILINE)[1]
    assert file_hash(FOLDER / "model.safetensors") == named
    assert (FOLDER / "model.safetensors").stat().st_size < 2_600_000


@pytest.mark.data
def test_the_shipped_weights_are_the_original_ones_rounded(shared):
    file = shared / "weights/squeezenet1_0_imagenet.pth"
    if not file.exists():
        pytest.skip("weights/squeezenet1_0_imagenet.pth is not here")
    original = torch.load(file, weights_only=True)
    shipped = load_file(FOLDER / "model.safetensors")
    assert all(torch.equal(value, original[name].half()) for name, value in shipped.items()
               if name not in ("mean", "scale"))
