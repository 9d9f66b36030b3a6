"""The law of what a network has learnt, and the start states that read clean images and it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from workspace import DOMAIN, MODEL, change, run_stages

from flows.loading.source_law import load_source, write_source
from unseen_core.basics.images import to_float
from unseen_core.basics.scheduler_config import load_schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.references import References
from unseen_core.laws.source import fit_source
from unseen_core.store import read_json, read_pictures, write_pictures


def pictures(folder: Path, side: str, count: int, brightness: int) -> torch.Tensor:
    """Write a side of a domain, pictures around a grey; return them."""
    generator = torch.Generator().manual_seed(brightness)
    noise = torch.randint(-20, 20, (count, 3, 8, 8), generator=generator)
    images = (brightness + noise).to(torch.uint8)
    write_pictures(folder / f"{side}.parquet", images,
                   pd.DataFrame({"id": [f"{side}-{i}" for i in range(count)]}))
    return images


def test_fit_and_rest_are_fitted_and_held_out_images_are_not(tmp_path: Path) -> None:
    known = [pictures(tmp_path, "fit", 12, 40), pictures(tmp_path, "rest", 20, 60)]
    pictures(tmp_path, "held_out", 30, 230)
    assert write_source(tmp_path / "law.safetensors", tmp_path, 3) == 32
    found = load_file(tmp_path / "law.safetensors")
    mean = to_float(torch.cat(known)).double().mean(0).flatten()
    np.testing.assert_allclose(found["mean"].numpy(), mean.numpy(), atol=1e-6)
    assert found["factor"].shape[0] == 192 and 1 <= found["factor"].shape[1] <= 8
    assert found["diagonal"].shape == () and found["diagonal"] > 0
    (tmp_path / "rest.parquet").unlink()  # a domain all of whose images are fit or held out
    assert write_source(tmp_path / "law.safetensors", tmp_path, 3) == 12


def test_many_images_are_read_up_to_a_bound(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("flows.loading.source_law._MOST", 15)
    pictures(tmp_path, "fit", 12, 40)
    pictures(tmp_path, "rest", 20, 60)
    assert write_source(tmp_path / "law.safetensors", tmp_path, 3) == 15


def test_the_law_finds_the_modes_that_there_are() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(192, 3, generator=generator).double())[0]
    scores = torch.randn(400, 3, generator=generator).double() * torch.tensor([6.0, 4.0, 2.0])
    noise = 0.1 * torch.randn(400, 192, generator=generator).double()
    law = fit_source(References.of((0.2 + scores @ directions.T + noise).reshape(400, 3, 8, 8)))
    found, energies = law.modes()
    assert energies[:3].sqrt().tolist() == pytest.approx([6, 4, 2], rel=0.1)
    assert torch.linalg.svdvals(found[:, :3].T @ directions).min() > 0.99
    assert energies[3:].sum() < 0.01 and law.diagonal.item() == pytest.approx(0.01, rel=0.1)


def test_related_samplers_are_drawn_and_denoised(done: Path) -> None:
    samplers = {
        "leak": {"sampler": "signal-leak", "kind": "dct", "rank": 1, "color": [0.5, 0, -0.5]},
        "boomerang": {"sampler": "boomerang", "levels": [100]},
        "teleport": {"sampler": "teleport", "levels": [200]},
        "style": {"sampler": "style-noise", "levels": [200]},
        "pixel-leak": {"sampler": "signal-leak", "space": "pixels"}}
    change(done, "samplers", to=samplers)
    run_stages(["sample", "denoise"])
    starts = done / "data/starts" / MODEL / DOMAIN
    images, frame = read_pictures(done / "data/source/domains" / DOMAIN / "fit.parquet")
    made = {row["cell"]: row for row in read_json(starts / "report.json")["cells"]}
    assert made["L0100-boomerang"]["eta"] == 1.0 and made["L0200-leak"]["eta"] == 0.0
    part = load_file(starts / "L0100-boomerang/part-00000.safetensors")
    assert part["parents"].flatten().tolist() == [0, 1, 2]
    schedule = load_schedule(done / "data/source/models" / MODEL)
    noise = (part["x"] - schedule.a(100) * to_float(images[:3])) / schedule.s(100)
    assert noise.std() == pytest.approx(1, abs=0.1) and noise.mean() == pytest.approx(0, abs=0.1)
    _, table = read_pictures(done / "data/generated" / MODEL / DOMAIN / "L0100-boomerang.parquet")
    assert table["parents"].tolist() == frame["id"][:4].tolist()
    leak = load_file(starts / "L0000-pixel-leak/part-00000.safetensors")["x"]
    assert (leak.mean() - to_float(images).mean()).abs() < 0.2


def test_a_law_that_is_not_there_is_named(done: Path) -> None:
    assert load_source(MODEL).mean.shape == (768,)
    (done / "data/source/models" / MODEL / "law.safetensors").unlink()
    with pytest.raises(UnseenError, match=rf"no such file; run `.*fetch-model --model {MODEL}`"):
        load_source(MODEL)
