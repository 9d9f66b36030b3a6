"""Extractors by name; the only module that imports clean-fid and torchvision."""

import importlib
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError, first_line
from unseen_core.judging import EXTRACTORS
from unseen_core.store import file_hash
from unseen_core.types import FeatureExtractor

__all__ = ["Inception", "SqueezeNet", "load_extractor", "metric_names", "reported"]

_INCEPTION_FILE = "inception-2015-12-05.pt"


def metric_names(extractor_name: str) -> tuple[str, str]:
    """Return the names of the kernel and the Fréchet distance under an extractor.

    Only Inception features give figures called KID and FID; no figure of one extractor is ever
    called by another's name.
    """
    if extractor_name == "inception":
        return "kid_inception", "fid_inception"
    return f"kd_{extractor_name}", f"fd_{extractor_name}"


def reported(kernel: str) -> list[str]:
    """Return the columns of a chosen cell's distance: to held-out images that no choice has seen.

    Their interval's ends come second and third. Choices look at ``<kernel>_first``.
    """
    return [f"{kernel}_second{end}" for end in ("", "_low", "_high")]


def load_extractor(
    name: str, weights: Path | None = None, sha256: str | None = None, device: str = "cpu"
) -> FeatureExtractor:
    """Build a feature extractor; nothing is ever downloaded here.

    A class with ``load(weights, device)`` is read from files. Its ``hashed`` names the file in the
    folder ``weights`` whose hash may be checked; without it ``weights`` is one file, whose hash
    must be given. Any other class is built without arguments.

    Args:
        name: One of ``EXTRACTORS``.
        weights: Folder of ``features_imagenet``, TorchScript file of ``inception`` (which
            clean-fid wants to be called inception-2015-12-05.pt), state dict of ``squeezenet``;
            the others take none.
        sha256: Hash of the weights file (of ``model.safetensors`` for ``features_imagenet``),
            checked before the file is opened. ``features_imagenet`` goes without; ``inception`` and
            ``squeezenet`` insist on it.
        device: Where the network runs.

    Raises:
        UnseenError: If the name is unknown, the weights are missing or unreadable, or the hash
            is missing or another.
    """
    if name not in EXTRACTORS:
        raise UnseenError(f"extractor {name!r} is unknown; choose one of {', '.join(EXTRACTORS)}")
    module, _, title = EXTRACTORS[name].partition(":")
    kind = getattr(importlib.import_module(f"unseen_core.judging.{module}"), title)
    if not hasattr(kind, "load"):
        return kind()
    if weights is None:
        raise UnseenError(
            f"extractor {name} needs weights; give their path, or choose features_imagenet, "
            "pixels or projections"
        )
    inside = getattr(kind, "hashed", None)
    if inside is None:
        _check_hash(weights, sha256)
    elif sha256 is not None:
        _check_hash(weights / inside, sha256)
    return kind.load(weights, device)


def _check_hash(path: Path, expected: str | None) -> None:
    """Refuse a file that is missing or whose SHA-256 is not the expected one."""
    if not path.is_file():
        raise UnseenError(
            f"{path}: no such weights file; fetch it, or choose features_imagenet, pixels "
            "or projections as the extractor"
        )
    found = file_hash(path)
    if expected is None:
        raise UnseenError(
            f"{path}: no sha256 is given for these weights; if you trust the file, "
            f"set it to {found}"
        )
    if found != expected.lower():
        raise UnseenError(
            f"{path}: sha256 is {found}, not {expected}; fetch the file again or correct the hash"
        )


class Inception:
    """Inception-V3 pooled features exactly as clean-fid takes them, dimension 2048.

    Images are resized to 299 x 299 by clean-fid's own "clean" resizer (PIL bicubic on floats;
    Parmar et al. 2022, arXiv 2104.11222).
    """

    name = "inception"
    dimension = 2048

    @classmethod
    def load(cls, weights: Path, device: str = "cpu") -> "Inception":
        """Read the weights; see the constructor."""
        return cls(weights, device)

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load the TorchScript archive; its hash must have been checked.

        Raises:
            UnseenError: If the file has another name or is not such an archive.
        """
        # Here, not above: the other extractors do without these slow imports.
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

        if path.name != _INCEPTION_FILE:
            raise UnseenError(
                f"{path}: clean-fid wants this file called {_INCEPTION_FILE}; rename it"
            )
        try:
            with warnings.catch_warnings():
                # clean-fid's weights exist as TorchScript only; nothing we can change.
                warnings.filterwarnings("ignore", ".*torch.jit.load", FutureWarning)
                network = InceptionV3W(str(path.parent), download=False)
        except (RuntimeError, AttributeError) as error:
            raise UnseenError(
                f"{path}: not clean-fid's Inception archive "
                f"({first_line(error)}); fetch it again"
            ) from error
        self._network = network.to(device).eval()
        self._resize = build_resizer("clean")
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, 2048) of uint8 images (b, 3, h, w)."""
        pictures = [self._resize(image.permute(1, 2, 0).cpu().numpy())
                    for image in with_channels(images, 3)]
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)  # (b, 3, 299, 299), 0..255
        return self._network(x.to(self._device)).float()


class SqueezeNet:
    """Globally pooled last features of torchvision's SqueezeNet 1.0, dimension 512.

    Images are resized to 227 x 227 (bilinear, antialiased) and standardised as for ImageNet.
    """

    name = "squeezenet"
    dimension = 512

    @classmethod
    def load(cls, weights: Path, device: str = "cpu") -> "SqueezeNet":
        """Read the weights; see the constructor."""
        return cls(weights, device)

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load a local state dict; its hash must have been checked.

        Raises:
            UnseenError: If the file is not a state dict of this network.
        """
        from torchvision.models import squeezenet1_0

        network = squeezenet1_0(weights=None)
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # reading a foreign file fails in any way it likes
            raise UnseenError(
                f"{path}: not a state dict of torchvision's squeezenet1_0 "
                f"({first_line(error)}); give another file"
            ) from error
        self._features: nn.Module = network.features.to(device).eval().requires_grad_(False)
        self._device = device
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
        self._scale = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, 512) of uint8 images (b, 3, h, w)."""
        x = with_channels(images, 3).to(self._device).float() / 255
        x = functional.interpolate(x, (227, 227), mode="bilinear", antialias=True)
        return self._features((x - self._mean) / self._scale).mean((2, 3))
