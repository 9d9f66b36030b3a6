"""`generate` on a folder: the paper's method, from pictures to new pictures, in one command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image
from workspace import MODEL, ROOT, contents, draw_pictures, isolate

from flows.running.registry import find_stage
from flows.running.run import DirectRun
from unseen_core.basics.images import decode_png
from unseen_core.sources import SourceConfig, load

COUNT = 5


@pytest.fixture
def project(workspace):
    """A project in which nothing has run, with JPEGs of mixed sizes and one that is broken."""
    for i, file in enumerate(draw_pictures(Path("drawn"), 12, seed=3)):
        Path("jpegs").mkdir(exist_ok=True)
        with Image.open(file) as picture:
            picture.resize((20 + 3 * i, 50 - 2 * i)).save(Path("jpegs", f"{file.stem}.jpg"))
    Path("jpegs/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    return workspace


def made(folder="out"):
    """Return the images that a command wrote, uint8 (n, c, h, w), and its manifest."""
    manifest = json.loads(Path(folder, "manifest.json").read_text())
    images = [decode_png(Path(folder, row["file"]).read_bytes()) for row in manifest["files"]]
    return torch.stack([torch.as_tensor(image) for image in images]), manifest


def test_a_folder_of_pictures_gives_new_ones_by_their_own_choice(project, command, caplog):
    code, said, printed = command("generate", "jpegs", "out", "--count", COUNT)
    assert code == 0, printed
    assert "skipped broken.jpg" in caplog.text and f"{COUNT} images" in said
    assert set(contents(Path("out"))) == {
        *(f"{i:05d}.png" for i in range(COUNT)), "sheet.png", "manifest.json"}
    images, manifest = made()
    assert images.shape == (COUNT, 3, 16, 16) and len(images.unique(dim=0)) == COUNT
    assert len(manifest["images"]) == 12 and manifest["skipped"][0]["file"] == "broken.jpg"
    # The images choose among what `select` compares, and take the nearest where none is new.
    table = manifest["choice"]["table"]
    assert {row["name"] for row in table} == {
        f"L0{level}-{name}" for level in (100, 200) for name in ("slerp", "geometric")}
    able = [row for row in table if row["admissible"]] or table
    best = min(able, key=lambda row: row["criterion"])
    assert best["name"] == f"L0{manifest['level']}-{manifest['sampler']}"
    figures = manifest["figures"]
    assert figures["near_copies"] == sum(row["near_copy"] for row in manifest["files"]) / COUNT
    assert 0 < figures["acceptance"] <= 1 and figures["novelty"] > 0
    for row in manifest["files"]:
        assert len(row["parents"]) == 2 and {*row["parents"], row["nearest"]} <= {
            *manifest["images"]}


def test_what_repeats_the_images_gives_them_back_as_copies(project, command):
    assert command("generate", "jpegs", "out", "--count", 12, "--sampler", "reconstruction",
                   "--level", 100)[0] == 0
    images, manifest = made()
    assert manifest["figures"]["near_copies"] == 1.0
    assert manifest["figures"]["novelty"] < 0.2
    assert sorted(row["nearest"] for row in manifest["files"]) == sorted(manifest["images"])
    # Parents are named in the order of the images, and each image is nearest to its own source.
    assert [row["parents"] for row in manifest["files"]] == [
        [row["nearest"]] for row in manifest["files"]]
    assert images.float().std() > 10


def test_parents_that_guide_alone_give_every_pixel(project, command):
    """With guide=1 a pixel is a mean of its parents' there, whatever the network would make."""
    given = load(SourceConfig("folder", "mine", path="jpegs", size=16))
    place = {name: i for i, name in enumerate(given.files)}
    inside = {}
    for guide in (0.0, 1.0):
        assert command("generate", "jpegs", f"out{guide}", "--count", COUNT, "--sampler",
                       "geometric", "--level", 200, "--set", f"guide={guide}")[0] == 0
        images, manifest = made(f"out{guide}")
        parents = torch.stack([given.images[[place[name] for name in row["parents"]]]
                               for row in manifest["files"]])
        inside[guide] = ((images >= parents.amin(1)) & (images <= parents.amax(1))).float().mean()
    assert inside[1.0] == 1.0 and inside[0.0] < 0.9


def test_blends_of_pixels_need_no_network(project, command, monkeypatch):
    """Without the shell a blend is the mean of its parents, whose weights are drawn."""
    def silent(self, *given):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("unseen_core.diffusion.denoiser.UNetEps.__call__", silent)
    given = load(SourceConfig("folder", "mine", path="jpegs", size=16))
    place = {name: i for i, name in enumerate(given.files)}
    assert command("generate", "jpegs", "out", "--count", COUNT, "--sampler", "pixel-blend",
                   "--set", "shell=false", "--set", "tested=false", "--set", "alpha=1000")[0] == 0
    images, manifest = made()
    assert (manifest["level"], manifest["sampler"]) == (0, "pixel-blend")
    for image, row in zip(images, manifest["files"], strict=True):
        parents = given.images[[place[name] for name in row["parents"]]].double()
        assert len(parents) == 2 and (image - parents.mean(0)).abs().mean() < 5
    code, _, printed = command("generate", "jpegs", "no", "--sampler", "pixel-blend", "--level", 9)
    assert code == 2 and "works on pixels, without a network" in printed


