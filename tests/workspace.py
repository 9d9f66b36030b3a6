"""A whole project that runs in seconds: a network of random weights and a few drawn images."""

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
MODEL, DOMAIN, OTHER, SEEN = "tiny", "marks", "digits", "shapes"
SIZE = 16
CHAIN = ("invert", "fit", "finetune", "sample", "denoise", "select", "evaluate")
PAIRED = (*CHAIN, "analyze")  # every stage of a model and a domain
SAMPLERS = {
    "noise": {"sampler": "noise"},
    "reconstruction": {"sampler": "reconstruction"},
    "prior-isotropic": {"sampler": "prior", "kind": "isotropic"},
    "prior-empirical": {"sampler": "prior", "kind": "empirical", "levels": [200]},
    "slerp": {"sampler": "slerp"},
    "geometric": {"sampler": "geometric", "proposal": "blend", "parents": 2, "near": 3},
    "pixel-gaussian": {"sampler": "prior", "kind": "empirical", "space": "pixels"},
    "pixel-blend": {"sampler": "geometric", "proposal": "blend", "near": 3, "space": "pixels"},
}

_CELL = {"model": MODEL, "domain": DOMAIN}
OUTPUTS = [("fetch", {"domain": DOMAIN}, f"data/source/domains/{DOMAIN}"),
          ("fetch_model", {"model": MODEL}, f"data/source/models/{MODEL}"),
          ("plan", {}, "data/plan.json"),
          ("invert", _CELL, f"data/latents/{MODEL}/{DOMAIN}"),
          ("invert", {"model": MODEL}, f"data/seen/{MODEL}"),
          ("fit", _CELL, f"data/priors/{MODEL}/{DOMAIN}"),
          ("sample", _CELL, f"data/starts/{MODEL}/{DOMAIN}"),
          ("denoise", _CELL, f"data/generated/{MODEL}/{DOMAIN}"),
          ("select", _CELL, f"data/selection/{MODEL}/{DOMAIN}.json"),
          ("evaluate", _CELL, f"data/metrics/{MODEL}/{DOMAIN}.json"),
          ("trajectory", {"model": MODEL}, f"data/trajectory/{MODEL}"),
          ("steer", {"model": MODEL}, f"data/steer/{MODEL}"),
          ("applications", {"model": MODEL}, f"data/applications/{MODEL}"),
          ("compare", {}, "data/report/compare.csv")]
"""Stages that write something in the tiny project: what each is run on, and what it makes."""


def parameters() -> dict:
    """Return the committed parameters, reduced to little work on the CPU."""
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    params["pipeline"] = {"models": [MODEL], "domains": [DOMAIN, OTHER]}
    params["levels"] = [100, 200]
    params["compute"] = {"device": "cpu", "threads": 1}
    params["models"] = {MODEL: {"path": "checkpoint", "seen": SEEN}}
    params["domains"] = {
        DOMAIN: {"source": "folder", "path": "pictures", "fit": 8, "held_out": 6},
        OTHER: {"source": "digits", "path": "constraints.txt", "fit": 8, "held_out": 8,
                "limit": 30},
        SEEN: {"source": "shapes", "path": "unseen_core/sources/shapes.py", "fit": 8,
               "held_out": 6, "limit": 20},
    }
    params["images"] |= {"size": SIZE, "skip_bad": True}
    params["solver"] = {"method": "dpm3m", "spacing": "karras", "steps": 6}
    params["invert"] = {"precision": "float32", "batch": 2, "part_size": 3, "store": "float16"}
    params["fit"] |= {"kinds": ["isotropic", "empirical"], "neighbours": 5}
    params["sample"] = {"count": 4, "part_size": 3}
    params["samplers"] = SAMPLERS
    params["denoise"] = {"precision": "float32", "batch": 3}
    params["trajectory"] = {"seeds": 3, "images": 2, "levels": [100, 1000], "modes": [0, 500],
                            "kick": 2.0, "kicked": 2}
    params["applications"] = {
        "eta": 1.0, "anonymise": {"domains": [OTHER], "fractions": [0.2], "images": 10},
        "augment": {"labelled": OTHER, "labels": 1, "copies": 2, "fractions": [0.2], "seeds": 2,
                    "steps": 2},
        "enhance": {"domains": [SEEN], "factors": [2], "fractions": [0.1], "passes": [1, 2],
                    "images": 10}}
    params["evaluate"] = {"extractors": {"projections": {}}, "draws": 100}
    params["select"]["draws"] = 100
    params["steer"] = {"images": 4, "skips": [0.3, 0.5], "controls": [0.5], "levels": [200, 600],
                       "steps": 4, "colours": 4, "search": 300}
    return params


