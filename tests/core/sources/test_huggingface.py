"""Hugging Face data sets on this machine; the hub itself is only reachable through a mirror."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from encoded import config, folder_ids, png

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig

PICTURES = [png(row) for row in range(6)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    """Return six images and their classes."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"]),
         "raw": datasets.Value("binary")})
    cells = [{"bytes": data, "path": None} for data in PICTURES]
    content = {"image": cells, "label": [0, 1] * 3, "raw": PICTURES[::-1]}
    return datasets.Dataset.from_dict(content, features=features)


def limited(path: Path, **changes: str | int) -> SourceConfig:
    """Return a configuration of four images."""
    return replace(config(path, "datasets"), limit=4, **changes)


def test_every_form_gives_the_images_of_a_folder(
    tmp_path: Path, rows: datasets.Dataset
) -> None:
    rows.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "tables").mkdir()
    rows.to_parquet(str(tmp_path / "tables" / "train.parquet"))
    ids = folder_ids(tmp_path / "same", PICTURES)
    for form in ("saved", "tables"):
        source = sources.load(limited(tmp_path / form))
        assert source.ids == ids[:4]
        assert source.labels is not None and source.labels.tolist() == [0, 1, 0, 1]
        assert source.origin == f"dataset {form}"
        raw = sources.load(limited(tmp_path / form, column="raw"))
        assert raw.ids == ids[:1:-1]
    # The same file as a table of its own.
    table = sources.load(config(tmp_path / "tables", "parquet"))
    assert table.ids == ids and table.labels is not None
    assert table.labels.tolist() == [0, 1] * 3


def test_splits(tmp_path: Path, rows: datasets.Dataset) -> None:
    both = datasets.DatasetDict({"a": rows, "b": rows.select([5, 4])})
    both.save_to_disk(str(tmp_path / "both"))
    ids = folder_ids(tmp_path / "same", PICTURES)
    assert sources.load(limited(tmp_path / "both", split="b")).ids == (ids[5], ids[4])
    for changes in ({}, {"split": "train"}):
        with pytest.raises(UnseenError, match="no split 'train'; it has a, b; name one"):
            sources.load(limited(tmp_path / "both", **changes))
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path / "one"))
    assert sources.load(limited(tmp_path / "one")).ids == ids[:4]


def test_shards_with_named_label(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as file:
        for row, data in enumerate(PICTURES):
            for name, part in ((f"{row}.png", data), (f"{row}.cls", b"%d" % row)):
                member = tarfile.TarInfo(name)
                member.size = len(part)
                file.addfile(member, io.BytesIO(part))
    source = sources.load(limited(tmp_path / "shards", label="cls"))
    assert source.ids == folder_ids(tmp_path / "same", PICTURES)[:4]
    assert source.labels is not None and source.labels.tolist() == [0, 1, 2, 3]


def test_no_code_of_a_data_set_is_run(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    trace = tmp_path / "ran"
    (root / "mine.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    with pytest.raises(UnseenError, match=r"domain mine: mine: cannot be read") as caught:
        sources.load(limited(root))
    assert "\n" not in str(caught.value) and not trace.exists()
    folder_ids(tmp_path / "pictures", PICTURES)
    with pytest.raises(UnseenError, match=r"no image bytes \(imagefolder\); .* such as folder"):
        sources.load(limited(tmp_path / "pictures"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": None}, "source 'datasets' needs a limit"),
        ({"hub": "owner/name"}, "hub 'owner/name': give owner/name@revision"),
        ({"hub": "name@main"}, "give owner/name@revision"),
        ({"hub": "../a/b/c@main"}, "give owner/name@revision"),
        ({"column": "label"}, "column 'label' must hold encoded images"),
        ({"column": "x"}, "no column 'x'; it has image, label, raw"),
        ({"label": "image"}, "no column 'image' of integers"),
        ({"hub": "owner/name@0123"}, r"domain mine: owner/name@0123: cannot be read from row 0"),
    ],
)
def test_wrong_values_are_named(
    tmp_path: Path, rows: datasets.Dataset, changes: dict[str, str | None], message: str
) -> None:
    rows.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(UnseenError, match=message):
        sources.load(replace(limited(tmp_path / "saved"), **changes))


@pytest.mark.parametrize(
    ("kind", "option"), [("zip", "column"), ("tar", "label"), ("parquet", "split"), ("npz", "hub")])
def test_options_belong_to_kinds(kind: str, option: str) -> None:
    with pytest.raises(UnseenError, match=f"source '{kind}' takes no {option}, only"):
        sources.load(SourceConfig(kind=kind, domain="mine", path="x", **{option: "a/b@c"}))
