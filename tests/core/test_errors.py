"""A full disk or a missing permission becomes one line; other errors are left alone."""

import errno
import os
import ssl
from pathlib import Path

import pytest

from unseen_core.errors import UnseenError, refusals_told, shown
from unseen_core.store import write_with


def error(number: int, *names: object) -> OSError:
    """Return the system's error of a number about files."""
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(("raised", "said"), [
    (error(errno.ENOSPC, "/tmp/x"), r"^/tmp/x: No space left on device, \d+ MB are free there; "),
    (error(errno.ENOSPC), "^a file: No space left on device; make room"),
    (error(errno.EDQUOT, "/tmp/x"), "^/tmp/x: Disk quota exceeded; your quota"),
    (error(errno.EFBIG, "a", None, "b"), "^b: File too large; its file system"),
    (error(errno.EROFS, b"/tmp/x"), "^/tmp/x: Read-only file system; work in a folder"),
    (error(errno.EACCES, "/tmp/x"), "^/tmp/x: Permission denied; you need permission"),
])
def test_a_refusal_is_one_line_with_its_own_advice(raised: OSError, said: str) -> None:
    with pytest.raises(UnseenError, match=said) as caught, refusals_told():
        raise raised
    assert "\n" not in str(caught.value) and caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [
    error(errno.EIO, "/tmp/x"), error(errno.ENOENT, "/tmp/x"), ConnectionResetError(), OSError("?"),
    ssl.SSLError(1, "certificate verify failed"), error(errno.EPERM), error(errno.EIO, 3)],
    ids=str)
def test_another_error_of_the_system_is_left_alone(raised: OSError) -> None:
    with pytest.raises(OSError) as caught, refusals_told():
        raise raised
    assert caught.value is raised


def test_a_writer_that_may_not_read_its_source_names_the_source(tmp_path: Path) -> None:
    def copy(temporary: Path) -> None:
        raise error(errno.EACCES, "/elsewhere/source.bin")

    def fill(temporary: Path) -> None:
        raise error(errno.ENOSPC, str(temporary))

    with pytest.raises(UnseenError, match=r"^/elsewhere/source\.bin: Permission denied"):
        write_with(tmp_path / "out.bin", copy)
    with pytest.raises(UnseenError, match=f"^{tmp_path}/out.bin: No space"):
        write_with(tmp_path / "out.bin", fill)


def test_a_value_is_shown_by_its_beginning() -> None:
    nested: list[object] = []
    for _ in range(50):
        nested = [nested] * 10
    assert len(shown(nested)) < 100 and shown("x" * 1000)[40] == "." and shown(0.5) == "0.5"
