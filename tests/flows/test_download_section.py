"""What params.yaml may name as a download, and where a redirect may lead."""

import hashlib

import httpx2
import pytest
from workspace import change

from flows.dispatch import run_stage
from flows.downloads import transfer
from flows.settings.params import load_params
from unseen_core.errors import UnseenError

CONTENT = b"weights"


@pytest.mark.parametrize(("start", "target", "allowed"), [
    ("https://example.org/a", "http://example.org/b", False),
    ("https://example.org/a", "http://127.0.0.1/b", False),
    ("https://example.org/a", "https://other.org/b", True),
    ("http://127.0.0.1/a", "http://example.org/b", False),
    ("http://127.0.0.1/a", "http://localhost/b", True),
])
def test_a_redirect_may_not_leave_https(tmp_path, monkeypatch, start, target, allowed):
    def answer(request):
        if str(request.url) == start:
            return httpx2.Response(302, headers={"Location": target})
        return httpx2.Response(200, stream=httpx2.ByteStream(CONTENT))

    made = httpx2.Client
    monkeypatch.setattr(transfer.httpx2, "Client", lambda **settings: made(
        transport=httpx2.MockTransport(answer), **settings))

    def run():
        return transfer.transfer(start, tmp_path / "x", sha256=hashlib.sha256(CONTENT).hexdigest(),
                                 max_bytes=10**6, where="downloads.net")

    if allowed:
        assert run().read_bytes() == CONTENT
    else:
        with pytest.raises(UnseenError, match="refused"):
            run()
        assert not (tmp_path / "x/body").exists()


@pytest.mark.parametrize(("entry", "says"), [
    ({}, "give url or hub"), ({"url": "https://a.b/c", "hub": "a/b"}, "give url or hub"),
    ({"url": "https://a.b/"}, "give file"), ({"hub": "a/b"}, "needs a revision"),
    ({"url": "https://a.b/c", "sha256": "12"}, "64 digits"),
    ({"url": "https://a.b/c", "sha256": {"c": "0" * 64}}, "is one hash"),
    ({"hub": "a/b", "revision": "v1", "sha256": "0" * 64}, "maps files to hashes"),
    ({"url": "https://a.b/c", "revision": "v1"}, "belong to a hub"),
    ({"hub": "a/b", "revision": "v1", "file": "c"}, "takes files"),
    ({"hub": "../b", "revision": "v1"}, "downloads.net.hub"),
    ({"url": "https://a.b/c", "file": "../c"}, "downloads.net.file"),
    ({"url": "https://a.b/c", "sha265": "0"}, "did you mean sha256"),
])
def test_a_wrong_entry_is_one_line_that_names_it(workspace, entry, says):
    change(workspace, "downloads", to={"net": entry})
    with pytest.raises(UnseenError, match=says) as caught:
        load_params()
    assert "downloads.net" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_that_is_not_there_is_told(workspace):
    with pytest.raises(UnseenError, match="downloads has none"):
        run_stage("download", {"name": "net"})
