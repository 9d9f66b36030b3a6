"""A domain's images reach the stage from tables and archives as they do from a folder."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
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
