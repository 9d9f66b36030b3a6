"""Training of ``features32``: domains and classes told apart by a small network, in minutes."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unseen_core.errors import UnseenError
from unseen_core.features import (
    FORMAT,
    SIZE,
    TRAINING_IMAGES,
    Features32Net,
    image_hash,
    overlap,
    pixels32,
)

__all__ = [
    "ExtractorConfig",
    "Features32Net",
    "accuracy",
    "overlap",
    "save_extractor",
    "train_extractor",
]

_SHIFT = 2


@dataclass(frozen=True)
class ExtractorConfig:
    """What fixes a trained extractor, apart from its images.

    ``steps`` optimiser steps of ``batch`` images; learning rate warmed up over a twentieth of
    the steps, then cosine to zero. ``widths`` are the channels from full resolution down.
    ``unflipped`` lists the domain labels that are never mirrored, such as digits.
    """

    steps: int = 600
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    widths: tuple[int, ...] = (32, 64, 96, 128)
    unflipped: tuple[int, ...] = ()
    seed: int = 0


def train_extractor(
    images: Tensor,
    domains: Tensor,
    classes: Tensor,
    config: ExtractorConfig,
    observe: Callable[[int, float], None] | None = None,
) -> Features32Net:
    """Train a network to name the domain of an image and, where it has one, its class.

    Domains are drawn with equal probability whatever their size. Each image is shifted by up to
    2 pixels, mirrored (except ``config.unflipped``), and changed in brightness, contrast and
    noise. The loss is the sum of the two cross entropies. The result depends on the arguments
    only; the global random state is left as it was.

    Args:
        images: uint8, shape (n, 3, 32, 32), n >= 2; never images kept for judging.
        domains: int64 (n,), labels from 0.
        classes: int64 (n,), labels from 0, -1 for an image without class.
        config: Size and length of the training.
        observe: Called with (step, loss) after each step.

    Returns:
        The network with normalisation folded in, ready for ``Features32``; its features have
        mean 0 and standard deviation 1 over ``images``.

    Raises:
        UnseenError: If shapes, types, labels or numbers do not fit, or the loss is not finite.
    """
    _check(images, domains, classes, config)
    generator = torch.Generator().manual_seed(config.seed)
    weights = 1 / torch.bincount(domains).double()[domains]
    still = torch.isin(domains, torch.tensor(config.unflipped, dtype=torch.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _with_norms(
            Features32Net(config.widths, int(domains.max()) + 1, max(1, int(classes.max()) + 1))
        )
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    warm = max(1, config.steps // 20)
    for step in range(config.steps):
        rows = torch.multinomial(weights, config.batch, replacement=True, generator=generator)
        x = _augment(images[rows], still[rows], generator)
        for group in optimiser.param_groups:
            fall = 0.5 * (1 + math.cos(math.pi * step / config.steps))
            group["lr"] = config.learning_rate * fall * min(1, (step + 1) / warm)
        domain_logits, class_logits = network.logits(x)
        loss = functional.cross_entropy(domain_logits, domains[rows])
        named = classes[rows] >= 0
        if named.any():
            loss = loss + functional.cross_entropy(class_logits[named], classes[rows][named])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        value = loss.item()
        if not math.isfinite(value):
            raise UnseenError(f"extractor: the loss became {value} at step {step + 1}; lower its "
                              "learning_rate")
        if observe is not None:
            observe(step + 1, value)
    return _standardised(_folded(network), images)


def _check(images: Tensor, domains: Tensor, classes: Tensor, config: ExtractorConfig) -> None:
    """Refuse arguments that do not fit together."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
        raise UnseenError(f"extractor: images of {images.dtype} and shape {tuple(images.shape)}; "
                          "it is trained on uint8 of shape (n, 3, 32, 32)")
    for name, labels in (("domains", domains), ("classes", classes)):
        if labels.dtype != torch.int64 or labels.shape != (len(images),):
            raise UnseenError(f"extractor: {name} of {labels.dtype} and shape "
                              f"{tuple(labels.shape)}; give one int64 label per image")
    if len(images) < 2 or domains.min() < 0 or classes.min() < -1:
        raise UnseenError("extractor: it takes two images or more, domain labels >= 0 and class "
                          "labels >= -1")
    if config.steps < 1 or config.batch < 2 or not config.widths:
        raise UnseenError(f"extractor: steps {config.steps}, batch {config.batch}, widths "
                          f"{config.widths}; use steps >= 1, batch >= 2 and at least one width")


