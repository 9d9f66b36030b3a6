"""What every image source takes and gives."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["SourceConfig", "SourceImages", "collect", "printable"]

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class SourceConfig:
    """Where a domain's images come from and what becomes of them.

    Attributes:
        kind: A key of ``sources.SOURCES``.
        domain: Name of the domain, ``[a-z0-9][a-z0-9_-]*``; it starts every sample id.
        path: Folder, .zip or .npz of the kinds that read files; None otherwise.
        crop: Cut the central square out before resizing; otherwise images are stretched.
        skip_bad: Skip and list unusable files; False: the first one raises.
        max_pixels: Largest width times height of a file that is decoded.
        size: Side of the images in pixels, >= 8.
        seed: Seed of drawn images (``shapes``); file sources ignore it.
        limit: Take the first ``limit`` usable images in the source's order; None: all.
    """

    kind: str
    domain: str
    path: str | None = None
    crop: bool = False
    skip_bad: bool = True
    max_pixels: int = 64_000_000
    size: int = 32
    seed: int = 0
    limit: int | None = None

    def checked(self) -> "SourceConfig":
        """Return this configuration, or raise UnseenError naming the value out of range."""
        if not _DOMAIN.fullmatch(self.domain):
            rule = "use small letters, digits, _ and -, starting with a letter or digit"
            raise UnseenError(f"domain name {self.domain!r}: {rule}")
        if not 8 <= self.size <= 4096:
            raise UnseenError(f"domain {self.domain}: size must be 8..4096, not {self.size}")
        if self.limit is not None and self.limit < 1:
            raise UnseenError(f"domain {self.domain}: limit must be >= 1, not {self.limit}")
        if self.max_pixels < 64:
            found = self.max_pixels
            raise UnseenError(f"domain {self.domain}: max_pixels must be >= 64, not {found}")
        return self

    def existing_path(self) -> Path:
        """Return ``path`` as a Path, or raise UnseenError where it is missing."""
        if not self.path:
            raise UnseenError(f"domain {self.domain}: source {self.kind!r} needs a path")
        path = Path(self.path)
        if not path.exists():
            raise UnseenError(f"domain {self.domain}: {self.path} does not exist; mend its path")
        return path


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The usable images of one domain.

    Attributes:
        domain: Name of the domain.
        images: uint8, shape (n, 3, size, size), n >= 1, no two alike.
        ids: ``<domain>-<first 12 hex digits of the SHA-256 of the image's pixels>``, n of them.
        labels: Class of each image, int64 of shape (n,), or None.
        groups: Images of one group stay on one side of a split; int64 of shape (n,), or None.
        skipped: Name and reason of every file that was left out, exact duplicates among them.
        licence: Under which terms the images may be used.
        origin: Where they come from.
    """

    domain: str
    images: Tensor
    ids: tuple[str, ...]
    labels: Tensor | None
    groups: Tensor | None
    skipped: tuple[tuple[str, str], ...]
    licence: str
    origin: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)


def collect(
    config: SourceConfig,
    found: Iterable[tuple[str, Tensor | UnseenError]],
    *,
    licence: str,
    origin: str,
    labels: Tensor | None = None,
    groups: Tensor | None = None,
) -> SourceImages:
    """Return the usable images among those found, exact duplicates dropped.

    Args:
        config: Gives the domain, ``skip_bad`` and ``limit``.
        found: Name, and the image (uint8, shape (3, size, size)) or what is wrong with it.
        licence: Terms of use.
        origin: Where the images come from.
        labels: Class per entry of ``found``, int64, or None.
        groups: Group per entry of ``found``, int64, or None.

    Raises:
        UnseenError: No image is usable, or one is not and ``skip_bad`` is False.
    """
    images: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    rows: list[int] = []
    skipped: list[tuple[str, str]] = []
    for row, (name, image) in enumerate(found):
        if isinstance(image, UnseenError):
            if not config.skip_bad:
                raise image
            skipped.append((name, str(image).removeprefix(f"{name}: ")))
            continue
        digest = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
        sample = f"{config.domain}-{digest[:12]}"
        if sample in images:
            skipped.append((name, f"same pixels as {names[sample]}"))
            continue
        images[sample], names[sample] = image, name
        rows.append(row)
        if len(rows) == config.limit:
            break
    if not images:
        first = f", the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UnseenError(
            f"domain {config.domain}: no usable image in {config.path or config.kind} "
            f"({len(skipped)} unusable{first})"
        )
    return SourceImages(
        domain=config.domain,
        images=torch.stack(list(images.values())),
        ids=tuple(images),
        labels=None if labels is None else labels[rows],
        groups=None if groups is None else groups[rows],
        skipped=tuple(skipped),
        licence=licence,
        origin=origin,
    )


def printable(name: str) -> str:
    """Return a foreign file name on one line: unprintable characters become question marks."""
    return "".join(c if c.isprintable() else "?" for c in name)
