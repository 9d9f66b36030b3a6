"""Folders and zips of the user, good and bad."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoded import config, noise, png
from PIL import Image, TiffImagePlugin

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import files, reading


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Return a folder of usable and unusable files."""
    root = tmp_path / "photos"
    (root / "inner").mkdir(parents=True)
    picture = Image.fromarray(noise(0, 40, 40, 3))
    picture.save(root / "truncated.jpg")
    whole = (root / "truncated.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "notes.txt").write_text("no image")
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(root / "deep.png")
    picture.convert("CMYK").save(root / "print.jpg")
    Image.new("RGB", (1, 1)).save(root / "dot.png")
    picture.convert("P").save(root / "inner" / "movie.gif")
    (root / ".hidden.png").write_bytes(png(1))
    (root / ".thumbs").mkdir()
    (root / ".thumbs" / "a.png").write_bytes(png(2))
    (root / "copy.png").write_bytes((root / "deep.png").read_bytes())
    (tmp_path / "outside.png").write_bytes(png(3))
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "up").symlink_to(tmp_path)
    (root / "evil\nname.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


def test_folder_keeps_the_usable_and_names_the_rest(mixed: Path) -> None:
    source = sources.load(config(mixed, "folder"))
    assert len(source) == 3  # copy.png (= deep.png), inner/movie.gif, print.jpg
    assert source.images.shape == (3, 3, 16, 16)
    grey = source.images[0]
    assert grey.min() == 0 and grey.max() == 255  # 16 bits scaled over the whole range
    assert 120 < grey.double().mean() < 135
    reasons = dict(source.skipped)
    assert reasons.keys() == {
        "truncated.jpg", "notes.txt", "dot.png", "deep.png", "link.png", "up", "evil?name.png",
    }
    assert reasons["truncated.jpg"].startswith("damaged or truncated")
    assert reasons["notes.txt"].startswith("not an image in one of")
    assert reasons["dot.png"].startswith("1x1 pixels is too small")
    assert reasons["deep.png"] == "same pixels as copy.png"
    assert "link out of the folder" in reasons["link.png"] and "link" in reasons["up"]
    assert source.origin == "folder photos"


def test_folder_strict_limit_and_crop(mixed: Path) -> None:
    settled = config(mixed, "folder")
    with pytest.raises(UnseenError, match=r"^dot\.png: 1x1"):
        sources.load(replace(settled, skip_bad=False))
    assert len(sources.load(replace(settled, limit=1))) == 1
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 77
    for path in mixed.iterdir():
        if path.is_file():
            path.unlink()
    Image.fromarray(wide).save(mixed / "wide.png")
    (mixed / "inner" / "movie.gif").unlink()
    assert (sources.load(replace(settled, crop=True)).images == 77).all()
    assert sources.load(settled).images.min() == 0


def test_nothing_usable_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match=r"domain mine: no usable image in .*\(0 unusable\)$"):
        sources.load(config(tmp_path, "folder"))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UnseenError, match=r"\(1 unusable, the first: a.txt: not an image"):
        sources.load(config(tmp_path, "folder"))
    with pytest.raises(UnseenError, match="is not a folder"):
        sources.load(config(tmp_path / "a.txt", "folder"))
    for kind in ("zip", "npz", "npy", "tar", "parquet", "lmdb"):
        with pytest.raises(UnseenError, match=r"^domain mine: .* is not (a )?readable"):
            sources.load(config(tmp_path / "a.txt", kind))
        with pytest.raises(UnseenError, match=r"^domain mine: .* (is not a readable|has no \.)"):
            sources.load(config(tmp_path, kind))