def _augment(images: Tensor, still: Tensor, generator: torch.Generator) -> Tensor:
    """Return float32 images in [0, 1], shifted, mirrored, recoloured, with noise."""
    n = len(images)
    x = functional.pad(pixels32(images), (_SHIFT,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * _SHIFT + 1, (2, n, 1), generator=generator)
    axis = torch.arange(SIZE)
    mirrored = (torch.rand(n, 1, generator=generator) < 0.5) & ~still[:, None]
    columns = left + torch.where(mirrored, axis.flip(0), axis)
    rows = (top + axis)[:, None, :, None]
    x = x[torch.arange(n)[:, None, None, None], torch.arange(3)[:, None, None], rows,
          columns[:, None, None, :]]
    contrast = 0.8 + 0.4 * torch.rand(n, 1, 1, 1, generator=generator)
    brightness = 0.2 * torch.rand(n, 1, 1, 1, generator=generator) - 0.1
    noise = 0.03 * torch.rand(n, 1, 1, 1, generator=generator)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean + brightness
    return (x + noise * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def _with_norms(network: Features32Net) -> Features32Net:
    """Put a batch normalisation after every convolution."""
    layers: list[nn.Module] = []
    for layer in network.trunk:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
    network.trunk = nn.Sequential(*layers)
    return network.train()


def _folded(network: Features32Net) -> Features32Net:
    """Fold every batch normalisation into the convolution before it."""
    network.eval()
    layers: list[nn.Module] = []
    for layer in network.trunk:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    network.trunk = nn.Sequential(*layers)
    return network.requires_grad_(False)


@torch.inference_mode()
def _standardised(network: Features32Net, images: Tensor) -> Features32Net:
    """Set the mean and scale of the features from the training images, without augmentation."""
    pooled = torch.cat([network.pooled(pixels32(part)).double() for part in images.split(256)])
    network.mean.copy_(pooled.mean(0))
    # A feature that never fires would divide by zero; it keeps its own, tiny scale.
    scale = pooled.std(0, correction=0)
    network.scale.copy_(torch.where(scale > 1e-4 * scale.max(), scale, 1.0))
    return network


@torch.inference_mode()
def accuracy(
    network: Features32Net, images: Tensor, domains: Tensor, classes: Tensor
) -> tuple[float, float]:
    """Share of images whose domain, and of classed images whose class, is named rightly.

    Args:
        network: A trained network.
        images: uint8, shape (n, 3, h, w), held out from the training, n >= 1.
        domains: int64 (n,).
        classes: int64 (n,), -1 for an image without class.

    Returns:
        Domain accuracy and class accuracy in [0, 1]; the latter is nan without classed images.
    """
    logits = [network.logits(pixels32(part)) for part in images.split(256)]
    named = classes >= 0
    domain = torch.cat([pair[0] for pair in logits]).argmax(1) == domains
    label = torch.cat([pair[1] for pair in logits]).argmax(1)[named] == classes[named]
    return domain.double().mean().item(), label.double().mean().item()


def save_extractor(
    folder: Path, network: Features32Net, images: Tensor, card: Mapping[str, object],
    config: ExtractorConfig,
) -> str:
    """Write ``model.safetensors``, ``config.json`` and ``training_images.txt``.

    Args:
        folder: Made where it is missing; files of these names are replaced.
        network: A trained network.
        images: Every training image, uint8 (n, 3, 32, 32): their hashes are stored.
        card: What else the reader of ``config.json`` should know, such as the names of domains
            and classes and the held-out accuracy; values must be JSON.
        config: How the network was trained.

    Returns:
        The SHA-256 of ``model.safetensors``, which is in ``config.json`` too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    about = {
        "format": FORMAT,
        "widths": list(network.widths),
        "domains": network.domain_head.out_features,
        "classes": network.class_head.out_features,
        "training": asdict(config),
        "card": dict(card),
        "sha256": digest,
    }
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    hashes = sorted({image_hash(image) for image in images})
    (folder / TRAINING_IMAGES).write_text("\n".join(hashes) + "\n")
    return digest
