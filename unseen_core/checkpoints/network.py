"""The U-Net of a checkpoint: built from a configuration, or loaded from a diffusers folder."""

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from safetensors.torch import load_file
from torch import Tensor

from unseen_core.errors import UnseenError, did_you_mean, first_line
from unseen_core.types import Condition

__all__ = ["CONFIG", "HEADS", "LABEL", "POOLED", "SCHEDULER", "WEIGHTS", "build_network",
           "check_label", "empty_network", "load_network"]

CONFIG = "unet/config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
# Keys of the project's own in unet/config.json, for what diffusers' configuration cannot say.
HEADS = "unseen_num_heads"
LABEL = "unseen_label"
POOLED = "unseen_pooled_sizes"
_OWN = (HEADS, LABEL, POOLED)
_KNOWN = (*signature(UNet2DModel).parameters, *_OWN)


def load_network(folder: Path) -> UNet2DModel:
    """Load the U-Net of a ``DDPMPipeline`` folder (``unet/`` and ``scheduler/``).

    Raises:
        UnseenError: If a file is missing, or does not describe a network that predicts noise in
            images of one size.
    """
    for part in (CONFIG, WEIGHTS, SCHEDULER):
        if not (folder / part).is_file():
            raise UnseenError(f"checkpoint {folder} has no {part}; give a diffusers DDPMPipeline "
                              "folder with safetensors weights")
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} is not a JSON object")
        state = load_file(folder / WEIGHTS)
    except Exception as error:  # of JSON, of safetensors, or of the disk
        raise UnseenError(f"checkpoint {folder} cannot be loaded: {first_line(error)}") from error
    try:
        return build_network(config, state)
    except UnseenError as error:
        raise UnseenError(f"checkpoint {folder}: {error}") from error


def build_network(config: Mapping[str, object], state: Mapping[str, Tensor]) -> UNet2DModel:
    """Build a U-Net around tensors, float32, in evaluation mode.

    Args:
        config: Of ``UNet2DModel``; with ``unseen_num_heads`` every attention has so many heads,
            whatever its width, with ``unseen_label`` the network receives that class, and with
            ``unseen_pooled_sizes`` sizes are halved by average pooling and doubled by repeating
            pixels, without weights.
        state: Its tensors under diffusers' names, all of them and no others.

    Raises:
        UnseenError: If the configuration is not a network's, or names, shapes or the number of
            heads do not fit.
    """
    network = empty_network(config)
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise UnseenError(f"the weights lack {name!r}; give the config.json they belong to")
        if state[name].shape != tensor.shape:
            raise UnseenError(f"the weights have {name!r} as {tuple(state[name].shape)} where "
                              f"config.json wants {tuple(tensor.shape)}; give their own")
    if extra := sorted(set(state) - set(wanted)):
        raise UnseenError(f"the weights have {extra[0]!r}, for which config.json has no place; "
                          "give the config.json they belong to")
    network.load_state_dict({name: x.float().contiguous() for name, x in state.items()},
                            assign=True)
    return network.eval()


def empty_network(config: Mapping[str, object]) -> UNet2DModel:
    """Return a U-Net without values (on torch's meta device); see ``build_network``."""
    _check_keys(config)
    own = {key: config[key] for key in _OWN if config.get(key) is not None}
    try:
        with torch.device("meta"):
            network = UNet2DModel.from_config(
                {key: value for key, value in config.items() if key not in _OWN})
    except Exception as error:  # see load_network
        raise UnseenError(f"its configuration is no UNet2DModel's: {first_line(error)}") from error
    network.register_to_config(**own)
    _check_config(network)
    if HEADS in own:
        _set_heads(network, int(str(own[HEADS])))
    if own.get(POOLED):
        _pool_sizes(network)
    return network


def check_label(network: UNet2DModel, label: Condition) -> None:
    """Raise UnseenError unless a class-conditional network, and only such a one, has a label.

    Args:
        network: The network.
        label: One class, or int64 (b,), b >= 1, one for each of b states; None: no class.
    """
    classes = network.config.num_class_embeds
    if not classes:
        if label is not None:
            raise UnseenError("the network knows no classes; remove label (models.NAME.label)")
        return
    given = torch.tensor([label]) if isinstance(label, int) else label
    if given is None:
        wrong = ""
    elif given.dtype != torch.int64 or given.ndim != 1 or not len(given):
        wrong = f", not {given.dtype} of shape {tuple(given.shape)}"
    else:
        outside = given[(given < 0) | (given >= classes)]
        if not len(outside):
            return
        wrong = f", not {outside[0].item()}"
    raise UnseenError("the network is class-conditional; set label (models.NAME.label) to "
                      f"0..{classes - 1}, the class that it is to receive{wrong}")


def _set_heads(network: UNet2DModel, heads: int) -> None:
    """Give every attention a fixed number of heads; a configuration fixes their width instead."""
    for module in network.modules():
        if isinstance(module, Attention):
            if heads < 1 or module.inner_dim % heads:
                raise UnseenError(f"num_heads {heads} does not divide an attention of "
                                  f"{module.inner_dim} channels; give the one of its training")
            module.heads, module.scale = heads, (module.inner_dim // heads) ** -0.5


def _pool_sizes(network: UNet2DModel) -> None:
    """Halve sizes by average pooling and double them by repeating pixels (no weights)."""
    for block in network.down_blocks:
        for place, child in enumerate(block.downsamplers or ()):
            block.downsamplers[place] = Downsample2D(child.channels, use_conv=False)
    for block in network.up_blocks:
        for place, child in enumerate(block.upsamplers or ()):
            block.upsamplers[place] = Upsample2D(child.channels, use_conv=False)


def _check_keys(config: Mapping[str, object]) -> None:
    """Raise UnseenError for another class of network, or a key that UNet2DModel does not have."""
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise UnseenError(f"its configuration is of a {name}; give a network of pixels, a "
                          "UNet2DModel")
    for key, value in config.items():
        if key not in _KNOWN and not key.startswith("_") and value is not None:
            hint = did_you_mean(key, _KNOWN) or "; remove it if it changes nothing"
            raise UnseenError(f"its configuration has {key}, which UNet2DModel does not know{hint}")


def _check_config(network: UNet2DModel) -> None:
    """Refuse networks that are not predictors of noise in images of one size."""
    config = network.config
    if config.class_embed_type:
        raise UnseenError("the network is class-conditional by vectors (class_embed_type "
                          f"{config.class_embed_type!r}); give one with numbered classes or none")
    size = config.sample_size
    sides = size if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise UnseenError(f"unet/config.json has sample_size {size!r}; set it to the side of the "
                          "images it was trained on")
    halvings = len(config.block_out_channels) - 1
    if any(side < 1 or side % 2**halvings for side in sides):
        raise UnseenError(f"images of side {size} cannot be halved {halvings} times, as the "
                          "network does; give the size it was trained on")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise UnseenError(f"the network predicts {config.out_channels} channels for images of "
                          f"{config.in_channels}; give one that predicts noise")
