"""The stages in order, as plain calls: what they write."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from workspace import DOMAIN, MODEL, OTHER, SAMPLERS, SEEN, parameters

from flows.settings.params import Params
from flows.settings.plan import Plan
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.store import TensorStore, read_frame, read_pictures

LEADING = ["model", "domain", "level", "sampler", "n", "kd_projections", "kd_projections_low",
           "kd_projections_high", "fd_projections", "in_target", "novelty", "diversity",
           "acceptance", "calls"]
CELLS = [cell.key for cell in Plan.of(Params.model_validate(parameters())).cells]
PLACE = Path(MODEL, DOMAIN)


@pytest.fixture(scope="module")
def data(finished):
    return finished / "data"


@pytest.fixture(scope="module")
def fitted(data):
    """The fit images and their ids."""
    images, frame = read_pictures(data / "source/domains" / DOMAIN / "fit.parquet")
    return images, frame["id"].tolist()


def test_fetch_splits_a_domain_and_copies_a_checkpoint(data, finished):
    sides = {}
    for side in ("fit", "held_out"):
        images, frame = read_pictures(data / f"source/domains/{DOMAIN}/{side}.parquet")
        sides[side] = set(frame["id"])
        assert images.shape[1:] == (3, 16, 16)
    assert [len(ids) for ids in sides.values()] == [8, 6]
    assert not sides["fit"] & sides["held_out"]
    report = json.loads((data / f"source/domains/{DOMAIN}/report.json").read_text())
    assert report["counts"] == {"fit": 8, "held_out": 6, "rest": 0}
    labels = read_frame(data / f"source/domains/{OTHER}/fit.parquet")["label"]
    assert labels.between(0, 9).all()
    weights = "unet/diffusion_pytorch_model.safetensors"
    copied = (data / "source/models" / MODEL / weights).read_bytes()
    assert copied == (finished / "checkpoint" / weights).read_bytes()
    seen = (data / "source/models" / MODEL / "seen.parquet").read_bytes()
    assert seen == (data / f"source/domains/{SEEN}/fit.parquet").read_bytes()


def test_latents_are_those_of_one_pass_through_every_level(data, fitted):
    from unseen_core.diffusion.denoiser import load_model
    from unseen_core.diffusion.transport import invert

    store = TensorStore(data / "latents" / PLACE)
    images, ids = fitted
    assert store.levels == (100, 200)
    assert list(store.ids) == ids
    grid = tuple(json.loads((data / "latents" / PLACE / "manifest.json").read_text())["grid"])
    assert grid[0] == 0 and grid[-1] == 200 and 100 in grid
    model, kept = load_model(data / "source/models" / MODEL), {}
    invert(model, to_float(images), grid, observe=kept.__setitem__)
    for level in store.levels:
        assert store.all(level).shape == (8, 3, 16, 16)
        assert (store.all(level) - kept[level]).abs().max() < 5e-3  # float16 on disk


def test_every_level_has_priors_and_every_cell_start_states(data):
    assert {p.name for p in (data / "priors" / PLACE).iterdir()} == {
        f"L{level:04d}.{end}" for level in (0, 100, 200) for end in ("json", "safetensors")}
    starts = data / "starts" / PLACE
    assert {p.name for p in starts.iterdir()} == {
        "report.json", *CELLS}
    for row in json.loads((starts / "report.json").read_text())["cells"]:
        parts = [load_file(file)["x"] for file in sorted((starts / row["cell"]).iterdir())]
        assert [len(x) for x in parts] == row["rows"] == [3, 1]
        assert torch.cat(parts).shape == (4, 3, 16, 16)
        assert 0 < row["acceptance"] <= 1
        assert bool(row["passed"]) == ("geometric" in row["cell"] or "blend" in row["cell"])


@pytest.mark.parametrize("key", CELLS)
def test_generated_images_carry_their_provenance(data, fitted, key):
    folder = data / "generated" / PLACE
    raw = read_frame(folder / f"{key}.parquet")
    images, frame = read_pictures(folder / f"{key}.parquet")
    assert list(raw) == ["id", "png", "model", "domain", "level", "sampler", "seed", "parents",
                         "nearest_fit", "nearest_distance"]
    assert raw["id"].is_unique
    with Image.open(io.BytesIO(raw["png"][0])) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (16, 16), "RGB")
    level, sampler = int(key[1:5]), key[6:]
    assert frame[["model", "domain", "level", "sampler", "seed"]].drop_duplicates().values.tolist(
        ) == [[MODEL, DOMAIN, level, sampler, 0]]
    fit_images, ids = fitted
    parents = {"reconstruction": 1, "slerp": 2, "geometric": 2, "pixel-blend": 2}.get(sampler, 0)
    for row, image in zip(frame.itertuples(), images, strict=True):
        named = row.parents.split(",") if row.parents else []
        assert len(named) == parents and set(named) <= set(ids)
        distance = (image - fit_images.double()).flatten(1).norm(dim=1) / 255
        assert row.nearest_distance == pytest.approx(distance.min().item(), abs=1e-9)
        assert distance[ids.index(row.nearest_fit)] == distance.min()
    with Image.open(folder / f"{key}.png") as sheet:
        sheet.verify()


def test_reconstruction_returns_the_first_fit_images(data, fitted):
    images, frame = read_pictures(data / "generated" / PLACE / "L0100-reconstruction.parquet")
    assert frame["parents"].tolist() == frame["nearest_fit"].tolist() == fitted[1][:4]
    assert (images.double() - fitted[0][:4]).abs().mean() < 2  # of 255


@pytest.mark.parametrize("sampler", ["pixel-gaussian", "pixel-blend"])
def test_pixel_samplers_never_call_the_network(data, sampler):
    key = f"L0000-{sampler}"
    images, _ = read_pictures(data / "generated" / PLACE / f"{key}.parquet")
    parts = [load_file(file)["x"] for file in sorted((data / "starts" / PLACE / key).iterdir())]
    assert torch.equal(images, to_uint8(torch.cat(parts)))
    assert json.loads((data / "generated" / PLACE / f"{key}.json").read_text())["calls"] == 0


def test_the_table_has_the_required_columns_and_a_row_for_every_cell(data):
    table = pd.read_csv(data / "report/compare.csv")
    assert list(table)[: len(LEADING)] == LEADING
    expected = {(domain, int(key[1:5]), key[6:]) for domain in (DOMAIN, OTHER)
                for key in [*CELLS, "L0000-real"]}
    assert set(table[["domain", "level", "sampler"]].itertuples(index=False, name=None)) == expected
    assert len(table) == len(expected)
    made = table[table["sampler"] != "real"]
    assert made[LEADING].notna().all(axis=None)
    assert (made["n"] == 4).all()
    manifest = json.loads((data / "latents" / PLACE / "manifest.json").read_text())
    assert (made["calls"] == made["level"].map(manifest["grid"].index)).all()
    assert (table["kd_projections_low"] <= table["kd_projections"]).all()
    assert (table["kd_projections"] <= table["kd_projections_high"]).all()
    assert table["in_target"].between(0, 1).all() and made["acceptance"].between(0, 1).all()
    assert (table.loc[table["sampler"] == "real", "novelty"] == 0).all()


def test_the_best_cell_is_a_latent_one_and_the_plots_are_there(data):
    best = json.loads((data / "report/best.json").read_text())
    assert set(best) == {f"{MODEL}/{DOMAIN}", f"{MODEL}/{OTHER}"}
    for cell in best.values():
        assert SAMPLERS[cell["sampler"]].get("space") != "pixels"
        assert cell["sampler"] not in ("noise", "reconstruction")
    for name in ("front", "distance_over_level", "overview"):
        with Image.open(data / "report" / f"{name}.png") as plot:
            plot.verify()


def test_metrics_per_image_and_per_cell_agree_with_the_pictures(data):
    values = read_frame(data / "metrics" / MODEL / f"{DOMAIN}.parquet")
    cells = json.loads((data / "metrics" / MODEL / f"{DOMAIN}.json").read_text())["cells"]
    for cell in cells:
        rows = values[(values["level"] == cell["level"]) & (values["sampler"] == cell["sampler"])]
        assert len(rows) == cell["n"]
        share = (rows["target_log_odds"] > 0).mean()
        assert cell["metrics"]["in_target"] == pytest.approx(share)
        sheet = cell["sheet"]
        assert (sheet is None) == (cell["sampler"] == "real")
        assert sheet is None or (data.parent / sheet).is_file()
