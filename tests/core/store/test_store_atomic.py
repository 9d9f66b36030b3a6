"""Atomic files and canonical JSON."""

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from unseen_core.store import write_bytes, write_json, write_with


def test_json_is_canonical(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": math.nan, "a": (0.1, np.float64(1e-7), np.int64(3)), "é": [-math.inf]})
    assert path.read_text("utf-8") == (
        '{\n  "a": [\n    0.1,\n    1e-07,\n    3\n  ],\n  "b": null,\n  "é": [\n    null\n  ]\n}\n'
    )
    first = path.read_bytes()
    write_json(path, {"é": [np.float64("nan")], "a": [0.1, 1e-7, 3], "b": None})
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_with(path, fail)
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert json.loads(path.read_text()) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_temporary_files_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead, own = tmp_path / f".x.{process.pid}.tmp", tmp_path / f".x.{os.getpid()}.tmp"
    stay = [tmp_path / n for n in (f".x.{os.getppid()}.tmp", ".xx.1.tmp", ".x.a.tmp", ".x.tmp")]
    for file in (dead, own, *stay):
        file.write_text("half")
    write_bytes(tmp_path / "x", b"whole")
    assert {*tmp_path.iterdir()} == {tmp_path / "x", *stay}
