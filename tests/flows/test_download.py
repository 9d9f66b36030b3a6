"""Downloads of single files: resumed, refused, tried again."""

import hashlib
import socket
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hubserver import Fault, serve
from tenacity import wait_none
from workspace import change, contents

from flows.dispatch import run_stage
from flows.downloads import retries, transfer
from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import load_extractor
from unseen_core.judging.features import extract

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
PLACE, TARGET = "/weights.pt", Path("data/downloads/net/weights.pt")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def site(monkeypatch):
    """A server with one file, and no waits between tries."""
    monkeypatch.setattr(retries, "_BACKOFF", wait_none())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as running:
        running.files[PLACE] = CONTENT
        yield running


@pytest.fixture
def bring(workspace, site):
    """Download the file with given settings; the hash is the right one unless given."""

    def run(**settings):
        entry = {"url": site.address + PLACE, "sha256": sha256(CONTENT), **settings}
        given = {key: value for key, value in entry.items() if value is not None}
        change(workspace, "downloads", to={"net": given})
        return run_stage("download", {"name": "net"})

    return run


@pytest.fixture
def refused(bring):
    """Download and expect one line that names the entry."""

    def run(**settings):
        with pytest.raises(UnseenError) as caught:
            bring(**settings)
        assert len(str(caught.value).splitlines()) == 1
        assert "downloads.net" in str(caught.value)
        return str(caught.value)

    return run


def ranges(site):
    """Return what each request asked for."""
    return [one.range for one in site.asked(PLACE)]


def test_a_file_comes_once_and_nothing_else_stays(bring, site):
    assert bring() == {"name": "net", "sha256": sha256(CONTENT)}
    assert contents(Path("data/downloads")) == {"net/weights.pt": CONTENT}
    assert list(Path(".work").iterdir()) == []
    bring()
    assert len(site.asked(PLACE)) == 1
    bring(file="other.pt")
    assert contents(Path("data/downloads")) == {"net/other.pt": CONTENT}


def test_a_cut_connection_goes_on_where_it_was_cut(bring, site):
    site.faults[PLACE] = [Fault(cut=100_000), Fault(cut=50_000), Fault(status=503),
                          Fault(status=429, headers={"Retry-After": "0"})]
    bring()
    assert TARGET.read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=100000-", *["bytes=150000-"] * 3]
    assert {one.condition for one in site.asked(PLACE)[1:]} == {
        f'"{hashlib.md5(CONTENT).hexdigest()}"'}


def test_a_later_run_goes_on_too(bring, refused, site, monkeypatch):
    monkeypatch.setattr(retries, "_TRIES", 1)
    site.faults[PLACE] = [Fault(cut=len(CONTENT) - 7)]
    assert "run it again" in refused()
    assert not TARGET.exists()
    bring()
    assert TARGET.read_bytes() == CONTENT
    assert ranges(site) == [None, f"bytes={len(CONTENT) - 7}-"]


