"""The parts of a ``StableDiffusionPipeline`` folder, read without running anything in it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from unseen_core.basics.schedule import Schedule
from unseen_core.basics.scheduler_config import load_schedule
from unseen_core.errors import UnseenError, first_line

__all__ = ["INDEX", "Parts", "load_encoder", "load_parts", "pipeline_files"]

INDEX = "model_index.json"
_WEIGHED = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
_FAMILY = "a diffusers folder of Stable Diffusion 1 or 2"
_READ = (".json", ".txt", ".safetensors")


@dataclass(frozen=True, eq=False)
class Parts:
    """What a pipeline folder holds.

    Attributes:
        pipeline: U-Net, autoencoder, text encoder and tokenizer, on the CPU; its scheduler is
            not the folder's.
        schedule: The folder's noise schedule.
    """

    pipeline: StableDiffusionPipeline
    schedule: Schedule


def pipeline_files(folder: Path) -> list[Path]:
    """Return the files of a pipeline that are read, sorted: its configuration and weights.

    Where weights lie there in several precisions these are the full ones, else those of fp16.

    Raises:
        UnseenError: If the folder is not such a pipeline, or its weights are not safetensors.
    """
    index = _read_object(folder / INDEX)
    wanted = {**{part: (name,) for part, name in _WEIGHED.items()}, "tokenizer": _TOKENIZERS}
    for part, names in wanted.items():
        entry = index.get(part)
        found = entry[-1] if isinstance(entry, list) and entry else None
        if found not in names:
            raise UnseenError(f"{folder / INDEX}: {part} is {found!r}, not {names[0]}; "
                              f"give {_FAMILY}")
    if extra := [part for part in index if part.endswith("_2") and index[part] != [None, None]]:
        raise UnseenError(f"{folder / INDEX}: a pipeline with {extra[0]} (Stable Diffusion XL and "
                          f"its kind) is not supported; give {_FAMILY}")
    files = [folder / INDEX]
    for part in (*wanted, "scheduler"):
        read = [file for file in sorted((folder / part).glob("*"))
                if file.suffix in _READ and "non_ema" not in file.name]
        half = [file for file in read if _is_half(file)]
        full = [file for file in read if not _is_half(file)]
        if part in _WEIGHED and not _weights(full):
            full += half
        if part in _WEIGHED and not _weights(full):
            raise UnseenError(f"{folder / part} has no weights as safetensors; other files are "
                              "not opened, since they may hold code")
        if not any(file.suffix == ".json" for file in full):
            raise UnseenError(f"{folder / part} has no configuration; give {_FAMILY}")
        files += full
    return files


def load_parts(folder: Path, dtype: torch.dtype = torch.float32) -> Parts:
    """Load a ``StableDiffusionPipeline`` folder: safetensors alone, nothing from the network.

    Args:
        folder: As diffusers saves it.
        dtype: Of the U-Net; the other parts are float32, however their files are.

    Raises:
        UnseenError: If the folder is not such a pipeline, a part is damaged or lacks weights, or
            its network does not predict noise in latents of one square size.
    """
    encoder = load_encoder(folder)
    files = pipeline_files(folder)
    wide = torch.float32
    unet = _load(files, folder / "unet", UNet2DConditionModel.from_pretrained, torch_dtype=dtype,
                 low_cpu_mem_usage=False)
    vae = _load(files, folder / "vae", AutoencoderKL.from_pretrained, torch_dtype=wide,
                low_cpu_mem_usage=False)
    schedule = load_schedule(folder)
    pipeline = _pipeline(encoder.text_encoder, encoder.tokenizer, unet, vae)
    _check(folder, pipeline)
    return Parts(pipeline, schedule)


def load_encoder(folder: Path) -> StableDiffusionPipeline:
    """Load the text encoder and the tokenizer of a folder alone, for ``encode_prompt``.

    Args:
        folder: As for ``load_parts``.

    Raises:
        UnseenError: If the folder is no such pipeline, or a part is damaged or lacks weights.
    """
    files = pipeline_files(folder)
    if find_spec("transformers") is None:
        raise UnseenError("latent diffusion models need the library transformers; install it with "
                          "`pip install -c constraints.txt -e '.[latent]'`")
    # It takes seconds to import, and only this kind of network needs it.
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    encoder = _load(files, folder / "text_encoder", CLIPTextModel.from_pretrained,
                    dtype=torch.float32)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:  # building from foreign values fails in any way it likes
        said = first_line(error)
        raise UnseenError(f"{folder / 'tokenizer'} cannot be loaded: {said}") from error
    return _pipeline(encoder, tokenizer)


def _pipeline(
    encoder: nn.Module, tokenizer: object, unet: nn.Module | None = None,
    vae: nn.Module | None = None,
) -> StableDiffusionPipeline:
    """Return parts as diffusers' own pipeline, which encodes prompts."""
    return StableDiffusionPipeline(
        vae, encoder, tokenizer, unet, DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def _load(
    files: list[Path],
    folder: Path,
    load_from: Callable[..., tuple[nn.Module, dict]],
    **precision: torch.dtype,
) -> nn.Module:
    """Load one network, all of whose weights have to be there."""
    half = all(_is_half(file) for file in _weights(files) if file.parent == folder)
    try:
        network, info = load_from(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True,
            variant="fp16" if half else None, **precision)
    except Exception as error:  # building from foreign values fails in any way it likes
        raise UnseenError(f"{folder} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise UnseenError(f"{folder} lacks the weights {missing[0]!r}; fetch it again")
    return network


def _check(folder: Path, pipeline: StableDiffusionPipeline) -> None:
    """Refuse networks that do something else than predict the noise in latents of one size."""
    unet, vae = pipeline.unet.config, pipeline.vae.config
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        raise UnseenError(f"{folder / 'unet'} makes {unet.out_channels} of {unet.in_channels} "
                          f"channels, and latents have {vae.latent_channels}; networks for "
                          "inpainting or other inputs are not supported")
    if unet.time_cond_proj_dim or unet.addition_embed_type or unet.class_embed_type:
        raise UnseenError(f"{folder / 'unet'} asks for more than a prompt; give {_FAMILY}")
    if not isinstance(unet.sample_size, int):
        raise UnseenError(f"{folder / 'unet'} has sample_size {unet.sample_size!r}; set it to the "
                          "side of its square latents")
    if unet.cross_attention_dim != pipeline.text_encoder.config.hidden_size:
        raise UnseenError(f"{folder}: the network reads prompts of width "
                          f"{unet.cross_attention_dim}, and text_encoder writes "
                          f"{pipeline.text_encoder.config.hidden_size}; fetch both again")


def _weights(files: list[Path]) -> list[Path]:
    """Return the files that hold weights."""
    return [file for file in files if file.suffix == ".safetensors"]


def _is_half(file: Path) -> bool:
    """Say whether a file belongs to the variant in half precision."""
    return ".fp16" in file.suffixes or ".fp16-" in file.name


def _read_object(file: Path) -> dict[str, object]:
    """Return a JSON object, or raise UnseenError naming the file."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnseenError(f"{file} cannot be read as JSON; give {_FAMILY}") from error
    if not isinstance(content, dict):
        raise UnseenError(f"{file} is no JSON object; give {_FAMILY}")
    return content
