"""What ``finetune`` does where it has something to do: train, measure what is forgotten, save."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import perf_counter

import torch
from safetensors.torch import save_file
from torch import Tensor

from flows.loading.frozen import WEIGHTS, record_weights
from flows.loading.judge import first_extractor
from flows.running.cores import share_cores
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import Params
from flows.settings.paths import PATHS
from flows.settings.related_sections import Finetune
from unseen_core.checkpoints.network import CONFIG, LABEL, SCHEDULER, load_network
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.device import pick_device
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.images import to_float, to_uint8, with_channels
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import kernel_distance
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.rng import Streams
from unseen_core.schedule import load_schedule
from unseen_core.starts.prior import style_law
from unseen_core.store import (
    Scratch,
    file_hash,
    read_json,
    read_pictures,
    read_tensors,
    write_json,
)
from unseen_core.training.finetune import FinetuneConfig, finetune, unet_predict
from unseen_core.types import FeatureExtractor

__all__ = ["tune"]

_SAMPLES, _CALLS = 48, 20  # of a network's own images, to see what it has forgotten
_SMOOTH = 50  # steps that a reported loss is a mean over
_INDEX = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
          "unet": ["diffusers", "UNet2DModel"]}


@dataclass(frozen=True, eq=False)
class _Memory:
    """How near a network's own images are to those that the frozen one has seen."""

    extractor: FeatureExtractor
    seen: Tensor
    draws: int
    seed: int

    def judge(self, network: UNetEps) -> dict[str, float]:
        """Return the kernel distance of images drawn from N(0, I) at the noisiest level."""
        grid = network.schedule.grid(_CALLS, network.schedule.top)
        streams = Streams(self.seed, "finetune", [f"{i:05d}" for i in range(_SAMPLES)])
        start = streams.normal(*network.shape).float().to(network.device)
        made = denoise(network, start, grid).cpu()
        if not made.isfinite().all():
            raise UnseenError("finetune: a network draws images that are not finite; lower "
                              "learning_rate")
        images = to_uint8(made)
        found = kernel_distance(extract(self.extractor, images), self.seen, draws=self.draws,
                                seed=self.seed)
        return {"forgetting": found.value, "forgetting_low": found.low,
                "forgetting_high": found.high}


def tune(run: Run, params: Params, model: str, domain: str) -> dict[str, object]:
    """Train every entry of ``params.finetune`` and write data/finetuned; see ``finetune``.

    Raises:
        UnseenError: If an input is missing, or training diverges.
    """
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    source, pictures = PATHS.model(model), PATHS.domain(domain) / "fit.parquet"
    images, frame = read_pictures(pictures)
    seen, _ = read_pictures(source / "seen.parquet")
    images = with_channels(images, seen.shape[1])
    extractor = first_extractor(params, device)
    memory = _Memory(extractor, extract(extractor, seen), params.evaluate.draws, params.seed)
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
        law = _law(entry, chosen)
        rows, losses = _train(entry, model, chosen, law, device, memory, work, name)
        work.add(f"{name}.safetensors", lambda path: save_file(law.state(), path))
        ids = frame["id"].tolist()[: len(chosen)]
        work.add(f"{name}.json", lambda path: write_json(
            path, {"networks": rows, "ids": ids, "losses": losses}))

    with work:
        run.map(train, list(params.finetune), name=lambda name: f"{model}/{domain}/{name}",
                workers=workers)
        untuned = memory.judge(load_model(source, device=device, precision="bf16"))
        after = file_hash(source / WEIGHTS)
        if after != before:
            raise UnseenError(f"{source / WEIGHTS}: changed while copies of it were trained; run "
                              f"`python -m flows fetch --model {model}` again")
        common = {"model": model, "domain": domain, "frozen_before": before,
                  "frozen_after": after}
        rows = _publish(work, list(params.finetune), common)
        write_json(PATHS.finetuned(model, domain) / "report.json", {
            **common, "extractor": extractor.name, "untuned": untuned,
            "forgetting": {"images": _SAMPLES, "calls": _CALLS, "seen": len(seen)},
            "networks": rows})
        shutil.rmtree(work.folder)
    return {"networks": len(rows)}


def _law(entry: Finetune, images: Tensor) -> Gaussian:
    """Return the law of the noise, N(0, I) for white noise."""
    if entry.noise == "style":
        return style_law(References.of(images))
    d = images[0].numel()
    return Gaussian(torch.zeros(d), torch.zeros(d, 0), torch.ones(()))


def _train(
    entry: Finetune, model: str, images: Tensor, law: Gaussian, device: str, memory: _Memory,
    work: Scratch, name: str,
) -> tuple[list[dict[str, object]], list[float]]:
    """Train a copy, keep it at every number of steps that is asked for; return rows and losses."""
    source = PATHS.model(model)
    schedule, network = load_schedule(source), load_network(source).to(device)
    label = network.config.get(LABEL)
    config = FinetuneConfig(max(entry.steps), entry.batch, entry.learning_rate, seed=entry.seed)
    rows: list[dict[str, object]] = []
    told: list[float] = []
    seconds, began = 0.0, perf_counter()

    def each(step: int, loss: float) -> None:
        nonlocal seconds, began
        told.append(loss)
        if step not in entry.steps:
            return
        seconds += perf_counter() - began  # of training alone
        state = {key: x.detach().cpu().contiguous() for key, x in network.state_dict().items()}
        work.add(f"{name}/{step}.safetensors",
                 lambda path: save_file(state, path, metadata={"format": "pt"}))
        copy = load_network(source)
        copy.load_state_dict(state)
        forgotten = memory.judge(UNetEps(copy, schedule, device=device,
                                         precision="bf16").bound(label))
        last = told[-_SMOOTH:]
        rows.append({
            "network": f"{name}/{step}", "noise": entry.noise, "images": len(images),
            "steps": step, **{key: value for key, value in asdict(config).items()
                              if key != "steps"},
            "seconds": seconds, "loss": sum(last) / len(last), **forgotten})
        began = perf_counter()

    losses = finetune(unet_predict(network, label=label), network.parameters(), schedule,
                      to_float(images).to(device), law if entry.noise == "style" else None,
                      config, each=each)
    return rows, losses


def _publish(
    work: Scratch, names: list[str], common: Mapping[str, str]
) -> list[dict[str, object]]:
    """Write a pipeline folder for every network; return their rows."""
    source, found = PATHS.model(common["model"]), list[dict[str, object]]()
    out = PATHS.finetuned(common["model"], common["domain"])
    shutil.rmtree(out, ignore_errors=True)
    for name in names:
        training = read_json(work.path(f"{name}.json"))
        law = read_tensors(work.path(f"{name}.safetensors"))
        for row in training["networks"]:
            folder = out / row["network"]
            for file in (CONFIG, SCHEDULER):
                (folder / file).parent.mkdir(parents=True)
                shutil.copyfile(source / file, folder / file)
            shutil.copyfile(work.path(f"{row['network']}.safetensors"), folder / WEIGHTS)
            save_file(law, folder / "noise.safetensors")
            write_json(folder / "model_index.json", _INDEX)
            found.append({**row, "sha256": record_weights(folder)})
            write_json(folder / "report.json", {
                **common, **found[-1], "ids": training["ids"],
                "losses": training["losses"][: row["steps"]]})
    return found
