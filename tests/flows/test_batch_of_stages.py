"""The batch of ``invert``: probed once, remembered, and named where memory ends."""

import json
from pathlib import Path

import pytest
import torch
from workspace import DOMAIN, MODEL, SEEN, change, contents, fetch_all, run_stages

import flows.running.batch
import flows.stages.invert
from unseen_core.errors import UnseenError

OUT = Path("data/latents", MODEL, DOMAIN)


def test_a_probe_is_asked_once_and_recorded(workspace: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(flows.running.batch, "probe_batch", lambda *_: asked.append(1) or 2)
    change(workspace, "invert", "batch", to=2)
    fetch_all((DOMAIN, SEEN))
    run_stages(["invert"])
    by_hand = contents(OUT, "*.safetensors")
    change(workspace, "invert", "batch", to="auto")
    run_stages(["invert"])
    run_stages(["invert"])
    assert len(asked) == 1
    assert contents(OUT, "*.safetensors") == by_hand  # the same batch, the same bytes
    assert json.loads((OUT / "manifest.json").read_text())["batch"] == 2


def test_out_of_memory_is_one_line_and_loses_nothing(workspace: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_all((DOMAIN, SEEN))
    run_stages(["invert"])
    undisturbed = contents(OUT)
    true, calls = flows.stages.invert.carry_up, []

    def tight(*args: object, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return true(*args, **kwargs)

    monkeypatch.setattr(flows.stages.invert, "carry_up", tight)
    with pytest.raises(UnseenError, match=r"^out of memory: lower invert\.batch, now 2; finished"):
        run_stages(["invert"])
    assert contents(OUT) == undisturbed  # what was published stays
    calls[:] = [1] * 10
    run_stages(["invert"])
    # 8 images in parts of 3 and batches of 2: the first part, 2 calls, was kept.
    assert len(calls) - 10 == 2 + 1
    assert contents(OUT) == undisturbed
