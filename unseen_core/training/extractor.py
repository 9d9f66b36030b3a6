"""Training of ``features32``: a small network classifies domains and classes, in minutes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unseen_core.errors import UnseenError
from unseen_core.judging.features import SIZE, Features32Net, pixels32

__all__ = ["ExtractorConfig", "train_extractor"]

_SHIFT = 2
_OUTLINE = 8  # side of the outline that features must be able to redraw


@dataclass(frozen=True)
class ExtractorConfig:
    """What fixes a trained extractor, apart from its images.

    ``steps`` optimiser steps of ``batch`` images; learning rate warmed up over a twentieth of
    the steps, then cosine to zero. ``widths`` are the channels from full resolution down.
    ``outline`` weighs the loss of the redrawn outline. ``unflipped`` lists the domain labels that
    are never mirrored, such as digits.
    """

    steps: int = 600
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    widths: tuple[int, ...] = (32, 64, 96, 128)
    outline: float = 1.0
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
    noise. The loss is the sum of the two cross entropies and of ``config.outline`` times the
    error of an 8 x 8 outline of the image redrawn linearly from the features, over its variance
    in the domain. Without it the features of a domain without classes collapse to a point, where
    no distance separates a good sample from a bad one. The result depends on the arguments only,
    and the global random state is left as it was.

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
        redraw = nn.Linear(config.widths[-1], 3 * _OUTLINE**2)
    spread = _outline_variance(images, domains)
    optimiser = torch.optim.AdamW(
        [*network.parameters(), *redraw.parameters()],
        config.learning_rate,
        weight_decay=config.weight_decay,
    )
    warm = max(1, config.steps // 20)
    for step in range(config.steps):
        rows = torch.multinomial(weights, config.batch, replacement=True, generator=generator)
        x = _augment(images[rows], still[rows], generator)
        for group in optimiser.param_groups:
            fall = 0.5 * (1 + math.cos(math.pi * step / config.steps))
            group["lr"] = config.learning_rate * fall * min(1, (step + 1) / warm)
        pooled = network.pooled(x)
        loss = functional.cross_entropy(network.domain_head(pooled), domains[rows])
        named = classes[rows] >= 0
        if named.any():
            class_logits = network.class_head(pooled[named])
            loss = loss + functional.cross_entropy(class_logits, classes[rows][named])
        error = (redraw(pooled) - _outline(x)).square().mean(1) / spread[domains[rows]]
        loss = loss + config.outline * error.mean()
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


def _outline(x: Tensor) -> Tensor:
    """Return the 8 x 8 block means of float images (b, 3, 32, 32), flat (b, 192)."""
    return functional.adaptive_avg_pool2d(x, _OUTLINE).flatten(1)


def _outline_variance(images: Tensor, domains: Tensor) -> Tensor:
    """Return each domain's mean variance of the outline's pixels, shape (number of domains,)."""
    outlines = _outline(pixels32(images))
    means = [outlines[domains == label].var(0, correction=0).mean()
             if (domains == label).any() else outlines.new_ones(())
             for label in range(int(domains.max()) + 1)]
    return torch.stack(means).clamp_min(1e-6)


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
