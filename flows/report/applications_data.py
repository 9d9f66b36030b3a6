"""What the tables of the applications are made of: sets of outputs, and the images beside them."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.errors import UnseenError
from unseen_core.store import read_pictures

__all__ = ["Made", "labelled_pool", "side"]


@dataclass(frozen=True, eq=False)
class Made:
    """One set of outputs, uint8, and how it was made."""

    use: str
    domain: str
    fraction: float
    level: int
    factor: int
    passes: int
    seed: int
    images: Tensor


@lru_cache(maxsize=16)
def side(domain: str, name: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return the images, labels (-1: unknown) and ids of ``fit``, ``held_out`` or ``rest``.

    Raises:
        UnseenError: If the file is missing.
    """
    images, frame = read_pictures(PATHS.domain(domain) / f"{name}.parquet")
    return images, torch.tensor(frame["label"].tolist()), tuple(frame["id"].tolist())


def labelled_pool(domain: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return images, classes and ids of a domain that are not held out.

    Raises:
        UnseenError: If the domain has no labels.
    """
    sides = [side(domain, "fit")]
    if (PATHS.domain(domain) / "rest.parquet").is_file():
        sides.append(side(domain, "rest"))
    labels = torch.cat([one[1] for one in sides])
    if (labels < 0).any():
        raise UnseenError(f"applications.augment: labelled {domain} has images without a label; "
                          "choose one with labels, such as digits")
    return torch.cat([one[0] for one in sides]), labels, sum((one[2] for one in sides), ())
