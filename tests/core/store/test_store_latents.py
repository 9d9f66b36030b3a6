"""Latents in safetensors: what is written is what is read, and damage is named."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.store import (
    DType,
    Scratch,
    TensorStore,
    file_hash,
    latent_manifest,
    part_name,
    save_part,
    write_index,
    write_json,
)


def publish(folder: Path, x: dict[int, Tensor], part_size: int, dtype: DType) -> Path:
    """Write latents by level as a store and return its folder."""
    n, *shape = next(iter(x.values())).shape
    index = pd.DataFrame(
        {
            "id": [f"image-{i}" for i in range(n)],
            "part": [i // part_size for i in range(n)],
            "row": [i % part_size for i in range(n)],
            "error": [i / 7 for i in range(n)],
        }
    )
    rows = [len(part) for part in torch.arange(n).split(part_size)]
    with Scratch(folder / "work", "mark") as scratch:
        names = ["index.parquet"]
        scratch.add("index.parquet", lambda path: write_index(path, index))
        for level, latents in x.items():
            for number, part in enumerate(latents.split(part_size)):
                names.append(part_name(level, number))
                scratch.add(names[-1], lambda path, part=part: save_part(path, part, dtype))
        scratch.publish(folder / "out", names, latent_manifest(
            TensorStore.format, shape, dtype, list(x), rows, "f" * 64))
    return folder / "out"


def draw(
    n: int, shape: tuple[int, int, int], levels: tuple[int, ...] = (300,)
) -> dict[int, Tensor]:
    """Return reproducible latents by level."""
    generator = torch.Generator().manual_seed(n)
    return {level: torch.randn(n, *shape, generator=generator) for level in levels}


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    n=st.integers(1, 9),
    part_size=st.integers(1, 10),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from(["float16", "float32"]),
    picks=st.lists(st.integers(0, 8), max_size=12),
)
def test_round_trip(
    n: int,
    part_size: int,
    shape: tuple[int, int, int],
    dtype: DType,
    picks: list[int],
) -> None:
    x = draw(n, shape, (900, 300))
    with tempfile.TemporaryDirectory() as folder:
        store = TensorStore(publish(Path(folder), x, part_size, dtype))
        assert store.levels == (300, 900) and store.shape == shape
        assert store.ids == tuple(f"image-{i}" for i in range(n))
        for level, expected in x.items():
            stored = expected.to(getattr(torch, dtype)).float()
            parts = list(store.parts(level))
            assert [len(part) for part in parts] == store.manifest["rows"]
            assert all(part.dtype == torch.float32 for part in parts)
            assert torch.equal(torch.cat(parts), stored)
            assert torch.equal(store.all(level), stored)
            chosen = [pick % n for pick in picks]
            rows = store.rows(level, [f"image-{i}" for i in chosen])
            assert torch.equal(rows, stored[chosen]) and rows.dtype == torch.float32


def test_float16_keeps_three_digits(tmp_path: Path) -> None:
    x = draw(64, (3, 8, 8))
    store = TensorStore(publish(tmp_path, x, 50, "float16"))
    # Half precision: 11 significant bits, hence at most 2**-11 = 4.9e-4 for normal numbers.
    normal = x[300].abs() > 2**-14
    error = (store.all(300) - x[300]).abs()[normal] / x[300].abs()[normal]
    assert 1e-4 < error.max() < 5e-4


def test_index_and_manifest(tmp_path: Path) -> None:
    store = TensorStore(publish(tmp_path, draw(5, (1, 2, 2)), 2, "float32"))
    index = store.index()
    assert list(index) == ["id", "part", "row", "error"]
    assert index["part"].tolist() == [0, 0, 1, 1, 2] and index["row"].tolist() == [0, 1, 0, 1, 0]
    index["id"] = "changed"
    assert store.ids[0] == store.index()["id"][0] == "image-0"
    assert store.manifest["rows"] == [2, 2, 1] and store.manifest["fingerprint"] == "f" * 64
    assert set(store.manifest["parts"]) == {
        file.relative_to(tmp_path / "out").as_posix()
        for file in (tmp_path / "out").rglob("*.*")
        if file.name != "manifest.json"
    }


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    x = draw(6, (2, 3, 3))
    a = publish(tmp_path / "a", x, 4, "float16")
    # The memory layout of the source is no content.
    turned = {300: x[300].transpose(2, 3).contiguous().transpose(2, 3)}
    b = publish(tmp_path / "b", turned, 4, "float16")
    for file in a.rglob("*.*"):
        assert file_hash(file) == file_hash(b / file.relative_to(a)), file.name


def test_results_are_the_readers_own_memory(tmp_path: Path) -> None:
    store = TensorStore(publish(tmp_path, draw(3, (1, 2, 2)), 2, "float32"))
    before = store.all(300)
    next(store.parts(300)).zero_()
    store.rows(300, ["image-0"]).zero_()
    assert torch.equal(store.all(300), before)


def test_unknown_level_and_id(tmp_path: Path) -> None:
    store = TensorStore(publish(tmp_path, draw(3, (1, 2, 2), (300, 500)), 2, "float32"))
    for ask in (store.parts, store.all, lambda level: store.rows(level, [])):
        with pytest.raises(UnseenError, match="no level 400; stored are 300, 500"):
            ask(400)
    with pytest.raises(UnseenError, match="no sample 'image-9'"):
        store.rows(300, ["image-0", "image-9"])


def test_damaged_parts_are_named(tmp_path: Path) -> None:
    out = publish(tmp_path, draw(3, (1, 2, 2)), 2, "float32")
    name = "L0300/part-00000.safetensors"
    content = (out / name).read_bytes()
    (out / name).write_bytes(content[:-1])
    with pytest.raises(UnseenError, match=rf"{name}: missing or not as the manifest says"):
        TensorStore(out).all(300)
    (out / name).write_bytes(b"\0" * len(content))
    with pytest.raises(UnseenError, match=rf"{name}: damaged"):
        TensorStore(out).all(300)
    (out / name).unlink()
    with pytest.raises(UnseenError, match=rf"{name}: missing"):
        TensorStore(out).rows(300, ["image-1"])


def test_part_of_another_shape_is_refused(tmp_path: Path) -> None:
    out = publish(tmp_path, draw(2, (1, 2, 3)), 2, "float32")
    write_json(out / "manifest.json", {**TensorStore(out).manifest, "shape": [1, 3, 2]})
    with pytest.raises(UnseenError, match="shape not as the manifest says"):
        TensorStore(out).all(300)


def test_index_that_contradicts_the_manifest(tmp_path: Path) -> None:
    out = publish(tmp_path, draw(4, (1, 2, 2)), 2, "float32")
    write_json(out / "manifest.json", {**TensorStore(out).manifest, "rows": [3, 1]})
    with pytest.raises(UnseenError, match=r"index\.parquet: does not fit manifest\.json"):
        TensorStore(out)


def test_unfinished_or_foreign_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UnseenError, match=r"manifest\.json: missing, the store is unfinished"):
            TensorStore(folder)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UnseenError, match="not JSON"):
        TensorStore(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UnseenError, match="lacks dtype, fingerprint"):
        TensorStore(tmp_path)
    shutil.rmtree(tmp_path)
    out = publish(tmp_path, draw(2, (1, 2, 2)), 2, "float32")
    manifest = TensorStore(out).manifest
    for key, value, word in (
        ("format", "csv", "unknown store format 'csv'"),
        ("version", 9, "version 9"),
    ):
        write_json(out / "manifest.json", {**manifest, key: value})
        with pytest.raises(UnseenError, match=word):
            TensorStore(out)


@pytest.mark.parametrize(
    ("x", "dtype", "word"),
    [
        (torch.zeros(2, 3, 4), "float16", "shape"),
        (torch.zeros(0, 1, 2, 2), "float16", "shape"),
        (torch.full((1, 1, 2, 2), 1e5), "float16", "not finite in float16"),
        (torch.full((1, 1, 2, 2), torch.nan), "float32", "not finite"),
        (torch.zeros(1, 1, 2, 2), "float64", "use float16 or float32"),
    ],
)
def test_bad_latents_are_refused(tmp_path: Path, x: Tensor, dtype: DType, word: str) -> None:
    with pytest.raises(UnseenError, match=word):
        save_part(tmp_path / "part", x, dtype)
    assert list(tmp_path.iterdir()) == []
