"""A folder of copies: PNG files named by numbers, and a manifest of where they are from."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch import Tensor

from unseen_core.basics.images import encode_png
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceImages
from unseen_core.store import write_bytes

__all__ = ["classes_of", "has_classes", "write_images"]


def classes_of(source: SourceImages, path: str) -> list[str]:
    """Return the class of every image: the name of the subfolder that it lies in.

    Raises:
        UnseenError: If an image lies in no subfolder, all lie in one, or one lies alone.
    """
    for file in source.files:
        if "/" not in file:
            raise UnseenError(f"{path}: {file} is in no subfolder; a labelled folder has one for "
                              "each class")
    names = [file.partition("/")[0] for file in source.files]
    if len(set(names)) < 2:
        raise UnseenError(f"{path}: one class only, {names[0]}; give a subfolder for each of two "
                          "or more")
    lonely = next((name for name in names if names.count(name) < 2), None)
    if lonely is not None:
        raise UnseenError(f"{path}: class {lonely} has one image; give two or more, one to train "
                          "with and one to test")
    return names


def has_classes(source: SourceImages) -> bool:
    """Say whether every image lies in a subfolder."""
    return all("/" in file for file in source.files)


def write_images(
    out: Path,
    source: SourceImages,
    copies: Tensor,
    originals: Tensor | None,
    *,
    made: Mapping[str, object],
    provenance: Mapping[str, object],
    labelled: bool,
) -> None:
    """Write PNG files and manifest.csv, a line for each file.

    File names are numbers and say nothing about the originals; the manifest does.

    Args:
        out: The folder.
        source: The originals' names and pixels, n of them.
        copies: uint8 (n * c, 3, h, w), those of an original together.
        originals: uint8 (n, 3, h, w) to be put beside their copies, or None.
        made: Columns that say how copies were made; empty for originals.
        provenance: Columns that are the same in every line.
        labelled: Keep the first folder of a source's name.
    """
    count, sums = len(copies) // len(source), [
        hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in source.images]
    jobs: list[tuple[int, int | None, Tensor]] = [
        (i // count, i % count, image) for i, image in enumerate(copies)]
    jobs += [(row, None, image) for row, image in enumerate(originals if originals is not None
                                                            else [])]
    none: dict[str, object] = dict.fromkeys(made)
    lines = []
    for row, number, image in jobs:
        kind = "original" if number is None else "copy"
        inside = f"{source.files[row].partition('/')[0]}/" if labelled else ""
        name = f"{inside}{row:05d}-{kind if number is None else number}.png"
        data = encode_png(image)
        write_bytes(out / name, data)
        lines.append({
            "file": name, "sha256": hashlib.sha256(data).hexdigest(), "kind": kind,
            "source": source.files[row], "source_pixels_sha256": sums[row], "copy": number,
            **(none if number is None else made), **provenance,
        })
    text = pd.DataFrame(lines).astype({"copy": "Int64"}).to_csv(index=False)
    write_bytes(out / "manifest.csv", text.encode())
