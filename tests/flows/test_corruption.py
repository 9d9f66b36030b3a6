"""One flipped bit in an artifact is found by the stage that reads it, and named."""

import json

import pytest
from workspace import DOMAIN, MODEL, contents

from flows.dispatch import run_stage
from unseen_core.errors import UnseenError

HERE = f"{MODEL}/{DOMAIN}"
MODEL_FILES = f"data/source/models/{MODEL}"
DAMAGED = [
    ("fit", f"data/latents/{HERE}/L0100/part-00000.safetensors"),
    ("fit", f"data/latents/{HERE}/index.parquet"),
    ("sample", f"data/priors/{HERE}/L0100.safetensors"),
    ("sample", f"data/latents/{HERE}/L0200/part-00000.safetensors"),
    ("denoise", f"data/starts/{HERE}/L0100-slerp/part-00000.safetensors"),
    ("denoise", f"{MODEL_FILES}/unet/diffusion_pytorch_model.safetensors"),
    ("invert", f"data/source/domains/{DOMAIN}/fit.parquet"),
    ("evaluate", f"data/source/domains/{DOMAIN}/held_out.parquet"),
    ("evaluate", f"data/generated/{HERE}/L0200-slerp.parquet"),
    ("evaluate", f"{MODEL_FILES}/seen.parquet"),
    ("select", f"data/generated/{HERE}/L0100-slerp.parquet"),
    ("trajectory", f"{MODEL_FILES}/law.safetensors"),
]


def run(stage):
    """Run a stage on the first domain, or on the model where it is one of models."""
    run_stage(stage, {"model": MODEL} | ({} if stage == "trajectory" else {"domain": DOMAIN}))


@pytest.mark.parametrize(("stage", "file"), DAMAGED)
def test_a_flipped_bit_is_named(done, stage, file):
    whole = (done / file).read_bytes()
    # In the values: parsers refuse what makes no sense in a header, and the rest changes nothing.
    places = [len(whole) // 2, len(whole) - 9] if "safetensors" in file else [len(whole) // 3]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 4
        (done / file).write_bytes(data)
        with pytest.raises(UnseenError) as caught:
            run(stage)
        assert file in str(caught.value) and "\n" not in str(caught.value)
    (done / file).write_bytes(whole)
    before = contents(done / "data/generated")
    run(stage)
    assert contents(done / "data/generated") == before


@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "unet/config.json"])
def test_a_changed_setting_of_the_network_is_named(done, file):
    settings = json.loads((done / MODEL_FILES / file).read_text())
    # Values that are sound by themselves, and mean another network.
    settings |= {"beta_end": 0.021} if "beta_end" in settings else {"norm_eps": 1e-4}
    (done / MODEL_FILES / file).write_text(json.dumps(settings))
    with pytest.raises(UnseenError, match=f"{file}: not the file that fetch recorded"):
        run("denoise")
