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

_SCALE = "set range of its domain to the values that are black and white, as [0, 1]"


class _Header(NamedTuple):
    """Shape, order and type of an array whose values are not read yet."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


@source("npz", "range")
def load_npz(config: SourceConfig) -> SourceImages:
    """Return the images of an .npz: key ``images``, or its only array.

    uint8, or uint16 that is divided by 257, of shape (n, h, w) or (n, h, w, c) with c in 1, 3, 4;
    the fourth channel is alpha and lies on black. With ``range`` also other integers and floating
    point, without alpha. An integer key ``labels`` of shape (n,) gives
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


@source("npy", "range")
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
    """Return what an array will be, or raise UnseenError unless it is plain numbers."""
    version = npy.read_magic(file)
    parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header = _Header(*parse(file))
    if header.dtype.kind not in "iuf":
        raise UnseenError(f"{where} is {header.dtype}; save it as uint8 (labels as integers)")
    if math.prod(header.shape) * header.dtype.itemsize > reading.MAX_TOTAL:
        most = reading.MAX_TOTAL // 2**20
        raise UnseenError(f"{where} has shape {header.shape}: more than {most} MiB; split it")
    return header


def _labels(archive: zipfile.ZipFile, count: int, where: str) -> list[int]:
    """Return the labels of an .npz, one for each of ``count`` images; no more is unpacked."""
    with archive.open("labels.npy") as file:
        header = _header(file, f"{where}: array 'labels'")
        if header.shape != (count,) or header.dtype.kind == "f":
            raise UnseenError(f"{where}: 'labels' must be {count} integers, one per image")
        data = file.read(count * header.dtype.itemsize)
        return np.frombuffer(data, header.dtype, count).astype(np.int64).tolist()


def _check_images(header: _Header, config: SourceConfig, where: str) -> None:
    """Raise UnseenError unless the array will hold images within bounds."""
    shape, dtype = header.shape, header.dtype
    channels = (1, 3, 4) if config.stretch is None else (1, 3)
    if len(shape) != 3 and (len(shape) != 4 or shape[3] not in channels):
        need = f"(n, h, w) or (n, h, w, c) with c in {', '.join(map(str, channels))}"
        raise UnseenError(f"{where} must have the shape {need}, not {shape}")
    if config.stretch is None and (dtype.kind != "u" or dtype.itemsize > 2):
        raise UnseenError(f"{where} is {dtype}, and only uint8 and uint16 have a range of their "
                          f"own; {_SCALE}")
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
        if config.stretch is not None:
            try:
                pixels = config.stretch(pixels, f"{title}[{row}]")
            except UnseenError as error:
                yield Found(f"{title}[{row}]", error)
                continue
        elif pixels.dtype.itemsize == 2:
            pixels = pixels / np.float32(257)  # 65535 = 257 · 255
        if pixels.shape[2] == 4:
            pixels = pixels[..., :3] * (pixels[..., 3:] / np.float32(255))
        small = torch.from_numpy(resize(pixels, config.size, crop=config.crop)).permute(2, 0, 1)
        label = None if labels is None else labels[row]
        yield Found(f"{title}[{row}]", small.expand(3, -1, -1).contiguous(), label)
