"""Features of a network that has learnt ImageNet: a judge that knows no domain of the project."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError, first_line

__all__ = ["FeaturesImagenet", "SqueezeFeatures", "calibrated"]

SIZE = 64
"""Images are enlarged, or reduced, to this side: 12 times cheaper than the 227 of the training,
and as good at telling 32 x 32 images from damaged ones (docs/judges.md)."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours
_FIRES = ((96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192),
          (384, 48, 192), (384, 64, 256), (512, 64, 256))
_POOLED_BEFORE = (0, 3, 7)  # the modules that work at half the resolution of the one before


class _Fire(nn.Module):
    """A 1 x 1 convolution to few channels, then 1 x 1 and 3 x 3 ones side by side."""

    def __init__(self, before: int, few: int, each: int) -> None:
        """Build the module: ``before`` channels to 2 ``each``."""
        super().__init__()
        self.squeeze = nn.Conv2d(before, few, 1)
        self.expand1x1 = nn.Conv2d(few, each, 1)
        self.expand3x3 = nn.Conv2d(few, each, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, 2 each, h, w) of (b, before, h, w)."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


class SqueezeFeatures(nn.Module):
    """The convolutions of SqueezeNet 1.0 (Iandola et al. 2016, arXiv 1602.07360), named as there.

    The state dict is that of torchvision's ``squeezenet1_0`` without its classifier. Importing
    torchvision takes as long as importing torch, in every stage that judges; hence these lines.
    """

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 96, 7, stride=2), nn.ReLU()]
        for number, widths in enumerate(_FIRES):
            if number in _POOLED_BEFORE:
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            layers.append(_Fire(*widths))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the spatial mean of each module's output, eight of (b, 128 .. 512)."""
        means = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, _Fire):
                means.append(x.mean((2, 3)))
        return means


class FeaturesImagenet:
    """Means over space of all eight modules of SqueezeNet 1.0, each of the same weight.

    The first modules see noise, blur and colour, the last ones what is shown. A feature is
    centred on its mean over photographs, and the features of a module are divided by the root
    mean square of what is left, so that the kernel (f·g/d + 1)³ weighs the modules alike.
    """

    name = "features_imagenet"
    hashed = "model.safetensors"
    dimension = sum(2 * each for *_, each in _FIRES)

    def __init__(self, network: SqueezeFeatures, mean: Tensor, scale: Tensor,
                 device: str = "cpu") -> None:
        """Wrap a network and its calibration, both moved to ``device``.

        Args:
            network: With ImageNet's weights.
            mean, scale: Float32 (dimension,) each, see `calibrated`.
            device: Where it runs.
        """
        self.network = network.to(device).eval().requires_grad_(False)
        self.mean, self.scale = mean.to(device), scale.to(device)
        self._colour = torch.tensor(_MEAN, device=device)[:, None, None]
        self._contrast = torch.tensor(_DEVIATION, device=device)[:, None, None]

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "FeaturesImagenet":
        """Read ``model.safetensors``, as `state` returns it.

        Raises:
            UnseenError: If the file is missing, damaged, or of another network.
        """
        file = folder / cls.hashed
        fix = "restore it with git, or choose another extractor"
        try:
            state = {name: value.float() for name, value in load_file(file).items()}
            mean, scale = state.pop("mean"), state.pop("scale")
            network = SqueezeFeatures()
            network.load_state_dict(state)
        except FileNotFoundError as error:
            raise UnseenError(f"{file}: no such file; {fix}") from error
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            text = first_line(error)
            raise UnseenError(f"{file}: not the weights of this extractor ({text}); {fix}") \
                from error
        return cls(network, mean, scale, device)

    def state(self) -> dict[str, Tensor]:
        """Return what ``model.safetensors`` holds: float16 weights, float32 mean and scale."""
        halves = {name: value.half().cpu() for name, value in self.network.state_dict().items()}
        return {**halves, "mean": self.mean.cpu(), "scale": self.scale.cpu()}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, 2560) of uint8 images (b, 3, h, w), or (b, 1, h, w)."""
        x = with_channels(images, 3).to(self.mean.device).float() / 255
        if x.shape[-2:] != (SIZE, SIZE):
            x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        found = torch.cat(self.network((x - self._colour) / self._contrast), 1)
        return (found - self.mean) / self.scale


@torch.inference_mode()
def calibrated(network: SqueezeFeatures, photographs: Tensor) -> FeaturesImagenet:
    """Return the extractor with its mean and scale taken over photographs.

    Args:
        network: With ImageNet's weights, which are rounded to float16 first, as they are kept.
        photographs: uint8 (n, 3, h, w), n >= 2, of the size that will be judged.
    """
    network.half().float()
    plain = FeaturesImagenet(network, torch.zeros(()), torch.ones(()))
    found = torch.cat([plain(part) for part in photographs.split(64)]).double()
    widths = [2 * each for *_, each in _FIRES]
    left = (found - found.mean(0)).split(widths, 1)
    scale = torch.cat([part.square().mean().sqrt().expand(part.shape[1]) for part in left])
    return FeaturesImagenet(network, found.mean(0).float(), scale.float())
