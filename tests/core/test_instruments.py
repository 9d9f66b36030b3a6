"""FITS, DICOM and NIfTI: the numbers that the field's libraries wrote come back, stretched."""

import gzip
import io
import sys

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from astropy.io import fits
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from unseen_core.basics.instruments import kind_of, slices
from unseen_core.basics.stretch import Stretch
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, load, split

RAMP = np.arange(16 * 16, dtype=np.float64).reshape(16, 16)  # brighter to the right and down
FULL = Stretch((0, 255))


def fits_file(values, **header):
    stream = io.BytesIO()
    unit = fits.PrimaryHDU(values)
    unit.header.update(header)
    unit.writeto(stream)
    return stream.getvalue()


def dicom_file(values, *, kind="MONOCHROME2", **more):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    record = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    frames = values.shape[0] if values.ndim == 3 and kind != "RGB" else 1
    record.Rows, record.Columns = values.shape[-2:] if kind != "RGB" else values.shape[:2]
    record.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        record.PlanarConfiguration = 0
    record.NumberOfFrames, record.PhotometricInterpretation = frames, kind
    bits = 8 * values.dtype.itemsize
    record.BitsAllocated = record.BitsStored = bits
    record.HighBit, record.PixelRepresentation = bits - 1, int(values.dtype.kind == "i")
    record.PixelData = values.tobytes()
    for key, value in more.items():
        setattr(record, key, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, record)
    return stream.getvalue()


def nifti_file(values, affine=None):
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    return image.to_bytes()


def read(data, name="x", stretch=FULL, **more):
    return list(slices(data, name, size=16, max_pixels=10_000, stretch=stretch, **more))


def grey(data, name="x", stretch=FULL):
    """The one image's values, (16, 16); its three channels agree."""
    (found,) = read(data, name, stretch)
    assert torch.equal(found.image[0], found.image[1]) and torch.equal(
        found.image[0], found.image[2])
    return found.image[0].numpy()


def test_the_three_kinds_are_told_by_their_bytes():
    assert kind_of(fits_file(RAMP), "a.dat") == "FITS"
    assert kind_of(dicom_file(RAMP.astype(np.int16)), "a") == "DICOM"
    volume = nifti_file(RAMP[..., None].astype(np.float32))
    assert kind_of(volume, "a.nii") == kind_of(gzip.compress(volume), "a.nii.gz") == "NIfTI"
    assert kind_of(gzip.compress(volume), "a.gz") is None
    assert kind_of(b"\x89PNG\r\n" + bytes(400), "a.png") is None


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64])
def test_fits_is_upright_and_scaled_by_its_header(kind):
    values = RAMP.astype(kind)
    assert (grey(fits_file(values[::-1])) == RAMP).all()  # FITS begins with the lowest row
    scaled = fits.PrimaryHDU((RAMP[::-1] * 2 + 100).astype(np.float64))
    scaled.scale("int16", bscale=2, bzero=100)
    stream = io.BytesIO()
    scaled.writeto(stream)
    assert (grey(stream.getvalue(), stretch=Stretch((100, 100 + 2 * 255))) == RAMP).all()
    assert (grey(gzip.compress(fits_file(values[::-1])), "x.fits.gz") == RAMP).all()


def test_fits_takes_the_first_image_behind_tables():
    stream = io.BytesIO()
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.ones(3))])
    fits.HDUList([fits.PrimaryHDU(), table, fits.CompImageHDU(RAMP[::-1].astype(np.int16)),
                  fits.ImageHDU(np.zeros((16, 16)))]).writeto(stream)
    assert (grey(stream.getvalue()) == RAMP).all()


def test_dicom_is_in_its_own_units_and_light_on_dark():
    values = RAMP.astype(np.int16)
    units = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    assert (grey(dicom_file(values, **units), stretch=Stretch((-1024, -1024 + 510))) == RAMP).all()
    negative = grey(dicom_file(values, kind="MONOCHROME1"))
    assert (negative == 255 - RAMP).all()
    colour = np.stack([RAMP, RAMP.T, RAMP * 0], -1).astype(np.uint8)
    (found,) = read(dicom_file(colour, kind="RGB"), stretch=None)
    assert (found.image.permute(1, 2, 0).numpy() == colour).all()
    (first,) = read(dicom_file(np.stack([values, values * 0])))
    assert first.pages == 2 and (first.image[0].numpy() == RAMP).all()
    stack = np.stack([values, values * 0, values.T])
    found = read(dicom_file(stack, RescaleSlope=2, RescaleIntercept=0), every=True,
                 stretch=Stretch((0, 510)))
    assert [one.name for one in found] == ["x[0]", "x[2]"]  # nothing is in the other
    assert (found[1].image[0].numpy() == RAMP.T).all() and found[1].pages == 1


