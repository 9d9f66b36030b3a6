"""The network that a command works with: a model of params.yaml, or a Stable Diffusion folder."""

from pathlib import Path

from flows.folders.checks import check_pipeline
from flows.loading.opened import Opened
from flows.settings.params import Model, Params
from flows.settings.paths import PATHS
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, fingerprint
from unseen_core.types import Pixels

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
    precision: str | None = None,
) -> Opened:
    """Open a model of params.yaml, a checkpoint, or a pipeline in a folder.

    Args:
        params: Of the project.
        model: A model of params.yaml, fetched or not, or the path of a checkpoint: a diffusers
            folder or a published file. It takes no prompt.
        pipeline: Or a ``StableDiffusionPipeline`` folder.
        prompt: What its images show.
        negative: What they do not show; matters for guidance other than 1.
        guidance: Classifier-free guidance; 1 is none.
        device: Where it computes.
        precision: ``float32`` or ``bf16``; None: ``denoise.precision``.

    Raises:
        UnseenError: If neither or both are named, a model is given a prompt, or what is named
            was not fetched or is of another kind.
    """
    if (model is None) == (pipeline is None):
        raise UnseenError("give --model or --pipeline, one of the two")
    precision, setting = precision or params.denoise.precision, params.denoise.batch
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
    name = str(model)
    if name in params.models or not Path(name).exists():
        section = params.model(name)
    else:
        name, section = Path(name).resolve().stem, Model(path=name, seen="unknown")
    if name not in params.models or not (PATHS.model(name) / "unet/config.json").is_file():
        return _open_published(name, section, params, device, precision, batch)
    from flows.loading.frozen import load_frozen

    return load_frozen(name, device=device, precision=precision, batch=batch)


def _open_published(
    name: str, section: Model, params: Params, device: str, precision: str, batch: int
) -> Opened:
    """Open a checkpoint where it was published, without ``fetch``."""
    from flows.loading.checkpoints import open_model
    from unseen_core.checkpoints.network import LABEL
    from unseen_core.diffusion.denoiser import UNetEps

    checkpoint, found = open_model(name, section, size=params.images.size)
    network = UNetEps(checkpoint.network, checkpoint.schedule, device=device,
                      precision=precision).bound(checkpoint.network.config.get(LABEL))
    channels, side, _ = network.shape
    return Opened(network, Pixels(), found, name, side, channels, batch)
