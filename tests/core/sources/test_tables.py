"""Parquet tables of the user, good and bad."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded import config, folder_ids, png

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import reading, tables

PICTURES = [png(row) for row in range(20)]


def table(path: Path, **columns: object) -> Path:
    """Write a Parquet file with small row groups."""
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


@pytest.mark.parametrize("name", ["image", "png", "bytes"])
@pytest.mark.parametrize("struct", [False, True])
def test_columns_of_bytes_and_of_structs(tmp_path: Path, name: str, struct: bool) -> None:
    cells = [{"bytes": data, "path": None} for data in PICTURES] if struct else PICTURES
    path = table(tmp_path / "a.parquet", text=["x"] * 20, **{name: cells}, label=list(range(20)))
    source = sources.load(config(path, "parquet"))
    assert source.ids == folder_ids(tmp_path / "same", PICTURES)
    assert source.labels is not None and source.labels.tolist() == list(range(20))


def test_columns_that_are_named(tmp_path: Path) -> None:
    kinds = pa.array([*range(19), None], pa.int8())
    path = table(tmp_path / "a.parquet", image=PICTURES[::-1], photo=PICTURES, kind=kinds)
    settled = replace(config(path, "parquet"), column="photo", label="kind")
    source = sources.load(settled)
    assert source.ids == folder_ids(tmp_path / "same", PICTURES)
    assert source.labels is not None and source.labels.tolist() == [*range(19), -1]
    assert sources.load(config(path, "parquet")).labels is None
    for changes, message in (
        ({"column": "picture"}, "no column 'picture'; it has image, photo, kind"),
        ({"column": "kind"}, "column 'kind' must hold encoded images"),
        ({"label": "photo"}, "no column 'photo' of integers"),
    ):
        with pytest.raises(UnseenError, match=message):
            sources.load(replace(settled, **changes))
    with pytest.raises(UnseenError, match="no column of encoded images; it has a; name one"):
        sources.load(config(table(tmp_path / "b.parquet", a=[1]), "parquet"))


def test_damaged_rows_are_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [*PICTURES[:2], b"no image", None, PICTURES[2], PICTURES[0], b"0" * 5000]
    structs = [{"bytes": data, "path": "/etc/hostname"} for data in cells]
    path = table(tmp_path / "a.parquet", image=structs, label=list(range(7)))
    monkeypatch.setattr(reading, "MAX_FILE", 4096)
    source = sources.load(config(path, "parquet"))
    assert source.labels is not None and source.labels.tolist() == [0, 1, 4]
    reasons = {name.removeprefix("a.parquet "): reason for name, reason in source.skipped}
    assert reasons.keys() == {"row 2", "row 3", "row 5", "row 6"}
    assert reasons["row 2"].startswith("not an image")
    assert reasons["row 3"].startswith("only a path, which is not followed")
    assert reasons["row 5"] == "same pixels as a.parquet row 0"
    assert reasons["row 6"].startswith("more than")


def test_a_folder_is_read_in_order_up_to_the_limit(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    table(root / "b.parquet", image=PICTURES[10:])
    table(root / "a.parquet", image=PICTURES[:10])
    ids = folder_ids(tmp_path / "same", PICTURES)
    assert sources.load(config(root, "parquet")).ids == ids
    (root / "b.parquet").write_bytes(b"PAR1 and no more")
    assert sources.load(replace(config(root, "parquet"), limit=10)).ids == ids[:10]
    with pytest.raises(UnseenError, match=r"b\.parquet is not readable Parquet from row 0 on"):
        sources.load(config(root, "parquet"))


def test_no_more_batches_are_read_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "a.parquet", image=PICTURES)
    monkeypatch.setattr(tables, "_BATCH", 4)
    batches = []
    real = pq.ParquetFile.iter_batches

    def counted(file, **options):
        for batch in real(file, **options):
            batches.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert len(sources.load(replace(config(path, "parquet"), limit=5))) == 5
    assert batches == [4, 4]
    monkeypatch.setattr(tables, "_MOST_CHUNK", 1000)
    with pytest.raises(UnseenError, match="smaller row_group_size"):
        sources.load(config(path, "parquet"))
