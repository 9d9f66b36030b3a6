"""Tensors of a foreign state dict under the names, and in the shapes, that diffusers uses."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusers import UNet2DModel
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["BLOCK", "Place", "image_channels", "indices", "length", "translate"]

# A layer of UNet2DModel: side, number of the block, part of it, number of that, layer within.
BLOCK = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?"
                   r"\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Place:
    """Where a tensor of the network lies in a foreign state dict.

    Attributes:
        name: Its foreign name.
        trailing: Axes of length 1 at its end, of a linear layer kept as a convolution.
        third: 0, 1 or 2 where queries, keys and values are one tensor; cut by ``split``.
    """

    name: str
    trailing: int = 0
    third: int | None = None


def translate(
    state: Mapping[str, Tensor],
    network: UNet2DModel,
    place: Callable[[str], Place],
    split: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
) -> dict[str, Tensor]:
    """Return the tensors that a network takes, out of a foreign state dict.

    Args:
        state: Foreign names and tensors.
        network: With the names and shapes that are wanted; its values do not matter.
        place: Says of each wanted name where it lies.
        split: Cuts a tensor of queries, keys and values into the three.

    Raises:
        UnseenError: If a tensor is missing, left over or of another shape: it is named.
    """
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    places = {name: place(name) for name in wanted}
    missing = [where.name for where in places.values() if where.name not in state]
    if missing:
        raise UnseenError(f"tensor {missing[0]!r} is missing{_more(missing)}; give the whole "
                          "checkpoint of the network")
    extra = sorted(set(state) - {where.name for where in places.values()})
    if extra:
        raise UnseenError(f"tensor {extra[0]!r} is not expected{_more(extra)}; give the "
                          "checkpoint of the network alone, or one of a supported architecture")
    result = {}
    for name, where in places.items():
        tensor, shape = state[where.name], tuple(wanted[name])
        rows = shape[0] if where.third is None else 3 * shape[0]
        expected = (rows, *shape[1:], *(1,) * where.trailing)
        if tuple(tensor.shape) != expected:
            raise UnseenError(f"tensor {where.name!r} has shape {tuple(tensor.shape)} instead of "
                              f"{expected}; give a checkpoint of a supported architecture")
        if where.third is not None and split is not None:
            tensor = split(tensor)[where.third]
        result[name] = tensor.reshape(shape).contiguous()
    return result


def length(state: Mapping[str, Tensor], name: str, axis: int = 0) -> int:
    """Return how long an axis of a tensor is, or raise UnseenError naming the tensor."""
    if name not in state:
        raise UnseenError(f"tensor {name!r} is missing; give the whole checkpoint of the network")
    if state[name].ndim <= axis:
        raise UnseenError(f"tensor {name!r} has shape {tuple(state[name].shape)}; give a "
                          "checkpoint of a supported architecture")
    return state[name].shape[axis]


def image_channels(state: Mapping[str, Tensor], first: str, last: str) -> dict[str, object]:
    """Return the configuration's channels in and out, of the first and last convolution.

    Raises:
        UnseenError: If those out are neither those in nor, with a variance, twice as many.
    """
    into, out = length(state, f"{first}.weight", 1), length(state, f"{last}.bias")
    if out not in (into, 2 * into):
        raise UnseenError(f"tensor '{first}.weight' takes images of {into} channels and "
                          f"'{last}.bias' gives {out}; give a checkpoint that predicts noise")
    return {"in_channels": into, "out_channels": out}


def indices(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbered parts follow a prefix: 1 + the largest number, 0 for none.

    Raises:
        UnseenError: If a number is larger than there are tensors, which no network has.
    """
    tails = [name[len(prefix):].split(".")[0] for name in state if name.startswith(prefix)]
    numbers = [tail for tail in tails if tail.isdecimal()]
    wild = [tail for tail in numbers if len(tail) > 9 or int(tail) >= len(state)]
    if wild:
        raise UnseenError(f"tensor '{prefix}{wild[0][:12]}...' is one of too few to be numbered "
                          "so; give the whole checkpoint of the network")
    return 1 + max(map(int, numbers), default=-1)


def _more(names: list[str]) -> str:
    """Say how many others there are."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
