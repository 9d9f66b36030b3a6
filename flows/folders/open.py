"""The network that a command works with: a model of params.yaml, or a Stable Diffusion folder."""

from pathlib import Path

from flows.folders.checks import check_pipeline
from flows.loading.opened import Opened
from flows.settings.params import Params
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, fingerprint

__all__ = ["open_network"]

_BATCH = 8  # At most, of latent diffusion models, which are large.


def open_network(
    params: Params,
    *,
    model: str | None,
    pipeline: Path | None,
    prompt: str = "",
    negative: str = "",
    guidance: float = 1.0,
    device: str,
) -> Opened:
    """Open the model of a name or the pipeline in a folder, at ``denoise.precision``.

    Args:
        params: Of the project.
        model: A fetched model of params.yaml, which takes no prompt.
        pipeline: Or a ``StableDiffusionPipeline`` folder.
        prompt: What its images show.
        negative: What they do not show; matters for guidance other than 1.
        guidance: Classifier-free guidance; 1 is none.
        device: Where it computes.

    Raises:
        UnseenError: If neither or both are named, a model is given a prompt, or what is named
            was not fetched or is of another kind.
    """
    if (model is None) == (pipeline is None):
        raise UnseenError("give --model or --pipeline, one of the two")
    precision, setting = params.denoise.precision, params.denoise.batch
    batch = setting if isinstance(setting, int) else _BATCH
    if pipeline is not None:
        check_pipeline(pipeline)
        from unseen_core.checkpoints.pipeline import pipeline_files
        from unseen_core.diffusion.latent_diffusion import load_latent_diffusion

        files = {file.relative_to(pipeline).as_posix(): file for file in pipeline_files(pipeline)}
        latent = load_latent_diffusion(
            pipeline, prompt=prompt, negative=negative, guidance=guidance, device=device,
            precision=precision, batch=min(batch, _BATCH))
        mark = fingerprint({name: file_hash(file) for name, file in files.items()})
        return Opened(latent, latent, mark, pipeline.resolve().name, latent.size, 3,
                      latent.batch)
    if prompt or negative or guidance != 1:
        raise UnseenError("--prompt, --negative and --guidance belong to --pipeline; a model of "
                          "params.yaml takes none")
    from flows.loading.frozen import load_frozen

    params.model(str(model))
    return load_frozen(str(model), device=device, precision=precision, batch=batch)
