"""The documents: their commands exist and are run, their figures are those of the committed run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from PIL import Image
from ruamel.yaml import YAML
from workspace import ROOT

from flows.__main__ import app
from flows.dvc.overrides import overlay
from flows.settings.params import load_params
from unseen_core.sources import SourceConfig, load

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("make ", "python -m ", "unseen ", "dvc ", ". ")
RUN_BY = {  # each command of the README, and the test that runs what it runs
    "make repro": "tests/contract/test_dvc.py::"
                  "test_a_killed_repro_goes_on_and_reruns_only_the_domain_that_changed",
    "make test": None,  # it runs this test
    ". .venv/bin/activate": None,  # part of Python's venv
    "dvc repro": "tests/contract/test_dvc.py::"
                 "test_a_killed_repro_goes_on_and_reruns_only_the_domain_that_changed",
    "unseen generate IMAGES OUT --model natural32":
        "tests/flows/test_method.py::"
        "test_a_folder_of_pictures_gives_new_ones_by_their_own_choice",
    "python -m flows check": "tests/flows/test_params.py::"
                             "test_the_committed_file_is_sound_and_leaves_no_key_unread",
}


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands(page: Path) -> list[str]:
    """Return the commands in a page's shell blocks and in its inline code, without comments."""
    text = page.read_text("utf-8")
    lines = "".join(blocks(page, "sh") + blocks(page, "")).splitlines()
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    found = [line.partition(" #")[0].strip() for line in [*lines, *inline]]
    return [part for line in found for part in line.split(" && ") if part.startswith(PROGRAMS)]


def test_the_readme_is_short():
    text = README.read_text("utf-8")
    assert text.count("\n") <= 150 and len(text.encode()) <= 12_000


def test_every_command_of_the_readme_is_run_by_a_test():
    assert set(commands(README)) == set(RUN_BY)
    for file, _, name in (test.partition("::") for test in RUN_BY.values() if test):
        assert f"\ndef {name}(" in (ROOT / file).read_text("utf-8"), f"{file} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_that_there_is(page):
    known = typer.main.get_command(app).commands
    for line in commands(page):
        program, *words = shlex.split(line)
        if program == "make":
            made = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True)
            assert made.returncode == 0, line
            continue
        if words[:2] == ["-m", "flows"]:
            words = words[2:]
        elif program != "unseen":
            continue
        if words:  # "python -m flows" alone names the program
            assert words[0] in known, line
            if len(words) > 1:
                known[words[0]].make_context(words[0], words[1:])


def test_the_python_of_the_readme_makes_images(tmp_path, monkeypatch):
    block, = blocks(README, "python")
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "data").symlink_to(ROOT / "data")
    drawn = load(SourceConfig("digits", "digits", path=str(ROOT / "constraints.txt"), limit=24))
    for number, image in enumerate(drawn.images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"IMAGES/{number}.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(README), "exec"), {})
    with Image.open("new.png") as sheet:
        assert len(sheet.getcolors(1 << 20)) > 100  # pictures, not an empty sheet


def test_the_tables_are_those_of_the_committed_run(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from tables import rewrite

    pages = rewrite()
    assert len(pages) == 2
    for page, text in pages.items():
        assert text == page.read_text("utf-8"), f"{page}: `python docs/tables.py` renews it"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(("page", "place"), [
    (page, place) for page in PAGES if page.name != "extending.md"  # test_extending follows it
    for place in range(len(blocks(page, "yaml")))],
    ids=lambda value: value.name if isinstance(value, Path) else str(value))
def test_every_piece_of_params_yaml_is_a_sound_one(tmp_path, page, place):
    text = blocks(page, "yaml")[place].replace("COMMIT", "a" * 40)
    piece = YAML(typ="safe").load(text.replace("sha256: ...", f"sha256: {'a' * 64}"))
    domains = piece.setdefault("domains", {})
    own = {"source": "folder", "path": "x", "fit": 9, "held_out": 9}
    for model in piece.get("models", {}).values():
        domains.setdefault(model["seen"], own)  # which the page leaves to the reader
    layer, file = tmp_path / "piece.yaml", tmp_path / "params.yaml"
    with layer.open("w", encoding="utf-8") as stream:
        YAML().dump(piece, stream)
    file.write_bytes((ROOT / "params.yaml").read_bytes())
    overlay(file, layer)
    load_params(file)
