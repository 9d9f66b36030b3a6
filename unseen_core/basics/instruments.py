"""Files of instruments into pixels: FITS (astronomy), DICOM and NIfTI (medicine).

They are read by the field's own libraries, which are extras: ``pip install 'unseen[science]'``.
Their numbers are counts, fluxes or Hounsfield units: which of them are black and white has to be
said, by a `Stretch`. A NIfTI volume is many images, its axial slices.
"""

import gzip
import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unseen_core.basics.decoding import check_extent
from unseen_core.basics.images import resize
from unseen_core.basics.stretch import Stretch
from unseen_core.errors import UnseenError, first_line

__all__ = ["Slice", "kind_of", "slices"]

_UNPACKED = 2 * 2**30  # bytes of one file


class Slice(NamedTuple):
    """One image of a file.

    Attributes:
        name: The file's, with the number of the slice in a volume.
        image: uint8, shape (3, size, size).
        pages: Frames of the file, the first of which is the image.
    """

    name: str
    image: Tensor
    pages: int = 1


class _Planes(NamedTuple):
    """Numbers of a file: (n, h, w, c), c being 1 or 3, and what they need."""

    values: np.ndarray
    volume: bool = False
    negative: bool = False  # low values are bright
    pages: int = 1


def kind_of(data: bytes, name: str) -> str | None:
    """Return ``FITS``, ``DICOM`` or ``NIfTI`` by a file's first bytes, or None."""
    if data[:2] == b"\x1f\x8b" and name.lower().endswith((".nii.gz", ".fits.gz", ".fit.gz")):
        return "NIfTI" if name.lower().endswith(".nii.gz") else "FITS"
    if data[:9] == b"SIMPLE  =":
        return "FITS"
    if data[128:132] == b"DICM":
        return "DICOM"
    return "NIfTI" if data[344:348] == b"n+1\0" else None


def slices(
    data: bytes, name: str, *, size: int, max_pixels: int, crop: bool = False,
    stretch: Stretch | None = None, every: bool = False,
) -> Iterator[Slice]:
    """Yield the images of a FITS, DICOM or NIfTI file.

    * FITS: the first image of the file, two axes, north (its last row) up; BSCALE and BZERO apply.
    * DICOM: the first frame, or every one; rescale slope and intercept apply, MONOCHROME1 becomes
      light on dark.
    * NIfTI: every axial slice that is not all of one value, the patient's front up. Percentiles
      are those of the whole volume.

    Args:
        data: The whole file; see `kind_of`.
        name: How messages call it.
        size, max_pixels, crop: As for `unseen_core.basics.decoding.decode`.
        stretch: Which values become black and white. Only colour of 8 bits needs none.
        every: Whether a DICOM file's frames are images each, as the slices of a volume are.

    Raises:
        UnseenError: The library is missing, the file is damaged or of a form that is not read, an
            image is smaller than 8x8 or larger than ``max_pixels``, or a stretch is missing.
    """
    kind = kind_of(data, name)
    if kind is None:
        raise UnseenError(f"{name}: neither FITS nor DICOM nor NIfTI")
    read: Callable[[bytes, str, int], _Planes] = {
        "FITS": _fits, "DICOM": partial(_dicom, every=every), "NIfTI": _nifti}[kind]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that are not quite as the standard says
            found = read(_unpacked(data, name), name, max_pixels)
    except UnseenError:
        raise
    except ImportError as error:
        raise UnseenError(f"{name}: {kind} files need {error.name}; pip install "
                          "'unseen[science]'") from error
    except Exception as error:  # libraries for foreign files raise almost every class there is
        raise UnseenError(f"{name}: damaged or unusual {kind} ({first_line(error)})") from error
    eight_bits = found.values.dtype == np.uint8 and found.values.shape[-1] == 3
    if stretch is None and not eight_bits:
        finite = found.values[np.isfinite(found.values)]
        if not finite.size:
            raise UnseenError(f"{name}: {kind} without a pixel that is finite")
        low, high = finite.min(), finite.max()
        raise UnseenError(f"{name}: {kind} pixels have no black and white of their own; set "
                          f"percentile of its domain, as [1, 99], or range, as [{low:g}, "
                          f"{high:g}] of this file")
    whole = None if stretch is None else stretch.of(found.values, name)
    for number, plane in enumerate(found.values):
        if found.volume and plane.min() == plane.max():
            continue  # nothing is there
        title = f"{name}[{number}]" if found.volume else name
        grey = plane if whole is None else whole(plane, title)
        small = resize(255 - grey if found.negative else grey, size, crop=crop)
        image = torch.from_numpy(small).permute(2, 0, 1).expand(3, -1, -1).contiguous()
        yield Slice(title, image, found.pages)