def archive(path: Path, members: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    """Write a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_zip_reads_members_in_order(tmp_path: Path) -> None:
    members = {"b/2.png": png(2), "a.png": png(1), "__MACOSX/a.png": b"x", "b/.x": b"", "n": b"t"}
    path = archive(tmp_path / "set.zip", members)
    source = sources.load(config(path, "zip"))
    singles = [archive(tmp_path / f"{i}.zip", {"a.png": png(i)}) for i in (1, 2)]
    assert source.ids == tuple(sources.load(config(p, "zip")).ids[0] for p in singles)
    assert [name for name, _ in source.skipped] == ["n"]


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "c:/e", "..\\e"])
def test_zip_refuses_names_that_leave_it(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "set.zip", {"a.png": png(1), name: png(2)})
    with pytest.raises(UnseenError, match=r"refused, member .* is an absolute name or '\.\.'"):
        sources.load(config(path, "zip"))


def test_zip_stops_reading_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "set.zip", {f"{i}.png": png(i) for i in range(9)})
    names = []
    real = files.capped
    monkeypatch.setattr(files, "capped", lambda file, name: names.append(name) or real(file, name))
    assert len(sources.load(replace(config(path, "zip"), limit=3))) == 3
    assert names == ["0.png", "1.png", "2.png"]


def test_zip_refuses_links(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    path = archive(tmp_path / "set.zip", {"a.png": png(1), link: b"/etc/hostname"})
    with pytest.raises(UnseenError, match="is a link or device"):
        sources.load(config(path, "zip"))


def test_zip_caps_count_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "set.zip", {"a.png": png(1), "zeros": b"\0" * 5_000_000})
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(reading, "MAX_FILE", 2**20)
    assert dict(sources.load(config(path, "zip")).skipped)["zeros"].startswith("more than 1 MiB")
    monkeypatch.setattr(reading, "MAX_FILE", 2**30)
    monkeypatch.setattr(reading, "MAX_TOTAL", 2**20)
    with pytest.raises(UnseenError, match="more than 1 MiB unpacked"):
        sources.load(config(path, "zip"))
    monkeypatch.setattr(reading, "MAX_MEMBERS", 1)
    with pytest.raises(UnseenError, match="more than 1 members"):
        sources.load(config(path, "zip"))


def test_zip_names_damaged_members(tmp_path: Path) -> None:
    path = archive(tmp_path / "set.zip", {"a.png": png(1), "b.png": png(2)})
    data = bytearray(path.read_bytes())
    data[data.find(b"b.png") + 200] ^= 255
    path.write_bytes(data)
    source = sources.load(config(path, "zip"))
    assert len(source) == 1 and source.skipped[0][0] == "b.png"


def test_the_loss_of_pages_is_told(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(noise(row, 16, 16, 3)) for row in range(3)]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    others[0].save(tmp_path / "b.tif")
    note, = sources.load(config(tmp_path, "folder")).notes
    assert note.startswith("1 files have several pages (a.tif with 3); the first of each is read")


def test_every_page_is_an_image_and_a_file_stays_together(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(noise(row, 16, 16, 3)) for row in range(3)]
    blank = Image.new("RGB", (16, 16), (255, 255, 255))
    blank.save(tmp_path / "a.tif", save_all=True, append_images=[first, blank, *others])
    Image.fromarray(noise(9, 16, 16, 3)).save(tmp_path / "b.png")
    source = sources.load(config(tmp_path, "folder", pages="all"))
    assert source.files == ("a.tif[1]", "a.tif[3]", "a.tif[4]", "b.png") and not source.notes
    assert source.groups is not None and source.groups.tolist() == [0, 0, 0, 1]
    assert (source.images[1].permute(1, 2, 0).numpy() == np.asarray(others[0])).all()
    refused, = sources.load(config(tmp_path, "folder")).skipped
    assert refused[0] == "a.tif" and refused[1].startswith(
        "the first of its 5 pages is blank; set pages: all of its domain")


def test_smaller_versions_and_blank_files_are_no_images(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(noise(row, 16, 16, 3)) for row in range(3)]
    smaller = TiffImagePlugin.ImageFileDirectory_v2()
    smaller[254] = 1
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "a.tif", new=True) as file:
        for picture, tags in ((first, None), (first.resize((8, 8)), smaller), (others[0], None)):
            picture.save(file, "TIFF", **({} if tags is None else {"tiffinfo": tags}))
            file.newFrame()
    blank = Image.new("RGB", (16, 16))
    blank.save(tmp_path / "b.tif", save_all=True, append_images=[blank])
    source = sources.load(config(tmp_path, "folder", pages="all"))
    assert source.files == ("a.tif[0]", "a.tif[2]")
    assert source.skipped == (("b.tif", "all of its pages are blank"),)


def test_a_damaged_page_leaves_the_others(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(noise(row, 16, 16, 3)) for row in range(3)]
    small = others[0].resize((4, 4))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[small, others[1]])
    source = sources.load(config(tmp_path, "folder", pages="all"))
    assert source.files == ("a.tif[0]", "a.tif[2]")
    assert source.skipped == (("a.tif[1]", "4x4 pixels is too small, at least 8x8 needed"),)


def test_pages_are_first_or_all_and_of_files(tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match="pages 'some'; give first or all"):
        sources.load(config(tmp_path, "folder", pages="some"))
    with pytest.raises(UnseenError, match="source 'npy' takes no pages, only folder, zip"):
        sources.load(config(tmp_path, "npy", pages="all"))


@pytest.mark.parametrize("place", ["inside", "elsewhere"])
def test_links_into_the_cache_of_dvc_are_followed(tmp_path: Path, place: str) -> None:
    project, name = tmp_path / "project", "ab/" + 30 * "0"
    cache = project / ".dvc/cache" if place == "inside" else tmp_path / "cache"
    kept = cache / "files/md5" / name
    for folder in (kept.parent, project / ".dvc", project / "pictures/__MACOSX"):
        folder.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(png(0))
    (cache / "other.png").write_bytes(png(1))
    if place == "elsewhere":
        (project / ".dvc/config").write_text("[cache]\n    dir = ../../cache\n    type = symlink\n")
    (project / "pictures/a.png").symlink_to(kept)
    (project / "pictures/b.png").symlink_to(cache / "other.png")
    (project / "pictures/__MACOSX/a.png").write_bytes(png(2))
    found = sources.load(config(project / "pictures", "folder"))
    assert found.files == ("a.png",)
    assert found.skipped == (("b.png", "a link out of the folder is not followed"),)