def test_nifti_gives_axial_slices_with_the_front_up():
    """Voxels are (right, front, up); rows of a slice run from front to back, columns right."""
    volume = np.zeros((16, 16, 4), np.float32)
    volume[:, :, 1], volume[:, :, 3] = RAMP, RAMP.T
    wanted = [RAMP.T[::-1], RAMP[::-1]]
    found = read(nifti_file(volume))
    assert [one.name for one in found] == ["x[1]", "x[3]"]  # nothing is in the others
    for one, values in zip(found, wanted, strict=True):
        assert (one.image[0].numpy() == values).all()
    flipped = read(nifti_file(volume[::-1], np.diag([-1.0, 1, 1, 1])))  # stored left to right
    assert all(torch.equal(a.image, b.image) for a, b in zip(found, flipped, strict=True))
    assert all(torch.equal(a.image, b.image) for a, b in zip(
        found, read(gzip.compress(nifti_file(volume)), "x.nii.gz"), strict=True))


def test_the_stretch():
    x = np.array([[-1.0, 0, 5, 10, 20]])
    assert Stretch((0, 10))(x, "x").round().tolist() == [[0, 0, 128, 255, 255]]
    assert Stretch((0, 10), kind="asinh")(x, "x")[0] == pytest.approx(
        [0, 0, 255 * np.arcsinh(5) / np.arcsinh(10), 255, 255], abs=1e-4)
    values = np.arange(101.0)
    assert Stretch(percentile=(10, 90)).of(values, "x") == Stretch((10.0, 90.0))
    with pytest.raises(UnseenError, match="not finite"):
        Stretch((0, 1))(np.array([np.nan]), "x")
    with pytest.raises(UnseenError, match="both percentiles are 3"):
        Stretch(percentile=(1, 99)).of(np.full(9, 3.0), "x")


WIDE = np.zeros((200, 200), np.float32)


@pytest.mark.parametrize(("data", "said"), [
    (fits_file(np.zeros((3, 16, 16))), r"FITS image of 3 x 16 x 16 values; two axes are read"),
    (fits_file(None), "FITS without an image"),
    (fits_file(WIDE), "40000|more than max_pixels 10000"),
    (fits_file(RAMP)[:3000], "damaged or unusual FITS"),
    (fits_file(np.full((16, 16), np.nan)), "not finite"),
    (fits_file(np.zeros((4, 16))), "too small"),
    (dicom_file(WIDE.astype(np.int16)), "more than max_pixels"),
    (dicom_file(RAMP.astype(np.int16))[:-100], "damaged or unusual DICOM"),
    (nifti_file(np.zeros((16, 16, 2, 5), np.float32)), r"NIfTI of 16 x 16 x 2 x 5 values"),
    (nifti_file(np.ones((200, 200, 2), np.float32)), "more than max_pixels"),
    (nifti_file(np.ones((16, 16, 2), np.float32))[:500], "damaged or unusual NIfTI"),
])
def test_what_is_not_read_is_one_line(data, said):
    with pytest.raises(UnseenError, match=said) as caught:
        read(data)
    assert str(caught.value).startswith("x: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [
    fits_file(RAMP), dicom_file(RAMP.astype(np.int16)),
    nifti_file(RAMP[..., None].astype(np.float32))])
def test_without_a_stretch_they_are_refused_with_the_values_of_the_file(data):
    with pytest.raises(UnseenError, match=r"set percentile of its domain, as \[1, 99\], or range, "
                                          r"as \[0, 255\] of this file"):
        read(data, stretch=None)


def test_a_file_without_a_number_names_no_range_of_its_own():
    with pytest.raises(UnseenError, match="x: FITS without a pixel that is finite"):
        read(fits_file(np.full((16, 16), np.nan)), stretch=None)
    with pytest.raises(UnseenError, match="x: neither FITS nor DICOM nor NIfTI"):
        read(b"GIF89a" + bytes(400))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    with pytest.raises(UnseenError, match=r"FITS files need astropy.*unseen\[science\]"):
        read(fits_file(RAMP))


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("unseen_core.basics.instruments._UNPACKED", 10_000)
    with pytest.raises(UnseenError, match="MiB unpacked"):
        read(gzip.compress(bytes(20_000)), "x.nii.gz")


def test_a_folder_of_volumes_keeps_each_on_one_side(tmp_path):
    random = np.random.default_rng(0)
    for number in range(8):
        volume = random.normal(size=(16, 16, 5)).astype(np.float32)
        (tmp_path / f"{number}.nii.gz").write_bytes(gzip.compress(nifti_file(volume)))
    (tmp_path / "damaged.nii").write_bytes(nifti_file(volume)[:400])
    source = load(SourceConfig("folder", "scans", path=str(tmp_path), size=16,
                               percentile=(1, 99), asinh=True))
    assert len(source) == 40 and [name for name, _ in source.skipped] == ["damaged.nii"]
    sides = split(source, fit=20, held_out=10, seed=0)
    volumes = [file.split("[")[0] for file in source.files]
    fit, held_out = ({volumes[i] for i in rows.tolist()} for rows in (sides.fit, sides.held_out))
    assert (len(sides.fit), len(sides.held_out)) == (20, 10) and not fit & held_out


@pytest.mark.parametrize(("more", "said"), [
    ({"percentile": (99, 1)}, "give two from 0 to 100"),
    ({"percentile": (1, 99), "range": (0, 1)}, "both say what is black and white"),
    ({"asinh": True}, "asinh needs range or percentile"),
])
def test_a_stretch_that_cannot_be_is_one_line(more, said):
    with pytest.raises(UnseenError, match=said):
        load(SourceConfig("folder", "scans", path=".", **more))
