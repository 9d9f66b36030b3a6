"""State dicts of ``UNetModel``: improved-diffusion, guided-diffusion and what descends from it.

Nichol & Dhariwal 2021, arXiv 2102.09672 (openai/improved-diffusion); Dhariwal & Nichol 2021,
arXiv 2105.05233 (openai/guided-diffusion); Choi et al. 2022, arXiv 2204.00227
(jychoi118/P2-weighting, ``afhqdog_p2.pt`` and its kind).
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.network import HEADS, empty_network
from unseen_core.checkpoints.translation import (
    BLOCK,
    Place,
    image_channels,
    indices,
    length,
    translate,
)
from unseen_core.errors import UnseenError

__all__ = ["convert", "recognises"]

_OUTER = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
          "class_embedding": "label_emb", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0",
          "conv_out": "out.2"}
_INNER = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
          "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
          "group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv",
          "to_out.0": "proj_out"}
_THIRDS = {"to_q": 0, "to_k": 1, "to_v": 2}


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Say whether a state dict is of this family."""
    return any(name.startswith(("time_embed.", "input_blocks.")) for name in state)


def convert(
    state: Mapping[str, Tensor], architecture: Architecture
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Return the configuration of the ``UNet2DModel`` that a state dict is, and its tensors.

    Levels, widths, attentions, the way of resampling, of conditioning on time and on classes and
    the learned variance are read from names and shapes. A fixed number of heads over levels of
    different width is said by an own key of the configuration; see ``build_network``.

    Raises:
        UnseenError: If tensors are missing, left over or misshapen, if ``channel_mult`` does not
            begin with 1, or if something needed is not in ``architecture``.
    """
    architecture.require("image_size")
    blocks = indices(state, "output_blocks.")
    levels = 1 + sum(_upsamples(state, block) for block in range(blocks))
    if blocks % levels or blocks < 2 * levels:
        raise UnseenError(f"{blocks} output_blocks over {levels} levels are not a UNetModel; give "
                          "the whole checkpoint of the network")
    stride = blocks // levels  # the residual blocks of a level and one more
    firsts = [1 + level * stride for level in range(levels)]
    stem = length(state, "time_embed.0.bias") // 4
    widths = [length(state, f"input_blocks.{first}.0.out_layers.0.weight") for first in firsts]
    if widths[0] != stem:
        raise UnseenError(f"tensor 'input_blocks.1.0.out_layers.0.weight' has {widths[0]} channels "
                          f"and 'time_embed.0.bias' four times {stem}: channel_mult does not "
                          "begin with 1, which UNet2DModel cannot express; use another "
                          "checkpoint")
    attends = [_has(state, f"input_blocks.{first}.1.") for first in firsts]
    residual = _has(state, f"input_blocks.{stride}.0.in_layers.")
    scales = length(state, "input_blocks.1.0.emb_layers.1.bias") == 2 * widths[0]
    plain = "Resnet{}sampleBlock2D" if residual else "{}Block2D"
    config: dict[str, object] = {
        "sample_size": architecture.image_size,
        **image_channels(state, "input_blocks.0.0", "out.2"),
        "block_out_channels": widths,
        "layers_per_block": stride - 1,
        "down_block_types": ["AttnDownBlock2D" if has else plain.format("Down") for has in attends],
        "up_block_types": ["AttnUpBlock2D" if has else plain.format("Up")
                           for has in attends[::-1]],
        "downsample_type": "resnet" if residual else "conv",
        "upsample_type": "resnet" if residual else "conv",
        "resnet_time_scale_shift": "scale_shift" if scales else "default",
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "downsample_padding": 1,
    }
    if _has(state, "label_emb."):
        config["num_class_embeds"] = length(state, "label_emb.weight")
    attending = {width for width, has in zip(widths, attends, strict=True) if has} | {widths[-1]}
    config |= _heads(architecture, attending)
    return config, translate(state, empty_network(config), _places(stride, attends),
                             _splitter(architecture, attending))


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    """Say whether any tensor's name begins so."""
    return any(name.startswith(prefix) for name in state)


def _upsamples(state: Mapping[str, Tensor], block: int) -> bool:
    """Say whether an output block ends in an upsampling layer."""
    return any(_has(state, f"output_blocks.{block}.{last}.{kind}")
               for last in (1, 2) for kind in ("conv.", "in_layers."))


def _heads(architecture: Architecture, widths: set[int]) -> dict[str, object]:
    """Return the keys of the configuration that cut attentions of these widths into heads."""
    if architecture.num_head_channels is not None:
        for width in widths:
            if width % architecture.num_head_channels:
                raise UnseenError(f"num_head_channels {architecture.num_head_channels} does not "
                                  f"divide an attention of {width} channels; correct "
                                  "architecture.num_head_channels (64 in most of guided-diffusion)")
        return {"attention_head_dim": architecture.num_head_channels}
    architecture.require("num_heads")
    heads = architecture.num_heads or 1
    for width in widths:
        if width % heads:
            raise UnseenError(f"num_heads {heads} does not divide an attention of {width} "
                              "channels; correct architecture.num_heads (1 or 4 in most networks)")
    if heads == 1:
        return {"attention_head_dim": None}
    if len(widths) == 1:
        return {"attention_head_dim": min(widths) // heads}
    return {"attention_head_dim": None, HEADS: heads}


def _splitter(
    architecture: Architecture, widths: set[int]
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the function that cuts queries, keys and values apart."""
    per_head, heads = architecture.num_head_channels, architecture.num_heads
    if heads != 1 and widths != {per_head}:  # with one head both orders are the same
        architecture.require("use_new_attention_order")

    def split(stacked: Tensor) -> tuple[Tensor, ...]:
        if architecture.use_new_attention_order:
            return stacked.chunk(3)
        count = heads or stacked.shape[0] // 3 // (per_head or 1)
        parts = stacked.reshape(count, 3, -1, *stacked.shape[1:])
        return tuple(parts[:, third].reshape(-1, *stacked.shape[1:]) for third in range(3))

    return split


def _places(stride: int, attends: list[bool]) -> Callable[[str], Place]:
    """Return the function that says where a tensor of the ``UNet2DModel`` lies."""

    def outer(side: str, level: int, part: str, index: int) -> str:
        if side == "mid":
            return f"middle_block.{1 if part == 'attentions' else 2 * index}"
        if part == "downsamplers":
            return f"input_blocks.{(level + 1) * stride}.0"
        if part == "upsamplers":
            last = 2 if attends[::-1][level] else 1
            return f"output_blocks.{(level + 1) * stride - 1}.{last}"
        block = level * stride + index + (side == "down")
        return f"{'in' if side == 'down' else 'out'}put_blocks.{block}.{int(part == 'attentions')}"

    def place(name: str) -> Place:
        module, _, kind = name.rpartition(".")
        if module in _OUTER:
            return Place(f"{_OUTER[module]}.{kind}")
        matched = BLOCK.fullmatch(module)
        if matched is None:
            return Place(name)
        side, level, part, index, inner = matched.groups()
        prefix = outer(side, int(level or 0), part, int(index))
        if inner == "conv":  # a plain convolution that resamples
            return Place(f"{prefix}.{'op' if part == 'downsamplers' else 'conv'}.{kind}")
        pixelwise = part == "attentions" and inner != "group_norm" and kind == "weight"
        return Place(f"{prefix}.{_INNER[inner]}.{kind}", trailing=int(pixelwise),
                     third=_THIRDS.get(inner))

    return place
