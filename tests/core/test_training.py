"""Drawn shapes repeat; training learns, and goes on after a break as if there had been none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from workspace import full_disk

from unseen_core.errors import UnseenError
from unseen_core.sources.shapes import _CHUNK, _shape, draw_shapes
from unseen_core.training import denoiser as training
from unseen_core.training.denoiser import DenoiserConfig, build_network, train_denoiser

TINY = DenoiserConfig(steps=8, batch=4, learning_rate=2e-3, warmup=2, ema=0.9,
                      channels=(16, 32), seed=3)


def images(epoch: int) -> Tensor:
    """Two batches and a half of shapes of 8 pixels, new ones each epoch."""
    drawn = draw_shapes(10, seed=100 + epoch, size=8)
    return torch.from_numpy(drawn).permute(0, 3, 1, 2)


def train(scratch: Path, config: DenoiserConfig = TINY, **options: object) -> dict[str, Tensor]:
    """Train and return the averaged weights."""
    return train_denoiser(images, config, scratch=scratch, **options)[0].state_dict()


def test_the_same_seed_draws_the_same_shapes() -> None:
    first = draw_shapes(20, seed=1, size=16)
    assert first.shape == (20, 16, 16, 3) and first.dtype == np.uint8
    assert np.array_equal(first, draw_shapes(20, seed=1, size=16))
    assert not np.array_equal(first, draw_shapes(20, seed=2, size=16))
    assert draw_shapes(0, seed=1, size=16).shape == (0, 16, 16, 3)


def test_a_longer_draw_begins_with_a_shorter_one() -> None:
    longer = draw_shapes(_CHUNK + 40, seed=1, size=8)
    assert np.array_equal(longer[:_CHUNK], draw_shapes(_CHUNK, seed=1, size=8))
    assert np.array_equal(longer[:30], draw_shapes(30, seed=1, size=8))
    assert not np.array_equal(longer[:40], longer[_CHUNK:])  # chunks differ


def test_shapes_fill_the_range_and_no_two_are_alike() -> None:
    drawn = draw_shapes(300, seed=0)
    assert drawn.min() < 10 and drawn.max() > 245
    pixels = drawn.reshape(300, -1).astype(float) / 255
    assert 0.3 < pixels.mean() < 0.6
    assert np.median(pixels.std(1)) > 0.1  # not flat fields
    assert len(np.unique(drawn.reshape(300, -1), axis=0)) == 300
    colour = drawn.astype(float).mean((1, 2))
    assert np.median(colour.max(1) - colour.min(1)) > 20  # coloured, not grey


def test_every_kind_of_shape_occurs() -> None:
    side = 64
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 4 - 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    coverage, colour = _shape(np.random.default_rng(0), 400, x, y)
    assert set(np.unique(coverage)) == {0.0, 1.0} and colour.min() >= 0 and colour.max() <= 1
    area = coverage.sum((1, 2))[:, None, None]
    centre = [(coverage * axis).sum((1, 2), keepdims=True) / area for axis in (x, y)]
    offset = x - centre[0] + 1j * (y - centre[1])
    radius = np.abs(offset)
    hollow = (coverage * (radius < 0.1)).sum((1, 2)) == 0
    extent = (coverage * radius).max((1, 2))
    filled = area[:, 0, 0] * (4 / side) ** 2 / (np.pi * extent**2)  # of the enclosing disc
    # A third-order moment sees three corners, and neither four nor none.
    corners = np.abs((coverage * offset**3).sum((1, 2))) / (coverage * radius**3).sum((1, 2))
    disc = ~hollow & (filled > 0.85)
    triangle = ~hollow & ~disc & (corners > 0.2)
    counts = [int(kind.sum()) for kind in (hollow, disc, triangle, ~(hollow | disc | triangle))]
    assert min(counts) > 75, counts  # a quarter of 400 each


def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole.pt")
    monkeypatch.setattr(training, "_SAVE_EVERY", 2)

    def stop(step: int, loss: float) -> None:
        if step == 5:  # after the save at 4, past the end of the first epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut.pt", observe=stop)
    assert torch.load(tmp_path / "cut.pt", weights_only=True)["step"] == 4
    steps: list[int] = []
    resumed = train(tmp_path / "cut.pt", observe=lambda step, loss: steps.append(step))
    assert steps == [5, 6, 7, 8]
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert not list(tmp_path.glob("*.new"))


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    calls: list[int] = []
    first = train_denoiser(images, TINY, scratch=tmp_path / "a.pt")
    second = train_denoiser(images, TINY, scratch=tmp_path / "a.pt",
                            observe=lambda step, loss: calls.append(step))
    assert not calls
    assert first[2] == second[2]
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name


def test_the_loss_falls_and_the_average_lags_behind(tmp_path: Path) -> None:
    losses: list[float] = []
    config = replace(TINY, steps=36, batch=8, learning_rate=4e-3)
    network, scheduler, last = train_denoiser(
        images, config, scratch=tmp_path / "a.pt", observe=lambda step, loss: losses.append(loss))
    assert len(losses) == 36 and losses[-1] == last
    assert last < 0.9 * losses[0], losses  # smoothed: about 0.8 here, 1.0 without learning
    assert not network.training and scheduler.config.beta_schedule == "linear"
    raw, average, _ = torch.load(tmp_path / "a.pt", weights_only=True)["parts"]
    start = build_network(config).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, average[name])
    moved = [name for name in raw if not torch.equal(raw[name], average[name])]
    assert len(moved) == len(raw) == len(start)  # every parameter trains, every average lags


def test_a_training_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    first = train_denoiser(images, TINY, scratch=tmp_path / "a.pt")[0]
    idle = replace(TINY, steps=1, learning_rate=1e-12)
    kept = train(tmp_path / "b.pt", idle, start=first)
    assert all(torch.allclose(x, kept[name], atol=1e-6) for name, x in first.state_dict().items())
    other = build_network(replace(TINY, channels=(32, 32)), 8)
    with pytest.raises(UnseenError, match="other channels"):
        train(tmp_path / "c.pt", start=other)


def test_another_configuration_s_scratch_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "a.pt", replace(TINY, steps=1))
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(UnseenError, match=r"a\.pt belongs to another pretrain configuration"):
        train(tmp_path / "a.pt", replace(TINY, learning_rate=1e-3))
    assert (tmp_path / "a.pt").read_bytes() == before


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(path.read_bytes()[:200]),
    lambda path: path.write_bytes(b""),
    lambda path: torch.save({"step": 3}, path),
], ids=["truncated", "empty", "foreign"])
def test_a_damaged_scratch_is_one_line(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    train(tmp_path / "a.pt", replace(TINY, steps=1))
    spoil(tmp_path / "a.pt")
    with pytest.raises(UnseenError, match=r"a\.pt .*delete it") as caught:
        train(tmp_path / "a.pt", replace(TINY, steps=1))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(UnseenError, match=r"a\.pt: File too large; its file"):
        train(tmp_path / "a.pt", replace(TINY, steps=1))
    assert not list(tmp_path.iterdir())


def test_a_diverging_training_stops_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY", 1)
    with pytest.raises(UnseenError, match=r"loss became (nan|inf).*learning_rate"):
        train(tmp_path / "a.pt", replace(TINY, learning_rate=1e30, warmup=1))
    if (tmp_path / "a.pt").exists():
        network = torch.load(tmp_path / "a.pt", weights_only=True)["parts"][0]
        assert all(value.isfinite().all() for value in network.values())


def test_attention_only_at_the_lowest_resolution() -> None:
    network = build_network(replace(TINY, channels=(16, 32, 48)), size=16)
    assert network.config.down_block_types == ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D")
    assert network.config.up_block_types == ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D")
    assert network.config.sample_size == 16
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert network(x, torch.tensor([1, 900])).sample.shape == x.shape


def test_the_target_is_the_velocity_of_diffusers() -> None:
    scheduler = training.DDPMScheduler(prediction_type="v_prediction")
    x = images(0).float() / 127.5 - 1
    seen: dict[str, Tensor] = {}

    def zero(noisy: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        seen.update(noisy=noisy, t=t)
        return (torch.zeros_like(noisy),)

    generator = torch.Generator().manual_seed(0)
    loss = training._loss(zero, x, scheduler.alphas_cumprod, generator)
    generator.manual_seed(0)
    torch.rand(len(x), generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    assert torch.allclose(seen["noisy"], scheduler.add_noise(x, noise, seen["t"]), atol=1e-6)
    wanted = scheduler.get_velocity(x, noise, seen["t"]).square().mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