def test_a_folder_of_a_telescope_needs_a_stretch(project, command):
    random = np.random.default_rng(0)
    Path("sky").mkdir()
    for i in range(12):
        flux = np.zeros((20, 20), np.float32)
        flux[2 + i // 2 : 12, 4 : 9 + i // 2] = 1000 * random.random()
        fits.PrimaryHDU(flux + random.random((20, 20), np.float32)).writeto(f"sky/{i:02}.fits")
    words = ("--count", 2, "--sampler", "geometric", "--level", 200)
    assert "set percentile" in command("generate", "sky", "no", *words)[2]
    assert command("generate", "sky", "out", *words, "--percentile", 1, 99)[0] == 0
    assert made()[1]["percentile"] == [1, 99]


def test_every_page_of_a_stack_is_a_given_picture(project, command):
    Path("stacks").mkdir()
    pictures = [Image.open(file) for file in sorted(Path("drawn").iterdir())]
    for i in range(0, len(pictures), 4):
        first, *others = pictures[i : i + 4]
        first.save(f"stacks/{i:02}.tif", save_all=True, append_images=others)
    words = ("--count", 2, "--sampler", "geometric", "--level", 200)
    code, _, printed = command("generate", "stacks", "no", *words)
    assert code == 2 and "stacks has 3 usable images" in printed
    assert command("generate", "stacks", "out", *words, "--all-pages")[0] == 0
    assert len(made()[1]["images"]) == len(pictures)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(project):
    generate = find_stage("generate")
    request = json.dumps({"images": "jpegs", "out": "out", "count": COUNT, "model": MODEL})
    generate(DirectRun(), request=request)
    whole = contents(Path("out"))
    for calls in range(3):  # stopped while images are carried up, at trials, at new images
        class Interrupted(DirectRun):
            """Ends within a call of map, after one item."""

            left: ClassVar = [calls]

            def map(self, fn, items, *, name, workers=1):
                if self.left[0]:
                    self.left[0] -= 1
                    return super().map(fn, items, name=name, workers=workers)
                super().map(fn, items[:1], name=name, workers=workers)
                raise KeyboardInterrupt

        again = json.dumps(json.loads(request) | {"out": f"again{calls}"})
        with pytest.raises(KeyboardInterrupt):
            generate(Interrupted(), request=again)
        scratch, = Path(".work").glob("generate-*")
        kept = {file: file.stat().st_mtime_ns for file in scratch.rglob("*.safetensors")}
        assert kept and not Path(f"again{calls}").exists()
        generate(DirectRun(), request=again)
        assert contents(Path(f"again{calls}")) == whole
        assert not scratch.exists()


def test_a_checkpoint_by_path_and_a_folder_outside_any_project(project, command, monkeypatch):
    import flows.commands.folders

    words = ("--count", 2, "--sampler", "geometric", "--level", 200)
    assert command("generate", "jpegs", "named", *words)[0] == 0
    assert command("generate", "jpegs", "by-path", "--model", "checkpoint", *words)[0] == 0
    assert contents(Path("named"), "0*.png") == contents(Path("by-path"), "0*.png")
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(flows.commands.folders, "SHIPPED", project / "params.yaml")
    isolate(monkeypatch, elsewhere)
    assert command("generate", project / "jpegs", "out", *words)[0] == 0
    assert contents(elsewhere / "out", "0*.png") == contents(project / "named", "0*.png")


@pytest.mark.parametrize(("words", "said"), [
    (("--sampler", "dream"), "--sampler dream is not known; use one of"),
    (("--sampler", "prior-isotropic"), "give --level, such as one of 100, 200"),
    (("--level", 0), "--level 0 is out of range; use 1 to 1000"),
    (("--level", 2000), "--level 2000 is out of range"),
    (("--set", "near=2"), "name it with --sampler"),
    (("--sampler", "geometric", "--set", "nearest=2"), "no setting 'nearest'"),
    (("--model", "nowhere/checkpoint"), "is not defined"),
    (("--method", "euler"), "--method euler"),
    (("--count", 0), "--count 0"),
])
def test_a_wrong_request_is_one_line(project, command, words, said):
    code, _, printed = command("generate", "jpegs", "out", *words)
    lines = [line for line in printed.splitlines() if "skipped" not in line]
    assert code == 2 and len(lines) == 1 and said in lines[0], printed
    assert not Path("out").exists()


def test_too_few_images_are_one_line(project, command):
    draw_pictures(Path("few"), 4)
    code, _, printed = command("generate", "few", "out")
    assert code == 2 and "few has 4 usable images; the method needs 8 or more" in printed


def test_the_first_example_makes_a_sheet_in_forty_lines_of_the_core_alone(project):
    script = ROOT / "examples/first_images.py"
    lines = script.read_text("utf-8").splitlines()
    assert len(lines) <= 40
    imports = {line.split()[1].partition(".")[0] for line in lines
               if line.startswith(("import ", "from "))}
    assert imports == {"sys", "pathlib", "unseen_core"}
    subprocess.run([sys.executable, str(script), "jpegs", "new.png", "checkpoint"], check=True,
                   env={"PYTHONPATH": str(ROOT), "PATH": ""})
    with Image.open("new.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[0] > 4 * 16 * 2 and pixels.std() > 10


def test_the_defaults_are_printed_with_what_they_mean(project, command, monkeypatch):
    code, said, _ = command("params", "solver")
    assert code == 0 and said.startswith("solver:") and "steps: 6" in said
    assert command("params")[1].strip() == Path("params.yaml").read_text().strip()
    code, _, printed = command("params", "solvr")
    assert code == 2 and "has no section 'solvr'" in printed
    isolate(monkeypatch, project.parent)
    assert "# network calls from clean to the highest level" in command("params", "solver")[1]
    assert command("--version")[1].strip()
