"""LMDB environments as LSUN is published, good and bad."""

from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
from encoded import config, folder_ids, png

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import reading

PICTURES = [png(row) for row in range(9)]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return an environment whose keys were written backwards, without its lock."""
    path = tmp_path / "church_val_lmdb"
    with lmdb.open(str(path), map_size=2**24) as made, made.begin(write=True) as view:
        for row, data in reversed(list(enumerate(PICTURES))):
            view.put(f"{row:04d}".encode(), data)
    (path / "lock.mdb").unlink()
    return path


def test_values_come_in_the_order_of_their_keys(tmp_path: Path, environment: Path) -> None:
    ids = folder_ids(tmp_path / "same", PICTURES)
    for path in (environment, environment / "data.mdb"):
        source = sources.load(config(path, "lmdb"))
        assert source.ids == ids and source.labels is None and not source.skipped
    assert sorted(file.name for file in environment.iterdir()) == ["data.mdb"]  # no lock


def test_odd_values_are_skipped_and_named(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lmdb.open(str(environment), map_size=2**24) as made, made.begin(write=True) as view:
        view.put(b"\xff\n", b"9")
        view.put(b"0001", b"0" * 5000)
    monkeypatch.setattr(reading, "MAX_FILE", 4096)
    source = sources.load(config(environment, "lmdb"))
    assert len(source) == 8
    (large, why), (odd, reason) = source.skipped
    assert (large, odd) == ("0001", "\ufffd?")
    assert why.startswith("more than") and reason.startswith("not an image")


def test_the_limit_ends_the_reading(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    monkeypatch.setattr(reading, "check_length", lambda size, name: lengths.append(name))
    assert len(sources.load(replace(config(environment, "lmdb"), limit=4))) == 4
    assert lengths == ["0000", "0001", "0002", "0003"]


def test_a_truncated_environment_is_one_line(environment: Path) -> None:
    file = environment / "data.mdb"
    whole = file.read_bytes()
    for length in (len(whole) - 4096, 8192):
        file.write_bytes(whole[:length])
        with pytest.raises(UnseenError, match=r"is truncated; copy data\.mdb again"):
            sources.load(config(environment, "lmdb"))
    for data in (whole[:100], b"", b"x" * 8192):
        file.write_bytes(data)
        with pytest.raises(UnseenError, match="not a readable LMDB environment"):
            sources.load(config(environment, "lmdb"))
