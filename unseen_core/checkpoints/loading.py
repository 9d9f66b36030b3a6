"""The one loader for every published form of a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile

from diffusers import UNet2DModel
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.basics.scheduler_config import read_schedule
from unseen_core.checkpoints import ddpm, openai
from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.network import (
    CONFIG,
    HEADS,
    LABEL,
    POOLED,
    SCHEDULER,
    WEIGHTS,
    build_network,
    check_label,
)
from unseen_core.checkpoints.reading import read_state
from unseen_core.errors import UnseenError
from unseen_core.store import write_json

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint", "weights_files"]

_STEM = "diffusion_pytorch_model"
# In the order in which they are taken; an index lists the files over which weights are spread.
_NAMES = tuple(f"{_STEM}{ending}" for ending in (
    ".safetensors", ".safetensors.index.json", ".fp16.safetensors",
    ".safetensors.index.fp16.json", ".bin"))
_PIXELS = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
_INDEX = "model_index.json"
# Names of the attention's layers before diffusers 0.15.
_OLD_LAYERS = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.",
               ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network and its noise schedule, from whatever form they were published in.

    Attributes:
        network: Its configuration may hold the project's own keys; see ``build_network``.
        scheduler: The content of ``scheduler_config.json``.
        folder: The ``DDPMPipeline`` folder that already says all this, or None.
    """

    network: UNet2DModel
    scheduler: Mapping[str, object]
    folder: Path | None = None

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return read_schedule(self.scheduler)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        config = self.network.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    def labelled(self, label: int | None) -> "Checkpoint":
        """Return the checkpoint with the class that its network always receives.

        Raises:
            UnseenError: If the network is class-conditional and the label is missing or out of
                range, or if it is not and there is one.
        """
        check_label(self.network, label)
        if label is None:
            return self
        self.network.register_to_config(**{LABEL: label})
        return replace(self, folder=None)

    def check_diffusers(self) -> None:
        """Raise UnseenError where diffusers alone would compute something else."""
        if self.network.config.get(HEADS) is not None:
            lost = "a fixed number of heads over attentions of different width"
        elif self.schedule.rescale_timesteps:
            lost = "timesteps rescaled to a thousand"
        elif self.network.config.get(POOLED):
            lost = "sizes halved by average pooling"
        else:
            return
        raise UnseenError(f"a diffusers folder cannot say {lost}, and others would silently "
                          "compute something else; give the file itself as a model's path in "
                          "params.yaml")


def load_checkpoint(
    path: Path, *, architecture: Architecture | None = None, size: int | None = None
) -> Checkpoint:
    """Load a published checkpoint.

    Args:
        path: A diffusers ``DDPMPipeline`` folder (``unet/`` and ``scheduler/``), one of the old
            layout of the hub (all files at the root; ``google/ddpm-celebahq-256`` and its
            kind), with safetensors (whole or in several files, of full precision or fp16
            alone) or ``.bin`` weights; or a single file of the DDIM repository,
            improved-diffusion, guided-diffusion or P2-weighting.
        architecture: What a single file does not record.
        size: Side of the images, where ``architecture`` does not give it.

    Raises:
        UnseenError: One line that names the file and what is wrong or missing.
    """
    architecture = architecture or Architecture()
    if not path.is_dir():
        if architecture.image_size is None:
            architecture = replace(architecture, image_size=size)
        return _load_file(path, architecture)
    if architecture != Architecture():
        raise UnseenError(f"checkpoint {path} is a folder and describes itself; remove "
                          "architecture")
    _check_pixels(path)
    files = weights_files(path)
    base = files[0].parent
    scheduler = path / (SCHEDULER if base != path else Path(SCHEDULER).name)
    state = {_modern(name): tensor for file in files
             for name, tensor in read_state(file).items()}
    try:
        network = build_network(_read_config(base / "config.json"), state)
    except UnseenError as error:
        raise UnseenError(f"checkpoint {path}: {error}") from error
    plain = files == [path / WEIGHTS]  # such a folder needs no translation
    return Checkpoint(network, _read_config(scheduler), path if plain else None)


