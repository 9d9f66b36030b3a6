"""No stage works with other weights than those that were fetched, and none changes them."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from workspace import DOMAIN, MODEL, run_stages

from flows.dispatch import run_stage
from flows.loading.frozen import WEIGHTS, load_frozen
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash

FETCHED = Path("data/source/models", MODEL)


def test_every_stage_that_uses_the_network_records_the_fetched_weights(done) -> None:
    wanted = file_hash(Path("checkpoint", WEIGHTS))
    for stage in ("latents", "generated"):
        manifest = json.loads(Path("data", stage, MODEL, DOMAIN, "manifest.json").read_text())
        assert manifest["weights"] == wanted
    assert load_frozen(MODEL, device="cpu", precision="float32", batch=1).weights == wanted


@pytest.mark.parametrize("stage", ["invert", "denoise", "analyze"])
@pytest.mark.parametrize("record", [True, False])
def test_altered_weights_are_refused(done, stage, record) -> None:
    if record:
        tensors = load_file(FETCHED / WEIGHTS)
        name = next(iter(tensors))
        tensors[name] = tensors[name] + 1e-6
        save_file(tensors, FETCHED / WEIGHTS)
    else:
        (FETCHED / "unet/weights.sha256").unlink()
    shutil.rmtree(Path("data/generated"))
    with pytest.raises(UnseenError, match="not the file that fetch recorded") as caught:
        run_stages([stage])
    assert f"fetch --model {MODEL}" in str(caught.value)
    run_stage("fetch_model", {"model": MODEL})
    run_stages([stage])
