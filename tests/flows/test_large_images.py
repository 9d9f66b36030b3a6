"""The chain of stages at 256 x 256 with a narrow network: parts, streams and bytes as promised."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from workspace import (
    DOMAIN,
    MODEL,
    PAIRED,
    change,
    draw_pictures,
    enter_copy,
    fetch_all,
    isolate,
    parameters,
    run_stages,
    write_parameters,
)

from flows.dispatch import run_stage
from flows.loading.fitted import load_fitted
from flows.loading.starts import load_starts, rows_of_parts
from flows.settings.cells import Cell
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from unseen_core.laws.references import References
from unseen_core.store import TensorStore, read_frame, read_pictures

PLACE = Path(MODEL, DOMAIN)
SIZE, FIT, COUNT = 256, 8, 6
SAMPLERS = {
    "prior-shrunk": {"sampler": "prior", "kind": "shrunk"},
    "geometric": {"sampler": "geometric", "parents": 2, "near": 3, "tested": False},
    "reconstruction": {"sampler": "reconstruction"},
    "pixel-gaussian": {"sampler": "prior", "kind": "empirical", "space": "pixels"},
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project at 256 x 256 in which the chain has run; start states in parts of 4 and 2."""
    folder = tmp_path_factory.mktemp("large")
    _narrow_checkpoint(folder / "checkpoint")
    draw_pictures(folder / "pictures", FIT + 6)
    params = parameters()
    params["pipeline"] = {"models": [MODEL], "domains": [DOMAIN]}
    params["levels"] = [100]
    params["domains"][DOMAIN] |= {"fit": FIT, "held_out": 6}
    params["models"][MODEL]["seen"] = DOMAIN
    params["images"]["size"] = SIZE
    params["solver"] |= {"method": "ddim", "steps": 2}
    params["fit"]["kinds"] = ["empirical", "shrunk", "diagonal"]
    params["sample"] = {"count": COUNT, "part_size": 4}
    params["samplers"] = SAMPLERS
    write_parameters(folder, params)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        fetch_all((DOMAIN,))
        run_stage("invert", {"model": MODEL})
        run_stages(PAIRED)
        for study in (PATHS.trajectory, PATHS.steer, PATHS.applications):
            study(MODEL).mkdir(parents=True)  # they have tests of their own, and no images here
        run_stage("compare")
    return folder


def _narrow_checkpoint(folder: Path) -> None:
    """Write a network of two channels without attention, so that its time does not count."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIZE, block_out_channels=(2, 2), layers_per_block=1, norm_num_groups=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        add_attention=False)
    DDPMPipeline(network, DDPMScheduler(clip_sample=False)).save_pretrained(folder)


@pytest.fixture
def copied(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project as the working directory."""
    return enter_copy(large, tmp_path, monkeypatch)


def test_every_stage_runs_and_images_have_their_size(large: Path) -> None:
    store = TensorStore(large / "data/latents" / PLACE)
    assert store.shape == (3, SIZE, SIZE) and len(store) == FIT
    cells = json.loads((large / "data/metrics" / MODEL / f"{DOMAIN}.json").read_text())["cells"]
    assert [cell["sampler"] for cell in cells] == ["real", *SAMPLERS]
    for cell in cells[1:]:
        key = f"L{cell['level']:04d}-{cell['sampler']}"
        images, frame = read_pictures(large / "data/generated" / PLACE / f"{key}.parquet")
        assert images.shape == (COUNT, 3, SIZE, SIZE) and cell["n"] == COUNT
        assert frame["id"].tolist() == [f"{DOMAIN}-{key}-{i:05d}" for i in range(COUNT)]
    assert pd.read_csv(large / "data/report/compare.csv")["novelty"].notna().all()


def test_what_fit_writes_does_not_grow_with_the_images(large: Path) -> None:
    files = [*(large / "data/priors" / PLACE).glob("*.safetensors")]
    state = 3 * SIZE**2 * 4  # one image in float32
    # Mean and variances of ``diagonal`` are two of them; 8 x 8 weights are next to nothing.
    assert len(files) == 2 and all(file.stat().st_size < 2 * state + 20_000 for file in files)


def test_fitted_inner_products_are_those_of_the_latents(copied: Path) -> None:
    kept = load_fitted(MODEL, DOMAIN, 100).references.gram
    fresh = References.stored(TensorStore(Path("data/latents", PLACE)), 100, block=3 * 2**20)
    assert len(next(fresh.blocks())[1]) == 2
    torch.testing.assert_close(kept, fresh.gram, rtol=1e-12, atol=1e-9)


def test_start_states_do_not_depend_on_the_size_of_parts(copied: Path) -> None:
    folder, cells = Path("data/starts", PLACE), Plan.of(load_params()).cells
    before = {cell: _starts(folder, cell) for cell in cells}
    assert all(rows_of_parts(folder, cell) == [range(4), range(4, 6)] for cell in cells)
    report = _reported(folder)
    change(copied, "sample", "part_size", to=1)
    run_stages(["sample"])
    assert all(len(rows_of_parts(folder, cell)) == COUNT for cell in cells)
    for cell in cells:
        for mine, alone in zip(before[cell], _starts(folder, cell), strict=True):
            torch.testing.assert_close(mine, alone, rtol=1e-6, atol=1e-6)
    assert _reported(folder) == pytest.approx(report)


def _starts(folder: Path, cell: Cell) -> tuple[torch.Tensor, torch.Tensor]:
    """All start states of a cell, and their parents."""
    parts = [load_starts(folder, cell, i) for i in range(len(rows_of_parts(folder, cell)))]
    return torch.cat([part.x for part in parts]), torch.cat([part.parents for part in parts])


def _reported(folder: Path) -> dict[str, float]:
    """The acceptance of every cell."""
    rows = json.loads((folder / "report.json").read_text())["cells"]
    return {row["cell"]: row["acceptance"] for row in rows}


def test_reconstructions_go_through_all_references_part_by_part(copied: Path) -> None:
    frame = read_frame(Path("data/generated", PLACE, "L0100-reconstruction.parquet"))
    ids = read_frame(Path("data/source/domains", DOMAIN, "fit.parquet"))["id"].tolist()
    assert frame["parents"].tolist() == ids[:COUNT]
    assert np.all(frame["nearest_fit"] == frame["parents"])