def weights_files(path: Path) -> list[Path]:
    """Return the files of a checkpoint that hold its weights: mostly one.

    Raises:
        UnseenError: If there is none, or a folder has no configuration.
    """
    if path.is_file():
        return [path]
    flat = (path / "config.json").is_file() and not (path / CONFIG).is_file()
    base = path if flat else path / "unet"
    if not (base / "config.json").is_file():
        raise UnseenError(f"checkpoint {path} has no {CONFIG}; give a diffusers DDPMPipeline "
                          "folder, or a checkpoint file")
    first = next((base / name for name in _NAMES if (base / name).is_file()), None)
    if first is None:
        there = ", ".join(sorted(file.name for file in base.iterdir())[:5])
        raise UnseenError(f"checkpoint {path} has no {(base / _NAMES[0]).relative_to(path)} but "
                          f"{there}; give a diffusers DDPMPipeline folder with its weights")
    if first.suffix != ".json":
        return [first]
    places = _read_config(first).get("weight_map")
    names = sorted({*places.values()}, key=str) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UnseenError(f"{first} lists no files beside it; fetch the checkpoint again")
    return [base / name for name in names]


def _check_pixels(path: Path) -> None:
    """Raise UnseenError for a pipeline whose network does not work on pixels."""
    if not (path / _INDEX).is_file():
        return
    index = _read_config(path / _INDEX)
    name = index.get("_class_name", _PIXELS[0])
    coder = next((part for part in ("vae", "vqvae", "movq") if index.get(part)), None)
    if name not in _PIXELS or coder is not None:
        held = f" with a {coder}" if coder else ""
        raise UnseenError(f"checkpoint {path} is a {name}{held}; give a {' or '.join(_PIXELS)}, "
                          "whose networks work on pixels alone (Stable Diffusion 1 and 2 are for "
                          "`generate` and its kind: docs/checkpoints.md)")


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the ``unet/`` and ``scheduler/`` of a ``DDPMPipeline`` folder, weights as safetensors.

    A checkpoint that is such a folder already is copied, byte for byte.

    Args:
        folder: Has to be empty or absent.
    """
    if checkpoint.folder is not None:
        for part in (WEIGHTS, CONFIG, SCHEDULER):
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            copyfile(checkpoint.folder / part, folder / part)
        return
    checkpoint.network.save_pretrained(folder / "unet")
    write_json(folder / SCHEDULER, checkpoint.scheduler)


def _load_file(path: Path, architecture: Architecture) -> Checkpoint:
    """Load a single file of one of the families."""
    state = read_state(path)
    try:
        family = next((f for f in (ddpm, openai) if f.recognises(state)), None)
        if family is None:
            raise UnseenError(_unknown(state))
        config, tensors = family.convert(state, architecture)
        network = build_network(config, tensors)
        learned = network.config.out_channels == 2 * network.config.in_channels
        return Checkpoint(network, architecture.scheduler(learned_variance=learned))
    except UnseenError as error:
        raise UnseenError(f"checkpoint {path}: {error}") from error


def _unknown(state: Mapping[str, Tensor]) -> str:
    """Say what a file of no known family may be."""
    if any(name.startswith("down_blocks.") for name in state):
        return "these are weights of diffusers; give the folder with their config.json as path"
    return (f"a network with a tensor {next(iter(state))!r} is of no known family; give one of "
            "diffusers, the DDIM repository, improved-diffusion or guided-diffusion")


def _modern(name: str) -> str:
    """Return the name that diffusers gives to a tensor today."""
    for old, new in _OLD_LAYERS.items():
        name = name.replace(old, new)
    return name


def _read_config(file: Path) -> dict[str, object]:
    """Return a JSON object, or raise UnseenError naming the file."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnseenError(f"{file} cannot be read as JSON; fetch the checkpoint again") from error
    if not isinstance(config, dict):
        raise UnseenError(f"{file} is no JSON object; fetch the checkpoint again")
    return config
