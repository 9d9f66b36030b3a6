"""Unfinished outputs: kills, foreign files, locks, and what gets published."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

import unseen_core
from unseen_core.errors import UnseenError
from unseen_core.store import Scratch, file_hash, folder_hash, import_closure

HERE = Path(__file__).parent
ROOT = Path(unseen_core.__file__).parent.parent


class Child:
    """The running child process, what it saw and the folder it worked in."""

    def __init__(self, folder: Path, output: IO[str], process: subprocess.Popen[str]) -> None:
        self.folder, self.process = folder, process
        self.seen = json.loads(output.readline())
        self.word = output.readline().strip()


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("child")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "store_child.py"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            yield Child(folder, process.stdout, process)
        finally:
            process.kill()


def put(text: str) -> object:
    """Return a writer of ``text``."""
    return lambda path: path.write_text(text)


def test_kill_at_every_write_and_rerun(child: Child) -> None:
    runs = child.seen["runs"]
    assert len(runs) > 30
    for number, (state, _, digest, left) in enumerate(runs, 1):
        assert state != "torn", f"killed at write {number}: a manifest over unfinished parts"
        assert digest == child.seen["whole"], f"killed at write {number}: other bytes"
        assert left == [], f"killed at write {number}: scratch not removed"
    # The run that was not killed made all three parts, over a stale output.
    assert child.seen["last"] == [13, True]


def test_rerun_keeps_finished_parts(child: Child) -> None:
    states = [state for state, _, _, _ in child.seen["runs"]]
    assert [*dict.fromkeys(states)] == ["old", "open", "whole"]
    # Once the output is whole the scratch may go; until then nothing finished is made again.
    made = [made for state, made, _, _ in child.seen["runs"] if state != "whole"]
    assert made == sorted(made, reverse=True) and {*made} == {0, 1, 2, 3}


def test_two_processes_write_equal_bytes(child: Child, tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE))
    try:
        import store_child
    finally:
        sys.path.remove(str(HERE))
    store_child.build(tmp_path / "work", tmp_path / "out")
    assert folder_hash(tmp_path / "out") == child.seen["whole"]


def test_closure_covers_what_really_gets_imported(child: Child) -> None:
    imported = {Path(file) for file in child.seen["imported"]}
    closure = import_closure(ROOT / "unseen_core" / "store" / "__init__.py", ROOT)
    assert len(imported) > 10
    assert imported == set(closure)


def test_live_holder_is_named_and_dead_one_taken_over(child: Child) -> None:
    assert child.word == "held"
    root, pid = child.folder / "work", child.process.pid
    with pytest.raises(UnseenError, match=rf"held\.lock: process {pid} ") as caught:
        Scratch(root, "held").__enter__()
    assert "\n" not in str(caught.value)
    child.process.kill()
    child.process.wait()
    assert (root / "held.lock").read_text() == str(pid)
    with Scratch(root, "held") as scratch:
        assert (root / "held.lock").read_text() == str(os.getpid())
        assert scratch.has("part")


def test_second_scratch_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with Scratch(tmp_path, "mark"):
        with pytest.raises(UnseenError, match="at work"):
            Scratch(tmp_path, "mark").__enter__()
        with Scratch(tmp_path, "other"):
            pass
    assert not (tmp_path / "mark.lock").exists()


def test_lock_file_of_a_dead_process_does_not_block(tmp_path: Path) -> None:
    # Even if its process id now belongs to somebody else (here: the parent).
    (tmp_path / "mark.lock").write_text(str(os.getppid()))
    with Scratch(tmp_path, "mark") as scratch:
        scratch.add("part", put("x"))
        assert scratch.has("part")


@pytest.mark.parametrize("harm", ["truncate", "alter", "no sidecar", "bad sidecar", "sidecar only"])
def test_damaged_part_counts_as_missing(tmp_path: Path, harm: str) -> None:
    with Scratch(tmp_path, "mark") as scratch:
        scratch.add("L0300/part", put("0123456789"))
        path = scratch.path("L0300/part")
        sidecar = path.with_name("part.sha256")
        assert scratch.has("L0300/part")
        if harm == "truncate":
            path.write_text("01234")
        elif harm == "alter":
            path.write_text("0123456780")
        elif harm == "no sidecar":
            sidecar.unlink()
        elif harm == "bad sidecar":
            sidecar.write_text("no hash")
        else:
            path.unlink()
        with pytest.raises(UnseenError, match="L0300/part: part missing or altered"):
            scratch.publish(tmp_path / "out", ["L0300/part"], {})
        assert not (tmp_path / "out").exists()
        assert not scratch.has("L0300/part")
        assert not path.exists() and not sidecar.exists()
        scratch.add("L0300/part", put("0123456789"))
        assert scratch.has("L0300/part")


def test_foreign_files_are_never_published(tmp_path: Path) -> None:
    with Scratch(tmp_path, "mark") as scratch:
        scratch.add("part", put("ours"))
        (scratch.folder / "foreign").write_text("theirs")
        assert not scratch.has("foreign")
        assert not (scratch.folder / "foreign").exists()
        (scratch.folder / "foreign").write_text("theirs")
        scratch.publish(tmp_path / "out", ["part"], {"a": 1.5})
        assert not scratch.folder.exists()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["manifest.json", "part"]
    part = tmp_path / "out" / "part"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest == {"a": 1.5, "parts": {"part": {"sha256": file_hash(part), "size": 4}}}


def test_publish_replaces_an_older_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text, name in [("old", "L0900/part"), ("new", "L0300/part")]:
        with Scratch(tmp_path / "work", text) as scratch:
            scratch.add(name, put(text))
            scratch.add("same", put(text))
            scratch.publish(out, [name, "same"], {})
    files = sorted(file.relative_to(out).as_posix() for file in out.rglob("*"))
    assert files == ["L0300", "L0300/part", "manifest.json", "same"]
    assert (out / "same").read_text() == "new"


def test_publish_copies_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with Scratch(tmp_path / "work", "mark") as scratch:
        scratch.add("part", put("text"))
        scratch.publish(tmp_path / "out", ["part"], {})
    assert (tmp_path / "out" / "part").read_text() == "text"


def test_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with Scratch(tmp_path, "mark") as scratch:
        scratch.add("part", put("first"))
        with pytest.raises(OSError, match="disk full"):
            scratch.add("part", fail)
        # The first version stands, but is no longer vouched for.
        assert [file.name for file in scratch.folder.iterdir()] == ["part"]
        assert not scratch.has("part")


def test_half_written_files_are_swept_on_entering(tmp_path: Path) -> None:
    folder = tmp_path / "mark" / "L0300"
    folder.mkdir(parents=True)
    (folder / ".part.1.tmp").write_text("half")
    with Scratch(tmp_path, "mark"):
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../x", "/etc/x", "a/b/c", "", "a/", ".x", "x.sha256", "manifest.json", "a\n"],
)
def test_part_names_stay_inside(tmp_path: Path, name: str) -> None:
    with Scratch(tmp_path, "mark") as scratch:
        for call in (scratch.has, scratch.path, lambda n: scratch.add(n, put("x"))):
            with pytest.raises(UnseenError, match="part name"):
                call(name)
        with pytest.raises(UnseenError, match="part name"):
            scratch.publish(tmp_path / "out", [name], {})


def test_marks_stay_inside(tmp_path: Path) -> None:
    for mark in ("..", "a/b", "", "/x"):
        with pytest.raises(UnseenError, match="scratch mark"):
            Scratch(tmp_path, mark)


def test_writing_needs_the_lock(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "mark")
    with pytest.raises(UnseenError, match="with 'with'"):
        scratch.add("part", put("x"))
    with pytest.raises(UnseenError, match="with 'with'"):
        scratch.publish(tmp_path / "out", [], {})


def test_threads_add_different_names(tmp_path: Path) -> None:
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        gate.wait()
        for step in range(5):
            scratch.add(f"L0300/part-{number}-{step}", put(f"{number} {step}"))

    with Scratch(tmp_path, "mark") as scratch:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        names = [f"L0300/part-{n}-{s}" for n in range(4) for s in range(5)]
        assert all(scratch.has(name) for name in names)
        scratch.publish(tmp_path / "out", names, {})
    assert (tmp_path / "out" / "L0300" / "part-3-4").read_text() == "3 4"
