"""What is kept of a trained extractor: its weights, its accuracy, what it was trained on."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from unseen_core.judging.features import (
    FORMAT,
    TRAINING_IMAGES,
    Features32Net,
    image_hash,
    pixels32,
)
from unseen_core.store import file_hash
from unseen_core.training.extractor import ExtractorConfig

__all__ = ["accuracy", "save_extractor"]


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
    digest = file_hash(weights)
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
