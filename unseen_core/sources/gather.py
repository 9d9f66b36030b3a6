"""From what a source finds to the images of a domain: decoded, no duplicates, in memory once."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unseen_core.basics.decoding import decode, decode_pages, pages
from unseen_core.basics.instruments import kind_of, slices
from unseen_core.errors import UnseenError
from unseen_core.sources.base import SourceConfig, SourceImages

__all__ = ["Found", "collect", "decoded"]

# Above 32 MiB the C library maps memory of its own, and gives it back as soon as it is free.
_BLOCK = 64 * 2**20
_DARK = 64  # images without a brighter pixel use a quarter of the type that they are stored in


class Found(NamedTuple):
    """One entry of a source.

    Attributes:
        name: How messages call it.
        image: uint8, shape (3, size, size), or what is wrong with it.
        label: Its class, or None.
        pages: Of its file, the first of which is the image.
        volume: The file that it is a slice of, or None; slices of one stay on one side of a split.
    """

    name: str
    image: Tensor | UnseenError
    label: int | None = None
    pages: int = 1
    volume: str | None = None


class _Stack:
    """Images that become one tensor; joining never holds all of them twice."""

    def __init__(self, size: int) -> None:
        self._shape = (3, size, size)
        self._rows = max(1, _BLOCK // (3 * size * size))
        self._blocks: list[Tensor] = []
        self._count = 0

    def add(self, image: Tensor) -> None:
        """Copy one image behind the others."""
        row = self._count % self._rows
        if row == 0:
            self._blocks.append(torch.empty(self._rows, *self._shape, dtype=torch.uint8))
        self._blocks[-1][row] = image
        self._count += 1

    def join(self) -> Tensor:
        """Return all images; each block is freed once it is copied, which empties the stack."""
        images = torch.empty(self._count, *self._shape, dtype=torch.uint8)
        for part in images.split(self._rows):
            part.copy_(self._blocks.pop(0)[: len(part)])
        return images


def collect(
    config: SourceConfig, found: Iterable[Found], *, licence: str, origin: str
) -> SourceImages:
    """Return the usable images among those found, exact duplicates dropped.

    The peak of memory is the images once, plus 64 MiB.

    Args:
        config: Gives the domain, ``size``, ``skip_bad`` and ``limit``.
        found: Entries in the source's order; nothing is asked for once ``limit`` is reached.
        licence: Terms of use.
        origin: Where the images come from.

    Raises:
        UnseenError: No image is usable, or one is not and ``skip_bad`` is False.
    """
    stack = _Stack(config.size)
    names: dict[str, str] = {}
    labels: list[int | None] = []
    skipped: list[tuple[str, str]] = []
    paged: list[str] = []
    volumes: list[str | int] = []  # a number for what is none: names may repeat
    for name, image, label, count, volume in found:
        if isinstance(image, UnseenError):
            if not config.skip_bad:
                raise image
            skipped.append((name, str(image).removeprefix(f"{name}: ")))
            continue
        digest = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
        sample = f"{config.domain}-{digest[:12]}"
        if sample in names:
            skipped.append((name, f"same pixels as {names[sample]}"))
            continue
        stack.add(image)
        names[sample] = name
        labels.append(label)
        volumes.append(len(volumes) if volume is None else volume)
        if count > 1:
            paged.append(f"{name} with {count}")
        if len(names) == config.limit:
            break
    if not names:
        first = f", the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UnseenError(
            f"domain {config.domain}: no usable image in "
            f"{config.hub or config.path or config.kind} ({len(skipped)} unusable{first})"
        )
    known = any(label is not None for label in labels)
    classes = [-1 if label is None else label for label in labels]
    images = stack.join()
    places = {volume: place for place, volume in enumerate(dict.fromkeys(volumes))}
    return SourceImages(
        domain=config.domain,
        images=images,
        ids=tuple(names),
        labels=torch.tensor(classes, dtype=torch.int64) if known else None,
        groups=(torch.tensor([places[volume] for volume in volumes])
                if len(places) < len(volumes) else None),
        skipped=tuple(skipped),
        licence=licence,
        origin=origin,
        files=tuple(names.values()),
        notes=tuple(_notes(config, images, paged)),
    )


def _notes(config: SourceConfig, images: Tensor, paged: list[str]) -> Iterator[str]:
    """Yield what may have been read otherwise than it was meant."""
    if paged:
        yield (f"{len(paged)} files have several pages ({paged[0]}); the first of each is read: "
               "for all of them set pages: all of the domain (--all-pages of `unseen generate`)")
    white = int(images.max())
    if white < _DARK and config.stretch is None:
        yield (f"no pixel is brighter than {white} of 255 (about {257 * white} of 65535 in 16 "
               "bits), so the images are almost black; if white is stored as less than its type "
               "can hold, rescale the files, or set range of their domain, [0, 4095] for 12 bits")


def decoded(
    config: SourceConfig, name: str, data: bytes, label: int | None = None
) -> Iterator[Found]:
    """Yield the image of a file as an entry, decoded or with what is wrong with it.

    A volume has many (see `unseen_core.basics.instruments`), and so has a file whose every page is
    read. Of these a page or slice that is all of one value is no image.
    """
    asked: dict[str, Any] = {"size": config.size, "max_pixels": config.max_pixels,
                             "crop": config.crop, "stretch": config.stretch}
    every = config.pages == "all"
    try:
        if kind_of(data, name) is not None:
            for title, image, count in slices(data, name, every=every, **asked):
                _check_first(name, image, count)
                yield Found(title, image, label, count, None if title == name else name)
        elif (count := pages(data)) > 1 and every:
            yield from _pages(data, name, label, asked)
        else:
            image = decode(data, name, **asked)
            _check_first(name, image, count)
            yield Found(name, image, label, count)
    except UnseenError as error:
        yield Found(name, error, label)


def _pages(
    data: bytes, name: str, label: int | None, asked: dict[str, Any]
) -> Iterator[Found]:
    """Yield every page of a file that is not blank."""
    blank = True
    for title, page in decode_pages(data, name, **asked):
        if isinstance(page, UnseenError):
            yield Found(title, page, label)
        elif not _blank(page):
            yield Found(title, page, label, volume=name)
        blank = blank and not isinstance(page, UnseenError) and _blank(page)
    if blank:
        raise UnseenError(f"{name}: all of its pages are blank")


def _check_first(name: str, image: Tensor, count: int) -> None:
    """Raise UnseenError where a file has several pages and the first, which is taken, is blank."""
    if count > 1 and _blank(image):
        raise UnseenError(f"{name}: the first of its {count} pages is blank; set pages: all of "
                          "its domain (--all-pages of `unseen generate`)")


def _blank(image: Tensor) -> bool:
    """Say whether all pixels are alike."""
    return bool((image == image[:, :1, :1]).all())
