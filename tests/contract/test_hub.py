"""The real huggingface_hub client against a server on this machine."""

import hashlib
import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hubserver import COMMIT, Fault, serve
from huggingface_hub import HfApi, snapshot_download
from PIL import Image
from repository import PATIENCE
from tenacity import wait_none
from workspace import MODEL, ROOT, SEEN, SIZE, change, contents, save_checkpoint

from flows.dispatch import run_stage
from flows.downloads import hub, retries
from unseen_core.diffusion.denoiser import load_model
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, load
from unseen_core.store import read_json

pytestmark = pytest.mark.contract
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
WANTED = ["model_index.json", "unet/*", "scheduler/*"]
CHUNK = 10 * 2**20
"""What the client writes at once, and so what a cut connection loses at most."""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def pictures():
    """Return twelve PNG files and a table of their bytes, as data sets are published."""
    random = np.random.default_rng(0)
    files, rows = {}, []
    for i in range(12):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (18, 18, 3), dtype=np.uint8)).save(stream, "PNG")
        files[f"images/{i:02d}.png"] = stream.getvalue()
        rows.append({"image": {"bytes": stream.getvalue(), "path": f"{i:02d}.png"}, "label": i % 2})
    table = io.BytesIO()
    pd.DataFrame(rows).to_parquet(table)
    return files | {"data/train-00000-of-00001.parquet": table.getvalue(), "README.md": b"# Set\n"}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """A diffusers repository of random weights, with a file that nobody asked for, and a set."""
    folder = tmp_path_factory.mktemp("repository")
    save_checkpoint(folder)
    network = contents(folder) | {"samples/large.bin": b"0" * 5000, ".gitattributes": b"*.bin\n"}
    return {"models/lab/network": network, "datasets/lab/pictures": pictures()}


@pytest.fixture
def site(repositories):
    """A hub with both repositories."""
    with serve() as running:
        running.repositories |= {name: dict(files) for name, files in repositories.items()}
        yield running


