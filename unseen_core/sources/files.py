"""Images of the user: a folder, a zip or an .npz. Nothing is ever written or unpickled."""

import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.images import decode, resize
from unseen_core.sources.base import SourceConfig, SourceImages, collect, printable

__all__ = ["load_folder", "load_npz", "load_zip"]

_MAX_MEMBERS = 200_000
_MAX_FILE = 256 * 2**20
_MAX_TOTAL = 16 * 2**30
_LICENCE = "not stated"

Found = Iterator[tuple[str, Tensor | UnseenError]]


def load_folder(config: SourceConfig) -> SourceImages:
    """Return the images of a folder and its subfolders, in the order of their names.

    Hidden files are ignored; links out of the folder and special files are unusable.

    Raises:
        UnseenError: ``path`` is no folder, no image in it is usable, or one is not and
            ``skip_bad`` is False.
    """
    root = config.existing_path()
    if not root.is_dir():
        raise UnseenError(f"domain {config.domain}: {config.path} is not a folder")
    found = _folder(config, root.resolve())
    return collect(config, found, licence=_LICENCE, origin=f"folder {printable(root.name)}")


def load_zip(config: SourceConfig) -> SourceImages:
    """Return the images of a zip archive, in the order of their names; nothing is unpacked.

    Raises:
        UnseenError: Not a zip; a member is a link or has an absolute name or ``..``; too many
            or too large members; otherwise as ``load_folder``.
    """
    path = config.existing_path()
    try:
        with zipfile.ZipFile(path) as archive:
            found = _archive(config, archive)
            origin = f"zip {printable(path.name)}"
            return collect(config, found, licence=_LICENCE, origin=origin)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        message = f"domain {config.domain}: {config.path} is not a readable zip archive"
        raise UnseenError(message) from error


def load_npz(config: SourceConfig) -> SourceImages:
    """Return the images of an .npz: key ``images``, or its only array.

    uint8 of shape (n, h, w) or (n, h, w, c) with c in 1, 3, 4; the fourth channel is alpha
    and lies on black. An integer key ``labels`` of shape (n,) gives the classes.

    Raises:
        UnseenError: Not such an array, pickled objects, or images out of bounds.
    """
    path = config.existing_path()
    where = f"domain {config.domain}: {config.path}"
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [m.removesuffix(".npy") for m in archive.namelist() if m.endswith(".npy")]
            key = "images" if "images" in keys else keys[0] if len(keys) == 1 else None
            if key is None:
                found = ", ".join(map(printable, keys[:8])) or "nothing"
                raise UnseenError(f"{where} needs an array 'images' or just one; it has {found}")
            images = _array(archive, key, f"{where}: array {printable(key)!r}")
            labels = None
            if key == "images" and "labels" in keys:
                labels = _array(archive, "labels", f"{where}: array 'labels'")
    except UnseenError:
        raise
    except Exception as error:  # zip, zlib and header parsing each have their own classes
        raise UnseenError(f"{where} is not a readable .npz archive") from error
    _check_images(images, config, where)
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise UnseenError(f"{where}: 'labels' must be {len(images)} integers, one per image")
    return collect(
        config,
        ((f"{printable(key)}[{i}]", _frame(image, config)) for i, image in enumerate(images)),
        labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        licence=_LICENCE,
        origin=f"npz {printable(path.name)}",
    )


def _decode(config: SourceConfig, data: bytes, name: str) -> Tensor | UnseenError:
    """Return the decoded image or what is wrong with it."""
    size, most, crop = config.size, config.max_pixels, config.crop
    try:
        return decode(data, name, size=size, max_pixels=most, crop=crop)
    except UnseenError as error:
        return error


def _folder(config: SourceConfig, root: Path) -> Found:
    """Yield every visible file below a resolved root."""
    for path in _visible(root):
        name = printable(path.relative_to(root).as_posix())
        if not path.resolve().is_relative_to(root):
            yield name, UnseenError(f"{name}: a link out of the folder is not followed")
        elif path.is_dir():
            continue  # a link to a folder inside the root: its files come by their own path
        elif not path.is_file():
            yield name, UnseenError(f"{name}: not a regular file")
        else:
            try:
                with path.open("rb") as file:
                    data = _read(file, name)
            except UnseenError as error:
                yield name, error
            except OSError as error:
                yield name, UnseenError(f"{name}: {error.strerror}")
            else:
                yield name, _decode(config, data, name)


