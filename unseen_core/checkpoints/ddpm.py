"""State dicts of the DDIM repository's ``Model``: DDPM in PyTorch.

Song et al. 2021, arXiv 2010.02502 (ermongroup/ddim); the networks of Ho et al. 2020,
arXiv 2006.11239, for CelebA-HQ and LSUN, ``celeba_hq.ckpt`` and its kind, have this form.
"""

from collections.abc import Mapping

from torch import Tensor

from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.network import POOLED, empty_network
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

_OUTER = {"time_embedding.linear_1": "temb.dense.0", "time_embedding.linear_2": "temb.dense.1",
          "conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
_INNER = {"norm1": "norm1", "conv1": "conv1", "time_emb_proj": "temb_proj", "norm2": "norm2",
          "conv2": "conv2", "conv_shortcut": "nin_shortcut", "group_norm": "norm", "to_q": "q",
          "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Say whether a state dict is of this family."""
    return any(name.startswith(("temb.dense.", "down.0.block.")) for name in state)


def convert(
    state: Mapping[str, Tensor], architecture: Architecture
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Return the configuration of the ``UNet2DModel`` that a state dict is, and its tensors.

    The norms' epsilon, the order of sines and cosines and the padding are those of the
    repository's code; everything else is read from the shapes.

    Raises:
        UnseenError: If tensors are missing, left over or misshapen, if ``ch_mult`` does not
            begin with 1, or if the image size is not given.
    """
    architecture.require("image_size")
    levels, stem = indices(state, "down."), length(state, "temb.dense.0.bias") // 4
    widths = [length(state, f"down.{i}.block.0.norm2.weight") for i in range(levels)]
    if not widths or widths[0] != stem:
        raise UnseenError(f"tensor 'down.0.block.0.norm2.weight' has {widths[:1]} channels and "
                          f"'temb.dense.0.bias' four times {stem}: ch_mult does not begin with 1, "
                          "which UNet2DModel cannot express; use another checkpoint")
    attends = [any(name.startswith(f"down.{i}.attn.") for name in state) for i in range(levels)]
    config: dict[str, object] = {
        "sample_size": architecture.image_size,
        **image_channels(state, "conv_in", "conv_out"),
        "block_out_channels": widths,
        "layers_per_block": indices(state, "down.0.block."),
        "down_block_types": ["AttnDownBlock2D" if has else "DownBlock2D" for has in attends],
        "up_block_types": ["AttnUpBlock2D" if has else "UpBlock2D" for has in attends[::-1]],
        "attention_head_dim": None,
        "norm_eps": 1e-6,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "downsample_padding": 0,
    }
    if levels > 1 and not any("sample.conv." in name for name in state):
        config[POOLED] = True  # resamp_with_conv: false
    return config, translate(state, empty_network(config), lambda name: _place(name, levels))


def _place(name: str, levels: int) -> Place:
    """Say where a tensor of the ``UNet2DModel`` lies."""
    module, _, kind = name.rpartition(".")
    if module in _OUTER:
        return Place(f"{_OUTER[module]}.{kind}")
    matched = BLOCK.fullmatch(module)
    if matched is None:
        return Place(name)
    side, level, part, index, inner = matched.groups()
    if side == "mid":
        prefix = "mid.attn_1" if part == "attentions" else f"mid.block_{int(index) + 1}"
    else:
        # Upwards the repository counts levels from the finest, diffusers from the coarsest.
        prefix = f"{side}.{level if side == 'down' else levels - 1 - int(level)}"
        if part in ("downsamplers", "upsamplers"):
            return Place(f"{prefix}.{part.removesuffix('rs')}.{inner}.{kind}")
        prefix += f".{'attn' if part == 'attentions' else 'block'}.{index}"
    pixelwise = part == "attentions" and inner != "group_norm" and kind == "weight"
    return Place(f"{prefix}.{_INNER[inner]}.{kind}", trailing=2 if pixelwise else 0)