def test_a_run_that_was_stopped_after_the_last_byte_is_not_sent_anew(bring, site, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "file_hash", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bring()
    bring()
    assert TARGET.read_bytes() == CONTENT
    assert ranges(site) == [None, f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("lacks", ["ranges", "validators"])
def test_a_server_that_cannot_go_on_sends_the_whole_file_again(bring, site, lacks):
    setattr(site, lacks, False)
    site.faults[PLACE] = [Fault(cut=100_000)]
    bring()
    assert TARGET.read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=100000-" if lacks == "ranges" else None]


def test_a_file_that_changed_between_two_tries_is_not_mixed(bring, refused, site, monkeypatch):
    monkeypatch.setattr(retries, "_TRIES", 1)
    site.files[PLACE] = OTHER
    site.faults[PLACE] = [Fault(cut=100_000)]
    refused()
    site.files[PLACE] = CONTENT
    bring()
    assert TARGET.read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=100000-"]


def test_bytes_from_another_address_are_not_taken(bring, refused, site, monkeypatch):
    monkeypatch.setattr(retries, "_TRIES", 1)
    site.files["/mirror/weights.pt"] = CONTENT
    site.faults["/mirror/weights.pt"] = [Fault(cut=10)]
    refused(url=f"{site.address}/mirror/weights.pt")
    bring()
    assert ranges(site) == [None]


def test_a_wrong_hash_leaves_what_is_published_and_is_fetched_anew(bring, refused, site):
    bring()
    site.files[PLACE] = OTHER
    wanted = sha256(b"something else")
    assert f"sha256 {sha256(OTHER)}, not {wanted}" in refused(sha256=wanted)
    assert contents(Path("data/downloads")) == {"net/weights.pt": CONTENT}
    refused(sha256=wanted)
    assert len(site.asked(PLACE)) == 3
    bring(sha256=sha256(OTHER))  # what came last is the file that is now asked for
    assert TARGET.read_bytes() == OTHER
    assert len(site.asked(PLACE)) == 3


def test_a_missing_hash_is_told_and_setting_it_needs_no_network(bring, refused, site):
    for _ in range(2):
        assert sha256(CONTENT) in refused(sha256=None)
        assert not TARGET.exists()
    site.faults[PLACE] = [Fault(status=500)] * 20
    bring()
    assert TARGET.read_bytes() == CONTENT
    assert len(site.asked(PLACE)) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_answer_that_will_not_change_is_told_at_once(refused, site, status):
    site.faults[PLACE] = [Fault(status=status)]
    assert f"answers {status}" in refused()
    assert len(site.log) == 1


def test_a_server_that_stays_overloaded_is_given_up(refused, site):
    site.faults[PLACE] = [Fault(status=503)] * 20
    assert "answers 503" in refused()
    assert len(site.log) == retries._TRIES


def test_the_wait_that_a_server_asks_for_is_kept(bring, refused, site, monkeypatch):
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    site.faults[PLACE] = [
        Fault(status=429, headers={"Retry-After": "7"}),
        Fault(status=503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        Fault(status=429, headers={"Retry-After": "soon"}),
    ]
    bring()
    assert waits == [7, 0, 0]
    TARGET.unlink()
    site.faults[PLACE] = [Fault(status=429, headers={"Retry-After": "4000"})]
    assert "asks to wait 4000 s" in refused()


def test_no_server_is_one_line(refused, monkeypatch):
    monkeypatch.setattr(retries, "_TRIES", 2)
    assert "2 times in a row" in refused(url="http://127.0.0.1:9/weights.pt")


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_above_the_cap_is_refused(refused, site, announced):
    site.lengths = announced
    site.files[PLACE] = b"0" * (3 * 2**20)
    assert "larger than 1 MiB" in refused(max_mib=1)
    kept = Path(".work/download-net/body")
    assert kept.stat().st_size < 2**21 if not announced else not kept.exists()


@pytest.mark.parametrize(("url", "says"), [
    ("http://example.org/a.pt", "only https"), ("ftp://127.0.0.1/a.pt", "only https"),
    ("file:///etc/hosts", "needs no download"), ("https:///a.pt", "https://host/path"),
    ("https://me:secret@example.org/a.pt", "password"), ("http://127.0.0.1.example.org/a", "only"),
])
def test_an_address_that_is_not_safe_is_refused(refused, site, url, says):
    line = refused(url=url)
    assert says in line and "secret" not in line
    assert site.log == []


class Archive(torch.nn.Module):
    """Stands for clean-fid's archive: 2048 features, layers in an attribute."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                                          torch.nn.Linear(3, 2048))


def test_inception_comes_by_a_download_and_clean_fid_never_fetches(bring, site, tmp_path,
                                                                   monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated as a whole
        torch.jit.script(Archive()).save(str(tmp_path / "archive"))
    content = (tmp_path / "archive").read_bytes()
    place = "/metrics/inception-2015-12-05.pt"
    site.files[place] = content
    bring(url=site.address + place, sha256=sha256(content))

    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("cleanfid.downloads_helper.urllib.request.urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    weights = Path("data/downloads/net/inception-2015-12-05.pt")
    extractor = load_extractor("inception", weights, sha256(content))
    features = extract(extractor, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert features.shape == (2, 2048)
    weights.unlink()
    with pytest.raises(UnseenError, match="no such weights file; fetch it"):
        load_extractor("inception", weights, sha256(content))
    assert len(site.asked(place)) == 1