def _visible(root: Path) -> list[Path]:
    """Return files, and links to folders, whose path has no hidden part, sorted."""

    def refuse(error: OSError) -> None:
        name = printable(os.path.relpath(error.filename, root))
        raise UnseenError(f"folder {name}: {error.strerror}") from error

    paths = []
    for folder, inner, files in os.walk(root, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        links = [name for name in inner if Path(folder, name).is_symlink()]
        paths += [Path(folder, name) for name in files + links if not name.startswith(".")]
    return sorted(paths)


def _read(file: IO[bytes], name: str) -> bytes:
    """Return a file's bytes, counted while reading, or raise UnseenError above the cap."""
    data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise UnseenError(f"{name}: more than {_MAX_FILE // 2**20} MiB in one file")
    return data


def _archive(config: SourceConfig, archive: zipfile.ZipFile) -> Found:
    """Yield every visible member; names and links are judged before any is read."""
    members = sorted(archive.infolist(), key=lambda member: member.filename)
    if len(members) > _MAX_MEMBERS:
        raise UnseenError(f"{config.path}: more than {_MAX_MEMBERS} members; split the archive")
    for member in members:
        _check_member(member, printable(str(config.path)))
    total = 0
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if member.is_dir() or any(p.startswith(".") or p == "__MACOSX" for p in parts):
            continue
        name = printable(member.filename)
        try:
            with archive.open(member) as file:
                data = _read(file, name)
        except UnseenError as error:
            yield name, error
            continue
        except Exception as error:  # wrong sums, encryption, unknown compression, zlib, lzma
            yield name, UnseenError(f"{name}: damaged or unreadable member ({error})")
            continue
        total += len(data)
        if total > _MAX_TOTAL:
            limit = _MAX_TOTAL // 2**20
            raise UnseenError(f"{config.path}: more than {limit} MiB unpacked; split the archive")
        yield name, _decode(config, data, name)


def _check_member(member: zipfile.ZipInfo, archive: str) -> None:
    """Raise UnseenError for a link, a device, or a name that leaves the archive."""
    name = member.filename.replace("\\", "/")
    unsafe = name.startswith("/") or ".." in name.split("/") or name[1:2] == ":"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if unsafe or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "an absolute name or '..'" if unsafe else "a link or device"
        raise UnseenError(f"{archive}: refused, member {printable(member.filename)!r} is {reason}")


def _array(archive: zipfile.ZipFile, key: str, where: str) -> np.ndarray:
    """Return one plain integer array; its header is judged before its values are read."""
    with archive.open(f"{key}.npy") as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.kind not in "iu":
        raise UnseenError(f"{where} is {dtype}; save it as uint8 (labels as integers)")
    if math.prod(shape) * dtype.itemsize > _MAX_TOTAL:
        raise UnseenError(f"{where} has shape {shape}: more than {_MAX_TOTAL // 2**20} MiB")
    with archive.open(f"{key}.npy") as file:
        return npy.read_array(file, allow_pickle=False)


def _check_images(images: np.ndarray, config: SourceConfig, where: str) -> None:
    """Raise UnseenError unless the array holds uint8 images within bounds."""
    shape = images.shape
    stack = images.ndim == 3 or (images.ndim == 4 and shape[3] in (1, 3, 4))
    if images.dtype != np.uint8 or not stack:
        need = "uint8 (n, h, w) or (n, h, w, c) with c in 1, 3, 4"
        raise UnseenError(f"{where} must hold {need}, not {images.dtype} {shape}")
    if min(shape[1:3]) < 8 or shape[1] * shape[2] > config.max_pixels:
        bounds = f"at least 8x8 and at most max_pixels {config.max_pixels}"
        raise UnseenError(f"{where}: images of {shape[2]}x{shape[1]} pixels; {bounds} are allowed")


def _frame(image: np.ndarray, config: SourceConfig) -> Tensor:
    """Return one image, shape (h, w) or (h, w, c), as RGB of shape (3, size, size)."""
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.shape[2] == 4:
        pixels = pixels[..., :3] * (pixels[..., 3:] / np.float32(255))
    small = torch.from_numpy(resize(pixels, config.size, crop=config.crop)).permute(2, 0, 1)
    return small.expand(3, -1, -1).contiguous()
