"""Stage ``finetune_pipeline``: a latent diffusion model's copy, trained on a folder of images."""

import shutil
from pathlib import Path
from time import perf_counter
from typing import Literal

from flows.folders.checks import check_out, check_pipeline, read_images
from flows.folders.request import NOISE
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import load_params
from flows.settings.sections import Section
from unseen_core.basics.device import pick_device
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, fingerprint, read_json, save_tensors, write_json

__all__ = ["FinetuneRequest", "finetune_pipeline"]

_UNET = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors")
_TOLD = 20  # steps between two lines of the log


class FinetuneRequest(Section):
    """What is trained; a stage takes it as one string of JSON.

    Attributes:
        images: Folder or zip of the examples.
        out: Folder to be made: a whole pipeline, which diffusers loads too.
        pipeline: ``StableDiffusionPipeline`` folder; never written to.
        prompt: What the images show; generate with the same one.
        noise: Of the training, and of what sampling begins with.
        steps, batch, learning_rate, seed: See ``FinetuneConfig``.
    """

    images: str
    out: str
    pipeline: str
    prompt: str = ""
    noise: Literal["style", "white"] = "style"
    steps: int = 500
    batch: int = 4
    learning_rate: float = 1e-5
    seed: int = 0


@stage("finetune_pipeline")
def finetune_pipeline(run: Run, *, request: str) -> dict[str, object]:
    """Write the tuned pipeline, the law of its noise and report.json to ``request.out``.

    An interrupted training begins again.

    Raises:
        UnseenError: If the request is unusable; nothing is then written.
    """
    # diffusers takes seconds to import.

    from unseen_core.checkpoints.pipeline import INDEX, pipeline_files
    from unseen_core.diffusion.latent_diffusion import load_latent_diffusion
    from unseen_core.training.finetune import FinetuneConfig
    from unseen_core.training.finetune_latent import finetune_latent

    asked, params = FinetuneRequest.model_validate_json(request), load_params()
    out, frozen = Path(asked.out), Path(asked.pipeline)
    check_out(Path(asked.images), out)
    check_pipeline(frozen)
    config = FinetuneConfig(steps=asked.steps, batch=asked.batch, seed=asked.seed,
                            learning_rate=asked.learning_rate)
    device = pick_device(params.compute.device)
    share_cores(params, device)
    model = load_latent_diffusion(frozen, prompt=asked.prompt, device=device)
    source = read_images(params, asked.images, model.size, run)
    if asked.noise == "style" and len(source) < 2:
        raise UnseenError(f"{asked.images} has one image; --noise style needs 2 or more")
    files = {file.relative_to(frozen).as_posix(): file for file in pipeline_files(frozen)}
    weights = fingerprint({name: file_hash(file) for name, file in files.items()})
    settings = asked.model_dump(exclude={"out", "images", "pipeline"}) | {
        "weights": weights, "size": model.size, "crop": params.images.crop}
    work, _ = scratch("finetune_pipeline", [Path(asked.images)], settings, device)
    kept = {name.replace(".fp16", ""): file for name, file in files.items()
            if name != INDEX and not name.startswith("unet/")}
    names = [*kept, *_UNET, INDEX, "report.json", *([NOISE] if asked.noise == "style" else [])]

    def train(name: str) -> None:
        if all(work.has(file) for file in names):
            return
        began = perf_counter()

        def each(step: int, loss: float) -> None:
            if step % _TOLD == 0:
                run.log.info("%s: step %d of %d, loss %.4f", name, step, asked.steps, loss)

        tuned = finetune_latent(model, source.images, config, style=asked.noise == "style",
                                each=each)
        saved = work.folder / "saved"
        tuned.unet.save_pretrained(saved)
        for file in _UNET:
            work.add(file, lambda path, x=saved / Path(file).name: shutil.copyfile(x, path))
        shutil.rmtree(saved)
        if tuned.noise is not None:
            state = tuned.noise.state()
            work.add(NOISE, lambda path: save_tensors(path, state))
        for file, origin in kept.items():
            work.add(file, lambda path, x=origin: shutil.copyfile(x, path))
        # Without a safety checker, whose weights are not read here.
        index = read_json(files[INDEX]) | {
            "safety_checker": [None, None], "feature_extractor": [None, None],
            "image_encoder": [None, None], "requires_safety_checker": False}
        work.add(INDEX, lambda path: write_json(path, index))
        work.add("report.json", lambda path: write_json(path, {
            **settings, "images": len(source), "ids": source.ids, "losses": tuned.losses,
            "seconds": perf_counter() - began, "frozen": frozen.resolve().name}))

    with work:
        run.map(train, [out.name], name=str)
        work.publish(out, names, settings)
    return {"out": asked.out, "images": len(source), "steps": asked.steps}
