"""What every image source takes and gives."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unseen_core.basics.stretch import Stretch
from unseen_core.errors import UnseenError

__all__ = ["SOURCES", "Loader", "SourceConfig", "SourceImages", "content_hash", "printable",
           "source"]

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9_-]*")
_HUB = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)?@[\w.-]+", re.ASCII)
_NAMED = 10  # files left out that a line each is printed of
_OPTIONS: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class SourceConfig:
    """Where a domain's images come from and what becomes of them.

    Attributes:
        kind: A key of ``sources.SOURCES``.
        domain: Name of the domain, ``[a-z0-9][a-z0-9_-]*``; it starts every sample id.
        path: Folder or file of the kinds that read files; None otherwise.
        crop: Cut the central square out before resizing; otherwise images are stretched.
        skip_bad: Skip and list unusable files; False: the first one raises.
        max_pixels: Largest width times height of a file that is decoded.
        size: Side of the images in pixels, >= 8.
        seed: Seed of drawn images (``shapes``); file sources ignore it.
        limit: Take the first ``limit`` usable images in the source's order; None: all. Reading
            stops there.
        column: Column of the images (``parquet``, ``datasets``), or ending of the image among
            the members of a sample (``tar``); None: the one that is named like an image.
        label: Column of integer labels (``parquet``, ``datasets``); None: ``label``, if it is
            there and holds integers.
        split: The split of a data set that is read (``datasets``); None: ``train``, or the only
            one.
        hub: ``owner/name@revision`` or ``owner/name/subset@revision`` of a data set that is
            streamed from the Hugging Face hub in place of ``path`` (``datasets``).
        range: Values of grey or array pixels that become black and white; None: the smallest and
            the largest of the type that they are stored in.
        percentile: The same by percentiles of each file's own values, in place of ``range``.
        asinh: Whether what is faint is raised between the two; see `Stretch`.
        pages: Of a TIFF or DICOM file with several, ``first`` or ``all``: images each, which stay
            on one side of a split.
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
    column: str | None = None
    label: str | None = None
    split: str | None = None
    hub: str | None = None
    range: tuple[float, float] | None = None
    percentile: tuple[float, float] | None = None
    asinh: bool = False
    pages: str = "first"

    @property
    def stretch(self) -> Stretch | None:
        """How values become grey; None: by the type that they are stored in."""
        if self.range is None and self.percentile is None:
            return None
        return Stretch(self.range, self.percentile, "asinh" if self.asinh else "linear")

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
        if self.range is not None and not self.range[0] < self.range[1]:
            raise UnseenError(f"domain {self.domain}: range {list(self.range)} is empty; give the "
                              "value that is black, then the one that is white")
        if self.percentile is not None and not 0 <= self.percentile[0] < self.percentile[1] <= 100:
            raise UnseenError(f"domain {self.domain}: percentile {list(self.percentile)}; give two "
                              "from 0 to 100, as [1, 99]")
        if self.range is not None and self.percentile is not None:
            raise UnseenError(f"domain {self.domain}: range and percentile both say what is black "
                              "and white; remove one")
        if self.asinh and self.stretch is None:
            raise UnseenError(f"domain {self.domain}: asinh needs range or percentile; add one")
        if self.pages not in ("first", "all"):
            raise UnseenError(f"domain {self.domain}: pages {self.pages!r}; give first or all")
        for option in ("column", "label", "split", "hub", "range", "percentile", "pages"):
            given = self.pages == "all" if option == "pages" else getattr(self, option) is not None
            needed = "range" if option == "percentile" else option
            if given and needed not in _OPTIONS.get(self.kind, ()):
                kinds = ", ".join(kind for kind, known in _OPTIONS.items() if needed in known)
                raise UnseenError(
                    f"domain {self.domain}: source {self.kind!r} takes no {option}, only {kinds} "
                    "does; remove it"
                )
        if self.hub is not None and not _HUB.fullmatch(self.hub):
            rule = "give owner/name@revision or owner/name/subset@revision"
            raise UnseenError(f"domain {self.domain}: hub {self.hub!r}: {rule}")
        return self

    def existing_path(self) -> Path:
        """Return ``path`` as a Path, or raise UnseenError where it is missing."""
        if not self.path:
            raise UnseenError(f"domain {self.domain}: source {self.kind!r} needs a path")
        path = Path(self.path)
        if not path.exists():
            raise UnseenError(f"domain {self.domain}: {self.path} does not exist; fix its path")
        return path


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The usable images of one domain.

    Attributes:
        domain: Name of the domain.
        images: uint8, shape (n, 3, size, size), n >= 1, no two alike.
        ids: ``<domain>-<first 12 hex digits of the SHA-256 of the image's pixels>``, n of them.
        labels: Class of each image, int64 of shape (n,), -1 where it is unknown, or None.
        groups: Images of one group stay on one side of a split; int64 of shape (n,), or None.
        skipped: Name and reason of every file that was left out, exact duplicates among them.
        licence: Under which terms the images may be used.
        origin: Where they come from.
        files: What the source calls each image, such as its path in a folder; n of them, or none
            where the images have no names.
        notes: What may have been read otherwise than it was meant; a line each.
    """

    domain: str
    images: Tensor
    ids: tuple[str, ...]
    labels: Tensor | None
    groups: Tensor | None
    skipped: tuple[tuple[str, str], ...]
    licence: str
    origin: str
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def warnings(self) -> Iterator[str]:
        """Yield a line for each file left out, of many for the first ones, and for each note."""
        for name, reason in self.skipped[:_NAMED]:
            yield f"skipped {name}: {reason}"
        if (more := len(self.skipped) - _NAMED) > 0:
            yield f"skipped {more} more, which the report beside the images names"
        yield from self.notes


Loader = Callable[[SourceConfig], SourceImages]

SOURCES: dict[str, Loader] = {}
"""The function of every source imported so far, by its name in params.yaml."""


def source(name: str, *options: str) -> Callable[[Loader], Loader]:
    """Register a function as a source and return it unchanged.

    Args:
        name: What ``source:`` of a domain in params.yaml calls it.
        options: Those of ``column``, ``label``, ``split``, ``hub``, ``range`` and ``pages`` that
            it understands; with ``range`` it takes ``percentile`` and ``asinh``.
    """

    def register(load: Loader) -> Loader:
        SOURCES[name], _OPTIONS[name] = load, options
        return load

    return register


def content_hash(images: Tensor) -> str:
    """Return the SHA-256 over the images' own SHA-256 digests, in their order.

    Two machines that agree on it have the same pixels in the same order.

    Args:
        images: uint8, shape (n, 3, h, w).
    """
    total = hashlib.sha256()
    for image in images:
        total.update(hashlib.sha256(image.contiguous().numpy().tobytes()).digest())
    return total.hexdigest()


def printable(name: str) -> str:
    """Return a foreign file name on one line: unprintable characters become question marks."""
    return "".join(c if c.isprintable() else "?" for c in name)
