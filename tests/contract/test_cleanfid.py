"""Our distances and extractors against clean-fid and torchvision themselves."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from draws import normal
from torch import Tensor, nn

from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import load_extractor, metric_names
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import frechet_distance, kernel_distance

pytestmark = pytest.mark.contract
NAME = "inception-2015-12-05.pt"


# clean-fid 0.1.35 calls sqrtm(disp=...)
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize("n, m, d, relative", [(300, 200, 24, 1e-10), (20, 25, 64, 1e-6)])
def test_frechet_is_clean_fids(n: int, m: int, d: int, relative: float) -> None:
    from cleanfid.fid import fid_from_feats

    x, y = normal(n, d, 0), normal(m, d, 1) * 1.3 + 0.2
    assert frechet_distance(x, y) == pytest.approx(
        float(fid_from_feats(x.numpy(), y.numpy())), rel=relative
    )


def test_kernel_distance_of_whole_sets_is_clean_fids() -> None:
    from cleanfid.fid import kernel_distance as wanted

    x, y = normal(70, 32, 0), normal(70, 32, 1) + 0.3
    # At equal sizes clean-fid's one subset is the whole set.
    assert kernel_distance(x, y, draws=0).value == pytest.approx(
        wanted(x.numpy(), y.numpy(), num_subsets=1, max_subset_size=70), rel=1e-9)


class Layers(nn.Module):
    """Stands for Inception's layers: channel means of what clean-fid hands over."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).repeat(1, 683)[:, :2048]


class Archive(nn.Module):
    """Stands for clean-fid's archive, which keeps its layers in one attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def archive(folder: Path) -> tuple[Path, str]:
    path = folder / NAME
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated as a whole
        torch.jit.script(Archive()).save(str(path))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_inception_runs_behind_clean_fids_resizer(tmp_path: Path) -> None:
    from cleanfid.resize import build_resizer

    path, digest = archive(tmp_path)
    extractor = load_extractor("inception", path, digest)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 32, 40), dtype=torch.uint8, generator=generator)
    features = extract(extractor, images, batch=2)
    assert features.shape == (3, 2048) and features.dtype == torch.float32
    resize = build_resizer("clean")
    # In float64: numpy's own float32 mean over 299 x 299 pixels is off by the tolerance.
    wanted = [resize(image.permute(1, 2, 0).numpy()).mean((0, 1), dtype=np.float64) / 128 - 1
              for image in images]
    np.testing.assert_allclose(features[:, :3].numpy(), wanted, atol=1e-5)


def test_weights_are_hashed_before_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = archive(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("opened before its hash was checked")

    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", refuse)
        patch.setattr(torch, "load", refuse)
        for name in ("inception", "squeezenet"):
            with pytest.raises(UnseenError, match=f"sha256 is {digest}, not 00"):
                load_extractor(name, path, "00")
            with pytest.raises(UnseenError, match=f"set it to {digest}"):
                load_extractor(name, path)
    with pytest.raises(UnseenError, match="not a state dict"):
        load_extractor("squeezenet", path, digest)
    path.write_bytes(b"no archive")
    with pytest.raises(UnseenError, match="not clean-fid's Inception archive"):
        load_extractor("inception", path, hashlib.sha256(b"no archive").hexdigest())
    other = tmp_path / "inception.pt"
    path.rename(other)
    with pytest.raises(UnseenError, match="rename it"):
        load_extractor("inception", other, hashlib.sha256(b"no archive").hexdigest())


def test_names_and_missing_weights(tmp_path: Path) -> None:
    for name in ("pixels", "projections"):
        assert load_extractor(name).name == name
    with pytest.raises(UnseenError, match="choose one of features_imagenet, pixels"):
        load_extractor("inceptoin")
    for name in ("features_imagenet", "inception", "squeezenet"):
        with pytest.raises(UnseenError, match="needs weights"):
            load_extractor(name)
        with pytest.raises(UnseenError, match="no such"):
            load_extractor(name, tmp_path / "absent")
    assert metric_names("inception") == ("kid_inception", "fid_inception")
    assert metric_names("squeezenet") == ("kd_squeezenet", "fd_squeezenet")


@pytest.mark.data
def test_squeezenet_is_torchvisions(shared: Path) -> None:
    from torchvision.models import squeezenet1_0
    from torchvision.transforms.v2.functional import normalize, resize

    path = shared / "weights/squeezenet1_0_imagenet.pth"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    extractor = load_extractor("squeezenet", path, digest)
    images = torch.randint(0, 256, (2, 3, 40, 32), dtype=torch.uint8)
    features = extract(extractor, images)

    network = squeezenet1_0(weights=None).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    x = resize(images.float() / 255, [227, 227], antialias=True)
    x = normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        wanted = network.features(x).mean((2, 3))
    assert features.shape == (2, 512) and features.std() > 0
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)