def write_parameters(folder: Path, params: Mapping[str, object]) -> None:
    """Write ``params.yaml``."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)


def change(folder: Path, *keys: str, to: object) -> None:
    """Set one parameter of ``params.yaml``, named by the keys that lead to it."""
    params = YAML(typ="safe").load((folder / "params.yaml").read_text("utf-8"))
    section = params
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = to
    write_parameters(folder, params)


def draw_pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write ``count`` PNG files, 24 x 20 pixels: a bright square on a dark slope."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        slope = np.linspace(0, 90, 24)[None, :, None] * random.random(3)
        pixels = np.broadcast_to(slope, (20, 24, 3)).copy()
        top, left = random.integers(0, 12, 2)
        pixels[top : top + 7, left : left + 7] += 60 + 100 * random.random(3)
        paths.append(folder / f"{i:02d}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def save_checkpoint(folder: Path, size: int = SIZE) -> None:
    """Write a U-Net with random weights as diffusers writes a pipeline."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=size, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    DDPMPipeline(network, DDPMScheduler(clip_sample=False)).save_pretrained(folder)


def run_stages(stages: Sequence[str], domain: str = DOMAIN) -> None:
    """Run stages of the project in the working directory, without a server."""
    from flows.dispatch import run_stage

    for name in stages:
        if name == "sample":
            run_stage("plan", {})
        run_stage(name, {"model": MODEL, "domain": domain})


def fetch_all(domains: Sequence[str] = (DOMAIN, SEEN)) -> None:
    """Fetch domains, then the model, which takes pictures of the domain it has seen."""
    from flows.dispatch import run_stage

    for name in domains:
        run_stage("fetch", {"domain": name})
    run_stage("fetch_model", {"model": MODEL})


def run_everything() -> None:
    """Run every stage of the project in the working directory, on both domains."""
    from flows.dispatch import run_stage

    fetch_all((DOMAIN, OTHER, SEEN))
    run_stage("invert", {"model": MODEL})
    for domain in (DOMAIN, OTHER):
        run_stages(PAIRED, domain)
    for name in ("trajectory", "applications", "steer"):
        run_stage(name, {"model": MODEL})
    run_stage("compare")


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Return every file below a folder by its relative name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes()
            for file in sorted(folder.rglob(pattern)) if file.is_file()}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def results(project: Path) -> dict[str, bytes]:
    """Return every file of data/ but the seconds that stages took."""
    return {name: data for name, data in contents(project / "data").items()
            if not name.startswith("seconds/")}


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in ``folder``, away from servers, stores and repositories of the caller."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "PREFECT_", "MLFLOW_"))]:
        patch.delenv(name)
    # An invocation without a parent run: nothing is mirrored.
    patch.setenv("UNSEEN_PARENT_RUN", "")
    patch.setenv("DVC_NO_ANALYTICS", "1")
    patch.chdir(folder)


def enter_copy(source: Path, place: Path, patch: pytest.MonkeyPatch) -> Path:
    """Work in a fresh copy of a project below ``place``, and return it; see `isolate`."""
    folder = place / "my pröject"  # a path that a shell would split
    shutil.copytree(source, folder)
    isolate(patch, folder)
    return folder


@contextmanager
def copied_project(source: Path, folder: Path) -> Iterator[None]:
    """Work in a fresh copy of a project, ``folder``, until the block ends; see `isolate`."""
    shutil.copytree(source, folder)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        yield


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing has run; read only."""
    folder = tmp_path_factory.mktemp("blank")
    save_checkpoint(folder / "checkpoint")
    draw_pictures(folder / "pictures", 14)
    write_parameters(folder, parameters())
    return folder


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that the first process of a test run makes and the others wait for.

    Args:
        factory: That of the process.
        name: Of the folder, unique.
        make: Makes the folder it is given, in which nobody writes afterwards.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name / "project", shared / name / "done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            folder.parent.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run on both domains; read only."""

    def make(folder: Path) -> None:
        with copied_project(blank, folder):
            run_everything()

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def workspace(blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the project as the working directory; nothing has run."""
    return enter_copy(blank, tmp_path, monkeypatch)


@pytest.fixture
def done(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the finished project as the working directory."""
    return enter_copy(finished, tmp_path, monkeypatch)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line; return the exit code, standard output and standard error."""
    from flows.__main__ import run_command

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flows", *map(str, words)])
        capsys.readouterr()
        return run_command(), *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def warm() -> Iterator[dict[str, str]]:
    """The variables that lead a command to a warm process; without one the test is skipped."""
    from flows.running.warm import warm_stages

    with warm_stages() as variables:
        if not variables:
            pytest.skip("no warm process on this machine")
        yield dict(variables)


@pytest.fixture
def with_network(workspace: Path) -> Path:
    """A project with a fetched model; no stage has run."""
    from flows.loading.frozen import record_weights
    from flows.settings.paths import PATHS

    shutil.copytree("checkpoint", PATHS.model(MODEL))
    record_weights(PATHS.model(MODEL))
    return workspace


def distances(kernel: str, value: float | None, low: float | None = None,
              high: float | None = None) -> dict[str, float | None]:
    """Return a cell's kernel distances: to either half these, to all held-out images far more."""
    ends = {"": value, "_low": low, "_high": high}
    return {f"{kernel}_first": value} | {f"{kernel}{end}": 1000.0 for end in ends} | {
        f"{kernel}_second{end}": x for end, x in ends.items()}
