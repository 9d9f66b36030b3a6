"""Stage ``finetune``: copies of the network trained on a few fit images; the trained baseline."""

import json
import shutil

from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.errors import UnseenError

__all__ = ["finetune"]


@stage("finetune")
def finetune(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Train a copy of the network for every entry of ``finetune:``; the frozen one stays.

    NAME/STEPS below data/finetuned/MODEL/DOMAIN is a diffusers pipeline folder with
    ``noise.safetensors``, the law that it starts from at the noisiest level, and ``report.json``:
    losses, the ids of its images, and how far it has forgotten the domain that the frozen network
    has seen. ``report.json`` beside them has a row for each network.

    A finished training survives a kill. Without entries the stage writes an empty report.

    Raises:
        UnseenError: If an input is missing, or training diverges.
    """
    params = load_params()
    if params.finetune:
        return _tune(run, params, model, domain)
    out = PATHS.finetuned(model, domain)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    report = {"model": model, "domain": domain, "networks": []}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return {"networks": 0}


def _tune(run: Run, params: Params, model: str, domain: str) -> dict[str, object]:
    """Train every entry of ``params.finetune`` and write data/finetuned; see `finetune`."""
    # torch takes seconds to import, and without entries, as by default, the stage needs none of it.
    from flows.loading.frozen import record_weights
    from flows.loading.judge import first_extractor
    from flows.loading.seconds import record_seconds
    from flows.running.cores import share_cores
    from flows.running.resume import scratch
    from unseen_core.basics.device import pick_device
    from unseen_core.basics.images import with_channels
    from unseen_core.checkpoints.network import WEIGHTS
    from unseen_core.diffusion.denoiser import load_model
    from unseen_core.judging.features import extract
    from unseen_core.store import file_hash, read_json, read_pictures, write_json
    from unseen_core.training import tuned
    from unseen_core.training.finetune import FinetuneConfig

    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    source, pictures = PATHS.model(model), PATHS.domain(domain) / "fit.parquet"
    images, frame = read_pictures(pictures)
    seen, _ = read_pictures(source / "seen.parquet")
    images = with_channels(images, seen.shape[1])
    extractor = first_extractor(params, device)
    memory = tuned.Memory(extractor, extract(extractor, seen), params.evaluate.draws, params.seed)
    before = file_hash(source / WEIGHTS)
    settings = {"networks": f"{model}/{domain}", "seed": params.seed,
                "evaluate": params.evaluate.model_dump(),
                "finetune": {name: entry.model_dump() for name, entry in params.finetune.items()}}
    work, _ = scratch("finetune", [pictures, source / "seen.parquet", *PATHS.network(model)],
                      settings, device)

    def train(name: str) -> None:
        if work.has(f"{name}.json"):
            return
        entry = params.finetune[name]
        chosen = images[: entry.images]
        config = FinetuneConfig(max(entry.steps), entry.batch, entry.learning_rate, seed=entry.seed)
        rows, losses, seconds = tuned.train_copy(
            source, chosen, entry.noise, config, entry.steps, memory, device=device,
            keep=lambda step, write: work.add(f"{name}/{step}.safetensors", write))
        ids = frame["id"].tolist()[: len(chosen)]
        work.add(f"{name}.json", lambda path: write_json(
            path, {"networks": rows, "ids": ids, "losses": losses, "seconds": seconds}))

    with work:
        run.map(train, list(params.finetune), name=lambda name: f"{model}/{domain}/{name}",
                workers=workers)
        untuned = memory.judge(load_model(source, device=device, precision="bf16"))
        after = file_hash(source / WEIGHTS)
        if after != before:
            raise UnseenError(f"{source / WEIGHTS}: changed while copies of it were trained; run "
                              f"`python -m flows fetch-model --model {model}` again")
        common = {"model": model, "domain": domain, "frozen_before": before,
                  "frozen_after": after}
        out, rows = PATHS.finetuned(model, domain), list[dict[str, object]]()
        seconds: dict[str, float] = {}
        shutil.rmtree(out, ignore_errors=True)
        for name, entry in params.finetune.items():
            training = read_json(work.path(f"{name}.json"))
            took = training["seconds"]
            seconds |= {f"{name}/{steps}": took[str(steps)] for steps in entry.steps}
            law = tuned.training_law(entry.noise, images[: entry.images])
            for found in training["networks"]:
                network, steps = f"{name}/{found['steps']}", found["steps"]
                tuned.save_copy(out / network, source, work.path(f"{network}.safetensors"), law)
                row = {"network": network, **found, "sha256": record_weights(out / network)}
                write_json(out / network / "report.json", {
                    **common, **row, "ids": training["ids"], "losses": training["losses"][:steps]})
                rows.append(row)
        write_json(out / "report.json", {
            **common, "extractor": extractor.name, "untuned": untuned,
            "forgetting": {"images": tuned.SAMPLES, "calls": tuned.CALLS, "seen": len(seen)},
            "networks": rows})
        record_seconds(PATHS.root, model, domain, "finetune", seconds)
        shutil.rmtree(work.folder)
    return {"networks": len(rows)}
