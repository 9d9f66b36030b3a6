"""Arrays of the user in .npz and .npy files, good and bad."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoded import config, noise

from unseen_core import sources
from unseen_core.errors import UnseenError


@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 16, 16, 1), (4, 16, 20, 3), (4, 16, 16, 4)])
def test_npz_of_every_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = noise(0, *shape)
    np.savez_compressed(tmp_path / "a.npz", images=pixels, labels=np.arange(4), other=np.eye(2))
    source = sources.load(config(tmp_path / "a.npz", "npz"))
    assert source.images.shape == (4, 3, 16, 16)
    assert source.labels is not None and source.labels.tolist() == [0, 1, 2, 3]
    if shape[1:] in ((16, 16), (16, 16, 1)):
        grey = pixels.reshape(4, 16, 16)
        assert (source.images.numpy() == grey[:, None]).all()
    if shape[-1] == 4:
        expected = pixels[..., :3] * (pixels[..., 3:] / 255)
        assert np.abs(source.images.permute(0, 2, 3, 1).numpy() - expected).max() <= 0.5001


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.array([None, {}], object)}, "'images' is object; save it as uint8"),
        ({"images": np.zeros((2, 16, 16, 3), np.float32)}, "is float32, and only .* set range"),
        ({"images": np.zeros((2, 16, 16, 3), np.int64)}, "is int64, and only uint8"),
        ({"images": np.zeros((2, 16, 16, 2), np.uint8)}, "must have the shape"),
        ({"images": np.zeros((16, 16), np.uint8)}, "must have the shape"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "at least 8x8"),
        ({"images": np.zeros((1, 200, 200), np.uint8)}, "max_pixels 10000"),
        ({"images": np.zeros((0, 16, 16), np.uint8)}, "no usable image"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "needs an array 'images' or just one; it has a, b"),
        ({"images": np.zeros((2, 9, 9), np.uint8), "labels": np.zeros(3, int)}, "'labels' must be"),
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays, allow_pickle=True)
    with pytest.raises(UnseenError, match=message):
        sources.load(config(path, "npz"))


def test_npz_header_is_judged_before_values(tmp_path: Path) -> None:
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)}
    np.lib.format.write_array_header_1_0(header, description)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", header.getvalue())
    with pytest.raises(UnseenError, match=r"has shape .* MiB"):
        sources.load(config(path, "npz"))
    np.savez(path, only=noise(0, 3, 16, 16))
    assert len(sources.load(config(path, "npz"))) == 3
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnseenError, match=r"not a readable \.npz"):
        sources.load(config(path, "npz"))


@pytest.mark.parametrize(("low", "high", "kind"), [
    (0, 4095, np.uint16), (0, 1, np.uint8), (-1000, 3000, np.int16), (-1.0, 1.0, np.float32),
    (0, 2**20, np.int64)])
def test_a_range_makes_images_of_any_numbers(
    tmp_path: Path, low: float, high: float, kind: type
) -> None:
    fraction = np.random.default_rng(0).random((5, 16, 16))
    stored = (low + fraction * (high - low)).round(0 if kind is not np.float32 else 9).astype(kind)
    np.save(tmp_path / "a.npy", stored)
    asked = replace(config(tmp_path / "a.npy", "npy"), range=(low, high))
    wanted = 255 * (stored.astype(float) - low) / (high - low)
    found = sources.load(asked)
    assert np.abs(found.images[:, 0].numpy() - wanted).max() <= 0.5001
    assert not found.notes
    # Half the range: what lies above it is white.
    half = sources.load(replace(asked, range=(low, (low + high) / 2))).images[:, 0].numpy()
    assert np.abs(half - (2 * wanted).clip(0, 255)).max() <= 0.5001


def test_images_that_are_almost_black_are_told_and_a_range_mends_them(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (5, 16, 16), np.uint16)
    np.save(tmp_path / "a.npy", stored)
    note, = sources.load(config(tmp_path / "a.npy", "npy")).notes
    assert "brighter than 16 of 255 (about 4112 of 65535" in note and "[0, 4095]" in note
    for values, said in ((np.full((2, 16, 16), np.nan), "not finite"),
                         (np.zeros((2, 16, 16, 4)), "c in 1, 3, not")):
        np.save(tmp_path / "b.npy", values)
        with pytest.raises(UnseenError, match=said):
            sources.load(replace(config(tmp_path / "b.npy", "npy"), range=(0, 1)))
    with pytest.raises(UnseenError, match=r"range \[1, 1\] is empty"):
        sources.load(replace(config(tmp_path / "a.npy", "npy"), range=(1, 1)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("spelled", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_over_the_whole_range(
    tmp_path: Path, spelled: str, order: str
) -> None:
    pixels = noise(0, 3, 16, 16, 3)
    deep = np.asarray(pixels.astype(np.uint16) * 257, spelled, order=order)
    np.save(tmp_path / "deep.npy", deep)
    np.savez(tmp_path / "deep.npz", images=deep)
    plain = tmp_path / "plain.npz"
    np.savez(plain, images=pixels)
    wanted = sources.load(config(plain, "npz"))
    for kind in ("npy", "npz"):
        source = sources.load(config(tmp_path / f"deep.{kind}", kind))
        assert source.ids == wanted.ids and source.labels is None
    clear = np.full((1, 16, 16, 4), 65535, np.uint16)
    clear[..., 3] = 32896
    np.save(tmp_path / "clear.npy", clear)
    assert (sources.load(config(tmp_path / "clear.npy", "npy")).images == 128).all()


def test_the_rest_of_an_array_is_not_read(tmp_path: Path) -> None:
    """The limit must be reached before the damage behind it."""
    path = tmp_path / "long.npy"
    np.save(path, noise(0, 50, 16, 16, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    settled = config(path, "npy")
    assert len(sources.load(replace(settled, limit=20))) == 20
    with pytest.raises(UnseenError, match="damaged or truncated"):
        sources.load(settled)
    packed = tmp_path / "long.npz"
    np.savez_compressed(packed, images=noise(0, 50, 16, 16, 3))
    broken = bytearray(packed.read_bytes())
    broken[len(broken) // 2] ^= 255
    packed.write_bytes(broken)
    assert len(sources.load(replace(config(packed, "npz"), limit=5))) == 5
    with pytest.raises(UnseenError, match="damaged or truncated"):
        sources.load(config(packed, "npz"))


def test_npy_refuses_pickles_and_floats(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, message in (
        (np.array([None, {}], object), "is object; save it as uint8"),
        (np.zeros((2, 16, 16)), "is float64, and only uint8 and uint16"),
        (np.zeros((2, 16, 16), np.int16), "is int16, and only uint8 and uint16"),
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(UnseenError, match=message):
            sources.load(config(path, "npy"))
