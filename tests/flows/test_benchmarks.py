"""The benchmarks measure what they say: equal work, known answers, a page that follows them."""

import json
import math
import sys

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from workspace import ROOT, isolate

from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.laws.gaussian import Gaussian

LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
          "beta_schedule": "linear"}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "docs")
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:  # names as plain as `common` and `store`
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_plain_loop_and_ours_make_the_same_number_of_calls(monkeypatch):
    from gpu import measure

    answer, batches = UNet2DModel.forward, []

    def counted(self, sample, *given, **named):
        batches.append(len(sample))
        return answer(self, sample, *given, **named)

    monkeypatch.setattr(UNet2DModel, "forward", counted)
    found = measure("toy", "cpu", 5, 4, repeats=1)
    # Three ways down, two of them up again, and one image whose operations are counted.
    assert batches == [4] * 5 * 5 + [1]
    assert (found["calls"], found["batch"], found["size"]) == (5, 4, 8)
    assert found["rows"][0]["ratio"] == 1 and len(found["rows"]) == 3
    for row in found["rows"]:
        assert row["operations_per_second"] > 0 and 0 < row["share_of_peak"] < 1.5
        assert math.isclose(row["workload_hours"],
                            6000 * 80 * row["seconds_per_image_and_call"] / 3600)
    assert 0 < found["bf16_against_float32"]["latent_error"] < 0.2


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_distances_are_those_of_the_other_libraries():
    from distances import frechet, kernel

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(60, 16, generator=generator, dtype=torch.float64) + shift
            for shift in (0, 0.4))
    for ways in (frechet(x, y), kernel(x, y)):
        values = {name: way() for name, way in ways.items()}
        assert len(values) >= 3 and values["unseen"] > 0.1
        for name, value in values.items():
            assert value == pytest.approx(values["unseen"], rel=1e-6), name


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
@pytest.mark.parametrize(("up", "down"), [
    (DDIMInverseScheduler, DDIMScheduler),
    (DPMSolverMultistepInverseScheduler, DPMSolverMultistepScheduler),
    (None, UniPCMultistepScheduler)])
def test_peers_come_closer_to_the_exact_map_with_more_calls(schedule, up, down):
    from inversion import relative
    from solvers import climb, descend

    law = Gaussian(torch.full((12,), 0.2), torch.zeros(12, 0), torch.tensor(0.3))
    model = GaussianEps(schedule, (3, 2, 2), law)
    generator = torch.Generator().manual_seed(1)
    clean = 0.2 + 0.55 * torch.randn(5, 3, 2, 2, generator=generator, dtype=torch.float64)

    def carried(x, start, stop):
        return law.transport(x.flatten(1), schedule, start, stop).view_as(x)

    for kind, carry, start, stop in ((up, climb, 0, 500), (down, descend, 500, 0)):
        if kind is None:
            continue
        x, errors = carried(clean, 0, start), []
        for steps in (10, 50):
            more = {"clip_sample": False} if "DDIM" in kind.__name__ else {}
            scheduler = kind(**LINEAR, timestep_spacing="trailing", **more)
            scheduler.set_timesteps(steps)
            found, calls = carry(model, scheduler, x, 500)
            # The solver of DPM takes the clean image for one of the first timestep's noise.
            assert calls == steps // 2 - (kind is DPMSolverMultistepInverseScheduler)
            errors.append(max(relative(found, carried(clean, 0, stop))))
        assert errors[1] < errors[0] / 2 and errors[1] < 0.2


def test_growth_has_the_exponent_of_a_power_and_none_of_a_start():
    from growth import exponents
    from memory import Stage

    along = [100, 1000, 10_000]
    runs = [{"line": Stage(peak_bytes=1, seconds=5 + n / 1000),
             "square": Stage(peak_bytes=1, seconds=5 + (n / 1000)**2),
             "start": Stage(peak_bytes=1, seconds=5 + n / 50_000)} for n in along]
    found = exponents(along, runs)
    assert found["line"] == pytest.approx(1, abs=0.05)
    assert found["square"] == pytest.approx(2, abs=0.05)
    assert found["start"] is None


def test_the_project_of_the_memory_benchmark_runs(tmp_path, monkeypatch, command):
    import memory

    def here(folder, *words):
        code, _, said = command(*words)
        assert code == 0, said
        return memory.Stage(peak_bytes=1, seconds=1)

    monkeypatch.setattr(memory, "measure", here)
    isolate(monkeypatch, tmp_path)
    memory.make_project(tmp_path, images=16, count=4, size=16)
    stages = ("invert", "fit", "sample", "denoise", "select", "evaluate", "analyze")
    assert {*stages} < memory.run_stages(tmp_path, stages).keys()
    table = json.loads((tmp_path / "data/metrics/narrow/smooth.json").read_text())["cells"]
    assert {cell["sampler"] for cell in table} == {"real", *memory.SAMPLERS}


def test_the_peak_of_a_stage_is_its_own_and_not_this_process_s(tmp_path):
    from memory import measure

    held = b"x" * 500_000_000
    found = measure(tmp_path, "--version")
    assert len(held) > found.peak_bytes > 5e6 and found.seconds > 0
    with pytest.raises(SystemExit, match="python -m flows no-such-stage: exit code 2"):
        measure(tmp_path, "no-such-stage")


def test_work_is_timed_in_turns_and_memory_is_that_of_its_own_process():
    from common import apart, side_by_side

    order = []
    seconds, results = side_by_side({"a": lambda: order.append("a") or 1,
                                     "b": lambda: order.append("b") or 2}, repeats=3)
    assert order == ["a", "b"] * 4 and results == {"a": 1, "b": 2}
    assert all(0 <= took["least"] <= took["median"] for took in seconds.values())
    found, taken = apart(eval, "len(b'x' * 400_000_000)")
    assert found == 400_000_000 and 200e6 < taken < 800e6


def test_the_page_of_performance_is_that_of_the_committed_results():
    from performance import page

    assert page(ROOT / "benchmarks/results") == (ROOT / "docs/performance.md").read_text("utf-8"), (
        "`python docs/performance.py` renews it")


def test_what_comes_back_is_measured_in_decibel_and_grey_levels(schedule):
    from reconstruction import came_back

    model = GaussianEps(schedule, (3, 4, 4), Gaussian(torch.zeros(48), torch.zeros(48, 0),
                                                      torch.tensor(0.3)))
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    few, many = (came_back(model, images, calls) for calls in (6, 60))
    assert min(many["decibel"]) > max(few["decibel"]) + 20 and min(many["decibel"]) > 60
    assert many["grey_levels"] == [0] * 5 and max(few["grey_levels"]) > 0
    # A pixel that is off by g grey levels alone costs at least its own share of the mean.
    for off, ratio in zip(few["grey_levels"], few["decibel"], strict=True):
        assert 10 ** (-ratio / 10) >= ((off - 0.5) / 255) ** 2 / 48
