"""A data set of a hub on this machine, streamed by the real client in a process of its own."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import hubserver
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded import folder_ids, png

READ = """
from unseen_core import sources
config = sources.SourceConfig(
    kind="datasets", domain="mine", size=16, hub="owner/marks@v1", limit=4)
found = sources.load(config)
print(*found.ids, found.labels.tolist(), found.origin, sep="|")
"""


class Ranges(hubserver.Handler):
    """Answers requests for a part of a file, which is how a hub's files are streamed."""

    def describe(self, parts: list[str]) -> None:
        """Know repositories only."""
        if len(parts) < 5:
            self.reply(404, b"no", {})
        else:
            super().describe(parts)

    def send(
        self, content: bytes, headers: Mapping[str, str], fault: hubserver.Fault | None
    ) -> None:
        """Answer with the part from the first to the last byte that is asked for."""
        first, _, last = (self.headers["Range"] or "").removeprefix("bytes=").partition("-")
        if not last:
            super().send(content, headers, fault)
            return
        part = content[int(first) : int(last) + 1]
        place = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self.reply(206, part, dict(headers) | {"Content-Range": place})


def table(pictures: list[bytes], start: int) -> bytes:
    """Return a Parquet file of pictures whose labels count from ``start``."""
    buffer = io.BytesIO()
    cells = [{"bytes": data, "path": None} for data in pictures]
    labels = list(range(start, start + len(pictures)))
    pq.write_table(pa.table({"image": cells, "label": labels}), buffer)
    return buffer.getvalue()


def test_no_more_files_of_a_data_set_are_downloaded_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubserver, "Handler", Ranges)
    pictures = [png(seed) for seed in range(9)]
    names = [f"train-{shard:05d}-of-00003.parquet" for shard in range(3)]
    files = {name: table(pictures[3 * i : 3 * i + 3], 3 * i) for i, name in enumerate(names)}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with hubserver.serve() as site:
        site.repositories["datasets/owner/marks"] = files
        done = subprocess.run(
            [sys.executable, "-c", READ], capture_output=True, text=True, timeout=600,
            env=clean | {"HF_ENDPOINT": site.address, "HF_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    *ids, origin = done.stdout.strip().split("|")
    assert origin == "dataset owner/marks@v1" and ids.pop() == "[0, 1, 2, 3]"
    assert tuple(ids) == folder_ids(tmp_path / "same", pictures[:4])
    read = {asked.path.rpartition("/")[2] for asked in site.log if asked.range}
    digests = {hashlib.sha256(data).hexdigest(): name for name, data in files.items()}
    assert {digests.get(name, name) for name in read} == set(names[:2])
    # The tag is looked up once; what is read then belongs to one commit.
    resolved = [asked.path for asked in site.log if "/resolve/" in asked.path and asked.range]
    assert resolved and all(hubserver.COMMIT in path for path in resolved)
