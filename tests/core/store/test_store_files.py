"""Hashes, import closure, tables and pictures."""

import ast
import hashlib
import math
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch

import unseen_core
from unseen_core.errors import UnseenError
from unseen_core.store import (
    file_hash,
    fingerprint,
    folder_hash,
    import_closure,
    read_frame,
    read_pictures,
    write_frame,
    write_index,
    write_pictures,
)

ROOT = Path(unseen_core.__file__).parent.parent


def test_fingerprint_depends_on_content_only() -> None:
    a = fingerprint({"steps": 40, "grid": (0, 1, 2), "nested": {"x": 1, "y": 2}})
    assert a == fingerprint({"nested": {"y": 2, "x": 1}, "grid": [0, 1, 2], "steps": 40})
    assert a != fingerprint({"steps": 40.0, "grid": (0, 1, 2), "nested": {"x": 1, "y": 2}})
    assert a != fingerprint({"steps": 40, "grid": (0, 2, 1), "nested": {"x": 1, "y": 2}})
    # The definition, so that a change of it is noticed: sha256 of the canonical JSON.
    assert fingerprint({"b": 1, "a": "é"}) == hashlib.sha256(b'{"a":"\\u00e9","b":1}').hexdigest()


@pytest.mark.parametrize("value", [Path("x"), torch.zeros(1), math.nan, {1, 2}])
def test_fingerprint_refuses_what_is_no_json(value: object) -> None:
    with pytest.raises(UnseenError, match="fingerprint of 'bad'"):
        fingerprint({"good": 1, "bad": value})


def test_hashes_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"abc")
    (tmp_path / "a" / "y").write_bytes(b"")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert file_hash(tmp_path / "a" / "b" / "x") == known
    first = folder_hash(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "c")
    assert folder_hash(tmp_path / "c") == first
    (tmp_path / "c" / "y").rename(tmp_path / "c" / "z")
    assert folder_hash(tmp_path / "c") != first
    (tmp_path / "c" / "z").rename(tmp_path / "c" / "y")
    (tmp_path / "c" / "b" / "x").write_bytes(b"abd")
    assert folder_hash(tmp_path / "c") != first
    for call in (file_hash, folder_hash):
        with pytest.raises(UnseenError, match="no such"):
            call(tmp_path / "absent")
    with pytest.raises(UnseenError, match="no such file"):
        file_hash(tmp_path / "c")


