"""Stage ``finetune``: copies of the network trained on a few fit images; the trained baseline."""

import json
import shutil

from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import load_params
from flows.settings.paths import PATHS

__all__ = ["finetune"]


@stage("finetune")
def finetune(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Train a copy of the network for every entry of ``finetune:``; the frozen one stays.

    NAME/STEPS below data/finetuned/MODEL/DOMAIN is a diffusers pipeline folder with
    ``noise.safetensors``, the law that it starts from at the noisiest level, and ``report.json``:
    losses, seconds of training, the ids of its images, and how far it has forgotten the domain
    that the frozen network has seen. ``report.json`` beside them has a row for each network.

    A finished training survives a kill. Without entries the stage writes an empty report.

    Raises:
        UnseenError: If an input is missing, or training diverges.
    """
    params = load_params()
    if params.finetune:
        # Without entries, as by default, the stage is over before torch would be imported.
        from flows.stages.tuning import tune

        return tune(run, params, model, domain)
    out = PATHS.finetuned(model, domain)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    report = {"model": model, "domain": domain, "networks": []}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return {"networks": 0}
