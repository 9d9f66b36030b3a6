"""Stacks of images in .npz and .npy files, read image by image. Nothing is unpickled."""

import math
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy

from unseen_core.basics.images import resize
from unseen_core.errors import UnseenError
from unseen_core.sources import reading
from unseen_core.sources.base import SourceConfig, SourceImages, printable, source
from unseen_core.sources.gather import Found, collect

__all__ = ["load_npy", "load_npz"]

_SCALE = (
    "scale all images by one range and save them as uint8, "
    "such as np.uint8(255 * (x - low) / (high - low) + 0.5), or as uint16 with 65535"
)


class _Header(NamedTuple):
    """Shape, order and type of an array whose values are not read yet."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


@source("npz")
def load_npz(config: SourceConfig) -> SourceImages:
    """Return the images of an .npz: key ``images``, or its only array.

    uint8, or uint16 that is divided by 257, of shape (n, h, w) or (n, h, w, c) with c in 1, 3, 4;
    the fourth channel is alpha and lies on black. An integer key ``labels`` of shape (n,) gives
    the classes.

    Raises:
        UnseenError: Not such an array, pickled objects, or images out of bounds.
    """
    path = config.existing_path()
    where = f"domain {config.domain}: {config.path}"
    unreadable = f"{where} is not a readable .npz archive"
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a zip's directory is foreign bytes: struct, value, OS errors
        raise UnseenError(unreadable) from error
    with archive:
        keys = [m.removesuffix(".npy") for m in archive.namelist() if m.endswith(".npy")]
        key = "images" if "images" in keys else keys[0] if len(keys) == 1 else None
        if key is None:
            found = ", ".join(map(printable, keys[:8])) or "nothing"
            raise UnseenError(f"{where} needs an array 'images' or just one; it has {found}")
        title = printable(key)
        try:
            file = archive.open(f"{key}.npy")
            header = _header(file, f"{where}: array {title!r}")
            _check_images(header, config, where)
            labelled = key == "images" and "labels" in keys
            labels = _labels(archive, header.shape[0], where) if labelled else None
        except UnseenError:
            raise
        except Exception as error:  # zip, zlib and header parsing each have their own classes
            raise UnseenError(unreadable) from error
        with file:
            stack = _rows(file, header, where)
            found = _frames(config, title, stack, labels)
            origin = f"npz {printable(path.name)}"
            return collect(config, found, licence=reading.LICENCE, origin=origin)


@source("npy")
def load_npy(config: SourceConfig) -> SourceImages:
    """Return the images of an .npy, an array as ``load_npz`` takes it; there are no labels.

    Raises:
        UnseenError: Not such an array, pickled objects, or images out of bounds.
    """
    path = config.existing_path()
    where = f"domain {config.domain}: {config.path}"
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnseenError(f"{where} is not a readable .npy file ({error.strerror})") from error
    with file:
        try:
            header = _header(file, where)
        except UnseenError:
            raise
        except Exception as error:  # the header is foreign text that NumPy parses
            raise UnseenError(f"{where} is not a readable .npy file") from error
        _check_images(header, config, where)
        found = _frames(config, "image", _rows(file, header, where), None)
        origin = f"npy {printable(path.name)}"
        return collect(config, found, licence=reading.LICENCE, origin=origin)


def _header(file: IO[bytes], where: str) -> _Header:
    """Return what an array will be, or raise UnseenError unless it is plain integers."""
    version = npy.read_magic(file)
    parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header = _Header(*parse(file))
    if header.dtype.kind == "f":
        raise UnseenError(f"{where} is {header.dtype}, which has no defined range; {_SCALE}")
    if header.dtype.kind not in "iu":
        raise UnseenError(f"{where} is {header.dtype}; save it as uint8 (labels as integers)")
    if math.prod(header.shape) * header.dtype.itemsize > reading.MAX_TOTAL:
        most = reading.MAX_TOTAL // 2**20
        raise UnseenError(f"{where} has shape {header.shape}: more than {most} MiB; split it")
    return header


def _labels(archive: zipfile.ZipFile, count: int, where: str) -> list[int]:
    """Return the labels of an .npz, one for each of ``count`` images; no more is unpacked."""
    with archive.open("labels.npy") as file:
        header = _header(file, f"{where}: array 'labels'")
        if header.shape != (count,):
            raise UnseenError(f"{where}: 'labels' must be {count} integers, one per image")
        data = file.read(count * header.dtype.itemsize)
        return np.frombuffer(data, header.dtype, count).astype(np.int64).tolist()


def _check_images(header: _Header, config: SourceConfig, where: str) -> None:
    """Raise UnseenError unless the array will hold images within bounds."""
    shape = header.shape
    stack = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if header.dtype.kind != "u" or header.dtype.itemsize > 2 or not stack:
        need = "uint8 or uint16 (n, h, w) or (n, h, w, c) with c in 1, 3, 4"
        raise UnseenError(f"{where} must hold {need}, not {header.dtype} {shape}")
    if min(shape[1:3]) < 8 or shape[1] * shape[2] > config.max_pixels:
        bounds = f"at least 8x8 and at most max_pixels {config.max_pixels}"
        raise UnseenError(f"{where}: images of {shape[2]}x{shape[1]} pixels; {bounds} are allowed")


def _rows(file: IO[bytes], header: _Header, where: str) -> Iterator[np.ndarray]:
    """Yield the images behind a header one by one; an array in Fortran order is read whole."""
    count, *extent = header.shape
    size = math.prod(extent) * header.dtype.itemsize
    try:
        if header.fortran:
            whole = np.frombuffer(file.read(count * size), header.dtype)
            yield from whole.reshape(header.shape, order="F")
            return
        for _ in range(count):
            yield np.frombuffer(file.read(size), header.dtype).reshape(extent)
    except Exception as error:  # cut off, or a wrong sum or zlib stream of the archive
        raise UnseenError(f"{where}: damaged or truncated; save it again") from error


def _frames(
    config: SourceConfig, title: str, stack: Iterator[np.ndarray], labels: list[int] | None
) -> Iterator[Found]:
    """Yield the images of a stack as entries."""
    for row, image in enumerate(stack):
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.dtype.itemsize == 2:
            pixels = pixels / np.float32(257)  # 65535 = 257 · 255
        if pixels.shape[2] == 4:
            pixels = pixels[..., :3] * (pixels[..., 3:] / np.float32(255))
        small = torch.from_numpy(resize(pixels, config.size, crop=config.crop)).permute(2, 0, 1)
        label = None if labels is None else labels[row]
        yield Found(f"{title}[{row}]", small.expand(3, -1, -1).contiguous(), label)