TREE = {
    "flows/__init__.py": "import os",
    "flows/stages/invert.py": "from unseen_core import ode, missing_attribute\nimport numpy, typer",
    "flows/report.py": "def late():\n    import unseen_core.deep.leaf as leaf\n    return leaf",
    "flows/broken.py": "def (",
    "unseen_core/__init__.py": "",
    "unseen_core/ode.py": "from .rules import step\nfrom unseen_core import loop",
    "unseen_core/loop.py": "from unseen_core.ode import *",
    "unseen_core/rules/__init__.py": "from . import euler",
    "unseen_core/rules/euler.py": "from ..errors import Oops",
    "unseen_core/rules/unused.py": "import flows.broken",
    "unseen_core/errors.py": "",
    "unseen_core/deep/__init__.py": "",
    "unseen_core/deep/leaf.py": "import other.thing",
    "other/thing.py": "import unseen_core.ode",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def closure(tree: Path, module: str) -> list[str]:
    """Return the closure of a module of the made tree as relative names."""
    return [file.relative_to(tree).as_posix() for file in import_closure(tree / module, tree)]


def test_closure_follows_every_kind_of_import(tree: Path) -> None:
    assert closure(tree, "flows/stages/invert.py") == [
        "flows/__init__.py",
        "flows/stages/invert.py",
        "unseen_core/__init__.py",
        "unseen_core/errors.py",
        "unseen_core/loop.py",
        "unseen_core/ode.py",
        "unseen_core/rules/__init__.py",
        "unseen_core/rules/euler.py",
    ]
    assert closure(tree, "flows/report.py") == [
        "flows/__init__.py",
        "flows/report.py",
        "unseen_core/__init__.py",
        "unseen_core/deep/__init__.py",
        "unseen_core/deep/leaf.py",
    ]
    wide = import_closure(tree / "flows/report.py", tree, ("unseen_core", "other"))
    assert {tree / "other/thing.py", tree / "unseen_core/ode.py"} < {*wide}


def test_a_changed_file_is_read_again(tree: Path) -> None:
    before = closure(tree, "flows/report.py")
    with (tree / "flows/report.py").open("a") as file:
        file.write("\nimport unseen_core.loop\n")
    assert {*closure(tree, "flows/report.py")} > {*before, "unseen_core/loop.py"}


def test_closure_names_what_it_cannot_read(tree: Path) -> None:
    with pytest.raises(UnseenError, match=r"broken\.py: cannot be read as Python"):
        closure(tree, "unseen_core/rules/unused.py")
    with pytest.raises(UnseenError, match=r"absent\.py: cannot be read"):
        closure(tree, "flows/absent.py")
    with pytest.raises(UnseenError, match="not below"):
        import_closure(Path(unseen_core.__file__), tree)


def test_a_file_is_parsed_again_when_another_thread_parsed_beside_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, calls = ast.parse, []

    def disturbed(*words: object, **named: object) -> ast.Module:
        calls.append(words)
        if len(calls) % 2:
            raise SystemError("AST constructor recursion depth mismatch (before=186, after=73)")
        return parse(*words, **named)

    monkeypatch.setattr(ast, "parse", disturbed)
    assert len(closure(tree, "flows/report.py")) == 5 and len(calls) == 10


def test_closure_of_the_real_package() -> None:
    files = import_closure(ROOT / "unseen_core" / "store" / "atomic.py", ROOT)
    names = [file.relative_to(ROOT / "unseen_core").as_posix() for file in files]
    expected = {"__init__.py", "errors.py", "basics/images.py", "store/__init__.py",
                "store/scratch.py"}
    assert expected < {*names} and names == sorted(names)
    assert not any(name.startswith("training") for name in names)


def test_frames(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"id": ["a", "b"], "value": [0.5, math.nan], "parents": [["x"], ["y", "z"]]}, index=[7, 9]
    )
    write_frame(tmp_path / "a.parquet", frame)
    back = read_frame(tmp_path / "a.parquet")
    assert back.index.tolist() == [0, 1] and list(back["parents"][1]) == ["y", "z"]
    pd.testing.assert_frame_equal(
        back[["id", "value"]], frame[["id", "value"]].reset_index(drop=True)
    )
    write_frame(tmp_path / "b.parquet", frame.reset_index(drop=True))
    assert file_hash(tmp_path / "a.parquet") == file_hash(tmp_path / "b.parquet")
    with pytest.raises(UnseenError, match="give each column one type"):
        write_frame(tmp_path / "c.parquet", pd.DataFrame({"x": [1, "a"]}))
    with pytest.raises(UnseenError, match="no such file"):
        read_frame(tmp_path / "c.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(UnseenError, match="damaged"):
        read_frame(tmp_path / "c.parquet")


def test_pictures(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 4, 5), generator=torch.Generator().manual_seed(1))
    images = images.to(torch.uint8)
    frame = pd.DataFrame({"id": ["a", "b", "c"], "level": [300] * 3}, index=[5, 6, 7])
    write_pictures(tmp_path / "a.parquet", images, frame)
    back, provenance = read_pictures(tmp_path / "a.parquet")
    assert torch.equal(back, images) and back.dtype == torch.uint8
    few, named = read_pictures(tmp_path / "a.parquet", limit=2)
    assert torch.equal(few, images[:2]) and named["id"].tolist() == ["a", "b"]
    pd.testing.assert_frame_equal(provenance, frame.reset_index(drop=True))
    assert "png" not in frame
    write_pictures(tmp_path / "b.parquet", images.clone(), frame.copy())
    assert file_hash(tmp_path / "a.parquet") == file_hash(tmp_path / "b.parquet")


def test_bad_pictures_are_refused(tmp_path: Path) -> None:
    images, path = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), tmp_path / "a.parquet"
    frame = pd.DataFrame({"id": ["a", "b"]})
    for wrong, table, word in (
        (images.float(), frame, "give uint8"),
        (images[:, :2], frame, "give uint8"),
        (images[:1], frame, "one row with an id"),
        (images, frame.rename(columns={"id": "name"}), "one row with an id"),
        (images, frame.assign(png=1), "no column png"),
        (images, pd.DataFrame({"id": ["a", "a"]}), "'a' appears twice"),
    ):
        with pytest.raises(UnseenError, match=word):
            write_pictures(path, wrong, table)
    assert not path.exists()
    for table, word in (
        (frame, "no columns id and png"),
        (frame.assign(png=[b"x", b"y"]), r"a\.parquet: .*PNG"),
        (frame.assign(png=[b"x", b"y"])[:0], "holds no picture"),
    ):
        write_frame(path, table)
        with pytest.raises(UnseenError, match=word):
            read_pictures(path)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"id": ["a"], "part": [0]}, "lacks column row"),
        ({"id": ["a", "a"], "part": [0, 0], "row": [0, 1]}, "'a' appears twice"),
        ({"id": ["a", "b"], "part": [0, 0], "row": [1, 0]}, "out of order"),
        ({"id": ["a", "b"], "part": [0, 0], "row": [0, 0]}, "out of order"),
    ],
)
def test_bad_index_is_refused(tmp_path: Path, columns: dict[str, list], word: str) -> None:
    with pytest.raises(UnseenError, match=word):
        write_index(tmp_path / "index.parquet", pd.DataFrame(columns))