@pytest.fixture
def command(workspace, site, tmp_path):
    """Run ``python -m flows download`` in a process of its own, so that it reads HF_ENDPOINT."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.upper().endswith("_PROXY") and not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": site.address, "HF_HOME": str(tmp_path / "home"),
                    "PYTHONPATH": str(ROOT)}

    def run(**settings):
        write(workspace, settings)
        done = subprocess.run([sys.executable, "-m", "flows", "download", "--name", "net"],
                              env=environment, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stderr.splitlines()

    return run


@pytest.fixture
def bring(workspace, site, tmp_path, monkeypatch):
    """Do the same in this process, where the library has long read HF_ENDPOINT."""
    monkeypatch.setattr(retries, "_BACKOFF", wait_none())
    monkeypatch.setattr(hub, "HfApi", partial(HfApi, endpoint=site.address, token=False))
    monkeypatch.setattr(hub, "snapshot_download", partial(
        snapshot_download, endpoint=site.address, token=False, cache_dir=tmp_path / "cache"))

    def run(**settings):
        write(workspace, settings)
        return run_stage("download", {"name": "net"})

    return run


@pytest.fixture
def refused(bring):
    """Download and expect one line that names the entry."""

    def run(**settings):
        with pytest.raises(UnseenError) as caught:
            bring(**settings)
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value).startswith("downloads.net: ")
        return str(caught.value)

    return run


def write(folder, settings):
    """Name the network, or what the settings say, in params.yaml."""
    entry = {"hub": "lab/network", "revision": "v1", "files": WANTED} | settings
    change(folder, "downloads", to={"net": entry})


def published():
    """Return what lies below data/downloads/net, without the manifest."""
    files = contents(Path("data/downloads/net"))
    assert files.pop(hub.MANIFEST)
    return files


def test_a_network_comes_from_the_hub_and_becomes_a_model(command, site, repositories, workspace):
    wanted = {name: content for name, content in repositories["models/lab/network"].items()
              if name.split("/")[0] in ("model_index.json", "unet", "scheduler")}
    weights = wanted[WEIGHTS]
    stored = f"/store/{sha256(weights)}"
    site.faults[stored] = [Fault(cut=len(weights) // 3),
                           Fault(status=429, headers={"Retry-After": "0"})]
    code, lines = command(sha256={WEIGHTS: sha256(weights)})
    assert code == 0, lines

    assert published() == wanted
    assert len(site.asked(stored)) == 3
    assert not [one for one in site.log if "large.bin" in one.path or "gitattr" in one.path]
    assert read_json(Path("data/downloads/net", hub.MANIFEST)) == {
        "hub": "lab/network", "repo_type": "model", "commit": COMMIT,
        "files": {name: {"sha256": sha256(content), "size": len(content)}
                  for name, content in wanted.items()}}
    assert list(Path(".work").iterdir()) == []

    assert load_model(Path("data/downloads/net")).shape == (3, SIZE, SIZE)
    change(workspace, "models", MODEL, "path", to="data/downloads/net")
    change(workspace, "models", MODEL, "sha256", to=sha256(weights))
    run_stage("fetch", {"domain": SEEN})
    assert run_stage("fetch_model", {"model": MODEL})["sha256"] == sha256(weights)


def test_what_is_not_there_is_one_line_of_the_command(command):
    code, lines = command(hub="lab/absent")
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("error: downloads.net: ") and "404" in lines[0]


def test_a_cut_connection_goes_on_where_it_was_cut(bring, site):
    content = np.random.default_rng(3).bytes(CHUNK + 50_000)
    site.repositories["models/lab/network"]["large.npy"] = content
    stored = f"/store/{sha256(content)}"
    site.faults[stored] = [Fault(cut=CHUNK + 10_000)]
    bring(files=["large.npy"])
    assert published() == {"large.npy": content}
    assert [one.range for one in site.asked(stored)] == [None, f"bytes={CHUNK}-"]


def test_a_data_set_comes_and_is_read_as_a_domain(bring, repositories):
    entry = {"hub": "lab/pictures", "repo_type": "dataset", "revision": COMMIT}
    bring(**entry, files=["*.png"])
    files = repositories["datasets/lab/pictures"]
    assert published() == {name: data for name, data in files.items() if name.endswith(".png")}
    source = load(SourceConfig(kind="folder", domain="net", path="data/downloads/net", size=18,
                               seed=0, crop=False, skip_bad=False, max_pixels=10_000, limit=None))
    with Image.open(io.BytesIO(files["images/05.png"])) as picture:
        wanted = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert len(source.images) == 12
    assert any(torch.equal(image, wanted) for image in source.images)
    # The same entry with another choice: what it no longer names goes.
    bring(**entry, files=["data/*.parquet"])
    assert list(published()) == ["data/train-00000-of-00001.parquet"]


def test_files_that_are_whole_do_not_come_twice(bring, refused, site, repositories):
    weights = repositories["models/lab/network"][WEIGHTS]
    site.faults[f"/store/{sha256(weights)}"] = [Fault(status=404)]
    assert "answers 404" in refused()
    assert not Path("data/downloads").exists()
    kept = [path.name for path in Path(".work/download-net/files/unet").iterdir()]
    bring()
    assert published()[WEIGHTS] == weights
    assert kept == ["config.json"]
    assert len(site.asked(f"/lab/network/resolve/{COMMIT}/unet/config.json")) == 1


def test_content_that_is_not_what_the_hub_says_is_thrown_away(bring, refused, site, repositories):
    weights = repositories["models/lab/network"][WEIGHTS]
    stored = f"/store/{sha256(weights)}"
    bring()
    before = contents(Path("data/downloads/net"))
    site.files[stored] = b"1" * len(weights)  # as long, and something else
    assert f"came with hash {sha256(site.files[stored])}" in refused()
    assert contents(Path("data/downloads/net")) == before
    for other in (weights[:-9], weights + b"more"):
        site.files[stored] = other
        assert "Consistency check failed" in refused()
        assert contents(Path("data/downloads/net")) == before
    site.files[stored] = weights
    assert "not " + "0" * 64 in refused(sha256={WEIGHTS: "0" * 64})
    assert "not among the files" in refused(sha256={"unet/model.pt": "0" * 64})
    assert contents(Path("data/downloads/net")) == before


@pytest.mark.parametrize(("settings", "says"), [
    ({"hub": "lab/absent"}, "RepoNotFound"), ({"revision": "absent"}, "RevisionNotFound"),
    ({"files": ["*.pt"]}, "no file of lab/network matches"),
    ({"hub": "lab/a--b"}, "--"),
])
def test_what_is_not_there_is_told(refused, settings, says):
    assert says in refused(**settings)
    assert not Path("data/downloads").exists()


def test_a_file_that_would_leave_the_folder_is_refused(refused, site):
    site.repositories["models/lab/network"]["../../escaped.txt"] = b"out"
    assert "escaped.txt" in refused(files=["*escaped.txt"])
    assert not list(Path().rglob("escaped.txt"))


def test_too_much_is_refused_before_anything_comes(refused, site):
    site.repositories["models/lab/network"]["big.bin"] = b"0" * (2**20 + 1)
    assert "have 1 MiB" in refused(files=["big.bin"], max_mib=1)
    assert not [one for one in site.log if "/store/" in one.path]


def test_an_overloaded_hub_is_asked_again(bring, site):
    address = "/api/models/lab/network/revision/v1"
    site.faults[address] = [Fault(status=503), Fault(status=429, headers={"Retry-After": "0"})]
    bring(files=["model_index.json"])
    assert len(site.asked(address)) == 3
    assert list(published()) == ["model_index.json"]
