"""Tar archives and WebDataset's shards, good and bad."""

import gzip
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from encoded import config, folder_ids, png

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import reading, tars


def archive(
    path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w"
) -> Path:
    """Write a tar."""
    with tarfile.open(path, mode) as file:
        for name, data in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def sample(row: int) -> list[tuple[str, bytes]]:
    """Return a sample as WebDataset stores it."""
    key = f"{row:04d}"
    return [(f"{key}.cls", b"%d" % (row % 3)), (f"{key}.json", b"{}"), (f"{key}.png", png(row))]


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_a_tar_gives_the_images_of_a_folder(tmp_path: Path, ending: str, mode: str) -> None:
    pictures = [png(row) for row in range(4)]
    members = [(f"{row}.png", data) for row, data in enumerate(pictures)]
    hidden = [("a/.b.png", b"x"), ("__MACOSX/a.png", b"x"), ("notes", b"text"), ("a.txt", b"t")]
    path = archive(tmp_path / f"set.{ending}", members + hidden, mode)
    source = sources.load(config(path, "tar"))
    assert source.ids == folder_ids(tmp_path / "same", pictures)
    assert [name for name, _ in source.skipped] == ["notes", "a"]
    assert source.labels is None and source.origin == f"tar set.{ending}"


def test_shards_are_read_in_order_with_their_labels(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    root.mkdir()
    for shard in (1, 0):
        members = [part for row in range(2 * shard, 2 * shard + 2) for part in sample(row)]
        archive(root / f"{shard:05d}.tar", members)
    source = sources.load(config(root, "tar"))
    assert source.ids == folder_ids(tmp_path / "same", [png(row) for row in range(4)])
    assert source.labels is not None and source.labels.tolist() == [0, 1, 2, 0]
    archive(root / "00000.tar", [("a.png", b"no image"), ("b.cls", b"1"), *sample(9)])
    source = sources.load(config(root, "tar"))
    assert [name for name, _ in source.skipped] == ["00000.tar/a.png", "00000.tar/b"]
    (root / "00000.tar").unlink()
    (root / "00000.tar").symlink_to(archive(tmp_path / "outside.tar", sample(1)))
    with pytest.raises(UnseenError, match=r"00000\.tar is a link out of the folder"):
        sources.load(config(root, "tar"))


def test_one_image_of_a_sample_is_taken(tmp_path: Path) -> None:
    members = [("a.mask.png", png(0)), ("a.png", png(1)), ("a.cls", b"cat")]
    path = archive(tmp_path / "a.tar", members)
    source = sources.load(config(path, "tar"))
    assert source.ids == folder_ids(tmp_path / "plain", [png(1)])
    assert source.labels is None  # the class is a name
    assert source.skipped == (
        ("a.mask.png", "beside a.png; name one ending as column to choose"),)
    masks = sources.load(replace(config(path, "tar"), column="mask.png"))
    assert masks.ids == folder_ids(tmp_path / "masks", [png(0)]) and not masks.skipped
    with pytest.raises(UnseenError, match=r"a: no member with ending \.webp"):
        sources.load(replace(config(path, "tar"), column="webp"))
    dotted = archive(tmp_path / "b.tar", [("2020.01.png", png(0)), ("2020.02.png", png(1))])
    assert len(sources.load(config(dotted, "tar"))) == 2


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "c:/e", "..\\e"])
def test_names_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "set.tar", [("a.png", png(1)), (name, png(2))])
    with pytest.raises(UnseenError, match=r"refused, member .* is an absolute name or '\.\.'"):
        sources.load(config(path, "tar"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("a.png")
    member.type, member.linkname = kind, "/etc/hostname"
    path = archive(tmp_path / "set.tar", [("b.png", png(1)), (member, b"")])
    with pytest.raises(UnseenError, match=r"member 'a\.png' is a link or device"):
        sources.load(config(path, "tar"))


def test_caps_count_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = [("a.png", png(1)), ("z", b"\0" * 5_000_000)]
    path = archive(tmp_path / "set.tar.gz", zeros, "w:gz")
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(reading, "MAX_FILE", 2**20)
    assert dict(sources.load(config(path, "tar")).skipped)["z"].startswith("more than 1 MiB")
    monkeypatch.setattr(reading, "MAX_TOTAL", 2**20)
    with pytest.raises(UnseenError, match="more than 1 MiB unpacked"):
        sources.load(config(path, "tar"))
    monkeypatch.setattr(reading, "MAX_MEMBERS", 1)
    with pytest.raises(UnseenError, match="more than 1 members"):
        sources.load(config(path, "tar"))
    # One sample of many images, and a header that asks for a gigabyte of names.
    many = archive(tmp_path / "many.tar", [("a.png", b"0" * 2**19)] * 4)
    monkeypatch.undo()
    monkeypatch.setattr(reading, "MAX_FILE", 2**20)
    with pytest.raises(UnseenError, match="sample a: more than 1 MiB"):
        sources.load(config(many, "tar"))
    header = tarfile.TarInfo("names")
    header.type, header.size = tarfile.XHDTYPE, 2**30
    with gzip.open(tmp_path / "names.tar.gz", "wb") as file:
        file.write(header.tobuf())
    with pytest.raises(UnseenError, match="a header asks for 1073741824 bytes at once"):
        sources.load(config(tmp_path / "names.tar.gz", "tar"))


def test_damage_is_not_the_end_of_the_archive(tmp_path: Path) -> None:
    members = [(f"{row}.png", png(row)) for row in range(4)]
    path = archive(tmp_path / "set.tar", members)
    whole = path.read_bytes()
    place = whole.index(b"2.png")
    path.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    with pytest.raises(UnseenError, match=r"not a readable tar archive after 1\.png"):
        sources.load(config(path, "tar"))
    path.write_bytes(whole[: place + 700])
    with pytest.raises(UnseenError, match="not a readable tar archive after"):
        sources.load(config(path, "tar"))
    packed = archive(tmp_path / "set.tar.gz", members, "w:gz")
    packed.write_bytes(packed.read_bytes()[:2000])
    with pytest.raises(UnseenError, match="not a readable tar archive after"):
        sources.load(config(packed, "tar"))


def test_the_limit_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "set.tar", [part for row in range(9) for part in sample(row)])
    names = []
    real = tars.capped
    monkeypatch.setattr(tars, "capped", lambda file, name: names.append(name) or real(file, name))
    assert len(sources.load(replace(config(path, "tar"), limit=2))) == 2
    # A sample ends where the next one begins, so one member more is seen.
    assert names == ["0000.cls", "0000.png", "0001.cls", "0001.png", "0002.cls"]


@pytest.mark.parametrize(("endings", "asked"), [
    (["image.png", "mask.png"], "image.png, mask.png"), (["jpg", "png"], "jpg, png")])
def test_which_of_several_images_a_sample_means_is_asked(
    tmp_path: Path, endings: list[str], asked: str
) -> None:
    members = [(f"{row:03d}.{ending}", png(10 * row + place))
               for row in range(4) for place, ending in enumerate(endings)]
    path = archive(tmp_path / "a.tar", members)
    with pytest.raises(UnseenError, match=f"samples as 001 have several .* one of {asked}"):
        sources.load(config(path, "tar"))
    chosen = sources.load(replace(config(path, "tar"), column=endings[1]))
    assert chosen.files == tuple(f"{row:03d}.{endings[1]}" for row in range(4))


def test_names_with_dots_of_their_own_are_images_of_their_own(tmp_path: Path) -> None:
    members = [(f"{kind}.{row}.png", png(10 * row + (kind == "dog")))
               for kind in ("cat", "dog") for row in range(3)]
    assert len(sources.load(config(archive(tmp_path / "a.tar", members), "tar"))) == 6