def _unpacked(data: bytes, name: str) -> bytes:
    """Return a file's bytes, those of a gzip unpacked up to a bound."""
    if data[:2] != b"\x1f\x8b":
        return data
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        found = packed.read(_UNPACKED + 1)
    if len(found) > _UNPACKED:
        raise UnseenError(f"{name}: more than {_UNPACKED // 2**20} MiB unpacked")
    return found


def _fits(data: bytes, name: str, max_pixels: int) -> _Planes:
    """Return the first image of a FITS file."""
    from astropy.io import fits

    with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=True) as units:
        image = next((unit for unit in units if unit.is_image and unit.header["NAXIS"] > 0), None)
        if image is None:
            raise UnseenError(f"{name}: FITS without an image, a table perhaps")
        shape = image.shape
        if len(shape) != 2:
            raise UnseenError(f"{name}: FITS image of {' x '.join(map(str, shape))} values; two "
                              "axes are read: save each plane as a file of its own")
        check_extent((shape[1], shape[0]), name, max_pixels)
        values = np.asarray(image.data, np.float64)
    return _Planes(values[::-1][None, ..., None])


def _dicom(data: bytes, name: str, max_pixels: int, *, every: bool) -> _Planes:
    """Return the first frame of a DICOM file, or every one."""
    import pydicom
    from pydicom.pixels import apply_rescale, pixel_array

    record = pydicom.dcmread(io.BytesIO(data))
    if "Rows" not in record:
        raise UnseenError(f"{name}: DICOM without pixels, a report perhaps")
    check_extent((int(record.Columns), int(record.Rows)), name, max_pixels)
    frames = int(record.get("NumberOfFrames", 1) or 1)
    many = every and frames > 1
    _check_volume((int(record.Columns), int(record.Rows), frames if many else 1), name)
    values = pixel_array(record) if many else pixel_array(record, index=0)[None]
    colour = values.ndim == 4
    if not colour:
        values = np.asarray(apply_rescale(values, record), np.float64)[..., None]
    negative = not colour and record.get("PhotometricInterpretation") == "MONOCHROME1"
    return _Planes(values, volume=many, negative=negative, pages=1 if many else frames)


def _nifti(data: bytes, name: str, max_pixels: int) -> _Planes:
    """Return the axial slices of a NIfTI volume."""
    import nibabel

    volume = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data))
    shape = volume.shape
    if len(shape) != 3:
        raise UnseenError(f"{name}: NIfTI of {' x '.join(map(str, shape))} values; a volume of "
                          "three axes is read: save each as a file of its own")
    check_extent((shape[0], shape[1]), name, max_pixels)
    _check_volume(shape, name)
    values = np.asarray(volume.dataobj, np.float64)  # axes: right, front, up
    return _Planes(values.transpose(2, 1, 0)[:, ::-1, :, None], volume=True)


def _check_volume(shape: tuple[int, ...], name: str) -> None:
    """Raise UnseenError where so many values in float64 are too many to unpack."""
    if 8 * np.prod(shape, dtype=np.int64) > _UNPACKED:
        raise UnseenError(f"{name}: a volume of more than {_UNPACKED // 2**20} MiB; cut it")
