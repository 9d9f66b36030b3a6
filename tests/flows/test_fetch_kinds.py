"""A domain's images reach the stage from tables and archives as they do from a folder."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from PIL import Image
from workspace import DOMAIN, change

from flows.dispatch import run_stage
from unseen_core.errors import UnseenError
from unseen_core.store import read_pictures

PLACE = Path("data/source/domains", DOMAIN)


def fetched(project, **domain):
    """Fetch the domain from another source; return its report."""
    change(project, "domains", DOMAIN, to={"fit": 8, "held_out": 6, **domain})
    run_stage("fetch", {"domain": DOMAIN})
    return json.loads((PLACE / "report.json").read_text())


def test_a_table_and_an_archive_give_what_the_folder_gives(workspace):
    files = sorted((workspace / "pictures").iterdir())
    table = pa.table({"photo": [file.read_bytes() for file in files], "kind": range(len(files))})
    pq.write_table(table, workspace / "set.parquet")
    with tarfile.open(workspace / "set.tar.gz", "w:gz") as archive:
        for file in files:
            archive.add(file, file.name)
    folder = fetched(workspace, source="folder", path="pictures")
    assert folder["content"].keys() == {"all", "fit", "held_out"}
    packed = fetched(workspace, source="tar", path="set.tar.gz")
    listed = fetched(workspace, source="parquet", path="set.parquet", column="photo", label="kind")
    assert folder["content"] == packed["content"] == listed["content"]
    _, frame = read_pictures(PLACE / "fit.parquet")
    assert frame["label"].nunique() == 8 and frame["label"].min() >= 0
    assert (packed["source"], packed["origin"]) == ("tar", "tar set.tar.gz")
    change(workspace, "seed", to=5)
    other = fetched(workspace, source="folder", path="pictures")["content"]
    assert other["all"] == folder["content"]["all"] and other["fit"] != folder["content"]["fit"]


def test_an_option_that_a_source_does_not_take_is_one_line(workspace):
    with pytest.raises(UnseenError, match=r"source 'folder' takes no column, only .*tar"):
        fetched(workspace, source="folder", path="pictures", column="photo")


def test_images_of_a_telescope_are_stretched_and_the_report_says_how(workspace):
    """Fluxes of two magnitudes: the faint half of each image would be black without asinh."""
    random = np.random.default_rng(0)
    Path("sky").mkdir()
    for i in range(14):
        flux = random.gamma(0.3, 100, (20, 20)).astype(np.float32)
        fits.PrimaryHDU(flux).writeto(f"sky/{i:02}.fits")
    plain = fetched(workspace, source="folder", path="sky", percentile=[0, 100])
    dark = read_pictures(PLACE / "fit.parquet")[0].float().mean()
    raised = fetched(workspace, source="folder", path="sky", percentile=[0, 100], asinh=True)
    assert read_pictures(PLACE / "fit.parquet")[0].float().mean() > 1.5 * dark > 0
    assert plain["stretch"] == {"percentile": [0, 100]}
    assert raised["stretch"] == {"percentile": [0, 100], "asinh": True}
    with pytest.raises(UnseenError, match="FITS pixels have no black and white of their own"):
        fetched(workspace, source="folder", path="sky", percentile=None, asinh=False)


def test_near_copies_are_told_and_stay_on_one_side(workspace, caplog):
    """Fourteen pictures, each at two sizes; one side has to do with one image less."""
    Path("twice").mkdir()
    for file in sorted((workspace / "pictures").iterdir()):
        with Image.open(file) as picture:
            picture.resize((16, 16), Image.BICUBIC).save(f"twice/{file.stem}-a.png")
            picture.resize((16, 16), Image.BICUBIC).point(lambda value: value + 3).save(
                f"twice/{file.stem}-b.png")
    report = fetched(workspace, source="folder", path="twice", fit=9, held_out=6)
    assert report["near_copies"] == 28 and report["counts"]["fit"] == 8
    assert "28 of 28 images are near copies of others, such as" in caplog.text
    assert "fit has 8 images of the 9 asked for, since groups stay whole" in caplog.text
    change(workspace, "images", "near_copies", to=0)
    apart = fetched(workspace, source="folder", path="twice", fit=9, held_out=6)
    assert (apart["near_copies"], apart["counts"]["fit"]) == (0, 9)
    change(workspace, "images", "near_copies", to=0.9)  # everything is one group
    with pytest.raises(UnseenError, match=r"near copies are grouped, too: images\.near_copies"):
        fetched(workspace, source="folder", path="twice", fit=9, held_out=6)
