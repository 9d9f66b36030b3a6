"""Whether copies help a classifier that has few labels: a small network, always trained alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from unseen_core.applications.local import mean_interval
from unseen_core.basics.images import to_float
from unseen_core.errors import UnseenError

__all__ = ["Classifier", "accuracy", "compare_arms", "draw_labels", "summary", "train_classifier"]


@dataclass(frozen=True)
class Classifier:
    """How the classifier is built and trained; the same for every set of training images.

    Attributes:
        steps: Optimiser steps, whatever the number of images.
        batch: Images a step.
        learning_rate: Of AdamW, falling to zero along a cosine.
        widths: Channels; each stage halves the sides.
        turn: Largest rotation of classical augmentation, degrees.
        shift: Largest shift of classical augmentation, share of the side.
    """

    steps: int = 250
    batch: int = 32
    learning_rate: float = 3e-3
    widths: tuple[int, ...] = (16, 32, 64)
    turn: float = 15.0
    shift: float = 0.1


def draw_labels(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Return rows of ``count`` images of every class, drawn at random, sorted; int64.

    Args:
        labels: Class of each image, int64 (n,); negative ones are unknown and never drawn.
        count: Images a class.
        seed: Of the draw.

    Raises:
        UnseenError: If there are fewer than two classes or too few images of one.
    """
    classes = labels[labels >= 0].unique()
    if len(classes) < 2:
        raise UnseenError("labels: a classifier needs two classes or more; give a labelled set")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for label in classes.tolist():
        mine = (labels == label).nonzero()[:, 0]
        if len(mine) < count:
            raise UnseenError(f"labels: class {label} has {len(mine)} images where {count} are "
                              "needed; give more, or lower the number")
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:count]])
    return torch.cat(rows).sort().values


def train_classifier(
    images: Tensor,
    labels: Tensor,
    config: Classifier,
    *,
    classes: int,
    seed: int,
    copies: Tensor | None = None,
    classical: bool = False,
) -> nn.Module:
    """Train the classifier from nothing.

    With copies every second image of a batch is one of them in place of its original: a random
    one of its own, so that classes keep their shares.

    Args:
        images: Labelled originals, uint8 (n, 3, h, w).
        labels: Their classes, int64 (n,), 0..classes - 1.
        config: Network and training.
        classes: Number of outputs.
        seed: Of weights, batches and augmentation; the caller's random state is left alone.
        copies: uint8 (n, c, 3, h, w), c copies of every original, or None.
        classical: Turn and shift every image at random.

    Returns:
        The network, in evaluation mode.

    Raises:
        UnseenError: If images, labels and copies do not fit together.
    """
    fits = copies is None or (len(copies) == len(images) and copies.shape[2:] == images.shape[1:])
    known = len(labels) == len(images) > 0 and 0 <= int(labels.min()) <= int(labels.max()) < classes
    if not fits or not known:
        raise UnseenError(f"classifier: {len(images)} images, {len(labels)} labels of {classes} "
                          "classes; give a label to each image, and copies of the same size")
    x = to_float(images)
    y = None if copies is None else to_float(copies)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(config.widths, classes)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=0.01)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    for _ in range(config.steps):
        rows = torch.randint(len(x), (config.batch,), generator=generator)
        inputs = x[rows]
        if y is not None:
            which = torch.randint(y.shape[1], (config.batch,), generator=generator)
            inputs[::2] = y[rows[::2], which[::2]]
        if classical:
            inputs = _moved(inputs, config, generator)
        loss = functional.cross_entropy(network(inputs), labels[rows], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        falling.step()
    return network.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images (n, 3, h, w) that are given their class, int64 (n,)."""
    guesses = torch.cat([network(to_float(part)).argmax(1) for part in images.split(256)])
    return (guesses == labels).double().mean().item()


def compare_arms(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    copies: Mapping[float, Tensor],
    config: Classifier,
    *,
    seed: int,
) -> dict[str, float]:
    """Train on originals alone, with copies, with classical augmentation, and with both.

    Args:
        train: Labelled originals, uint8 (n, 3, h, w), and classes, int64 (n,), from 0.
        test: Images of the same classes that training never sees.
        copies: For each fraction of noising uint8 (n, c, 3, h, w), copies of the originals.
        config: The classifier of every arm.
        seed: The same for every arm, so that arms can be paired.

    Returns:
        Accuracy by arm: ``none``, ``classical``, ``boomerang P`` and ``both P``.
    """
    classes = int(torch.cat([train[1], test[1]]).max()) + 1
    arms: dict[str, tuple[Tensor | None, bool]] = {"none": (None, False), "classical": (None, True)}
    for fraction, made in copies.items():
        arms[f"boomerang {fraction:g}"] = made, False
        arms[f"both {fraction:g}"] = made, True
    return {name: accuracy(train_classifier(*train, config, classes=classes, seed=seed,
                                            copies=made, classical=classical), *test)
            for name, (made, classical) in arms.items()}


def summary(found: Sequence[Mapping[str, float]]) -> list[dict[str, object]]:
    """Return a row for each arm: mean over seeds, deviation, intervals, difference to ``none``.

    Args:
        found: What ``compare_arms`` returned for each seed, two or more.
    """
    rows: list[dict[str, object]] = []
    for arm in found[0]:
        values = torch.tensor([one[arm] for one in found], dtype=torch.float64)
        plain = torch.tensor([one["none"] for one in found], dtype=torch.float64)
        mean, gain = mean_interval(values), mean_interval(values - plain)
        rows.append({
            "arm": arm, "seeds": len(values), "accuracy": mean.value, "sd": values.std().item(),
            "accuracy_low": mean.low, "accuracy_high": mean.high, "gain": gain.value,
            "gain_low": gain.low, "gain_high": gain.high,
        })
    return rows


def _network(widths: Sequence[int], classes: int) -> nn.Module:
    """Return convolutions of stride 2 with group normalisation, a mean over space, a linear map."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, *widths)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after),
                   nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], classes)]
    return nn.Sequential(*layers)


def _moved(images: Tensor, config: Classifier, generator: torch.Generator) -> Tensor:
    """Return images turned and shifted, each by its own amount; the edge is continued."""
    draws = torch.rand(3, len(images), generator=generator) * 2 - 1
    turn = draws[0] * config.turn * torch.pi / 180
    shift = draws[1:] * config.shift * 2  # the grid runs from -1 to 1
    first = torch.stack([turn.cos(), -turn.sin(), shift[0]], dim=1)
    second = torch.stack([turn.sin(), turn.cos(), shift[1]], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(images.shape),
                                  align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
