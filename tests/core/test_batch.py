"""The batch: found by doubling, and one line where memory ends."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given
from hypothesis import strategies as st

from unseen_core.basics.scheduler_config import read_schedule
from unseen_core.diffusion.batch import fastest, naming_memory, probe_batch
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.errors import UnseenError

SCHEDULE = {"num_train_timesteps": 10, "beta_start": 1e-4, "beta_end": 0.02,
            "beta_schedule": "linear"}


def clock(per_call: float, per_image: float, room: int) -> Callable[[int], float | None]:
    """A device with a cost per call and per image, and room for so many images."""
    return lambda count: None if count > room else per_call + per_image * count


@given(room=st.integers(1, 2000), most=st.sampled_from([1, 64, 512]))
def test_a_batch_fits_and_is_a_power_of_two(room: int, most: int) -> None:
    batch = fastest(clock(1000.0, 1.0, room), most)
    assert batch <= min(room, most) and batch & (batch - 1) == 0
    assert 2 * batch > min(room, most)  # so expensive a call is worth all the room there is


def test_doubling_ends_where_images_get_no_faster() -> None:
    # Time per image is 1 + 7 / n: 1.109 at 64, 1.055 at 128, and at most 5 % less means stop.
    assert fastest(clock(7.0, 1.0, 10_000)) == 64
    assert fastest(clock(0.0, 1.0, 10_000)) == 1


def test_no_room_for_one_image_is_one_line() -> None:
    with pytest.raises(UnseenError, match=r"compute\.device: not even one image fits"):
        fastest(clock(1.0, 1.0, 0))


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("MPS backend out of memory"),
    MemoryError(),
])
def test_a_lack_of_memory_names_what_to_lower(error: Exception) -> None:
    with pytest.raises(UnseenError) as caught, naming_memory("denoise.batch", 64):
        raise error
    message = str(caught.value)
    assert message == "out of memory: lower denoise.batch, now 64; finished parts are kept"


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), naming_memory("denoise.batch", 64):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize(("side", "batch"), [(32, 16), (64, 16), (256, 4)])
def test_on_the_cpu_nothing_is_timed(side: int, batch: int) -> None:
    class Untouchable:
        """Fails when it is asked for anything."""

        schedule = read_schedule(SCHEDULE)
        shape = (3, side, side)

        def __call__(self, x: torch.Tensor, level: int) -> torch.Tensor:
            """Fail."""
            raise AssertionError("called")

    assert probe_batch(Untouchable(), "cpu") == batch


@pytest.mark.gpu
def test_a_probe_on_a_gpu_leaves_no_memory_behind() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no cuda device")
    unet = UNet2DModel(sample_size=16, layers_per_block=1, block_out_channels=(8, 16),
                       norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                       up_block_types=("UpBlock2D",) * 2)
    model = UNetEps(unet, read_schedule(SCHEDULE | {"num_train_timesteps": 1000}),
                    device="cuda")
    probe_batch(model, "cuda")  # libraries keep workspaces of their own from the first call on
    before = torch.cuda.memory_allocated()
    assert probe_batch(model, "cuda") in [2**i for i in range(10)]
    assert torch.cuda.memory_allocated() == before
