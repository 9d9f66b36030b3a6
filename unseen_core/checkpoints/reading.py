"""Tensors out of a checkpoint file; code in a pickle is never run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["read_state"]

# Where training scripts put the weights beside other things; averages before the raw ones.
_KEYS = ("ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, float32 on the CPU, under the file's own names.

    Reads safetensors, and files of torch (any other ending) with ``weights_only``: their pickle
    may hold tensors and plain containers and nothing else. The weights may lie in the file
    itself, under one of the usual keys, or in the list [weights, optimiser, epoch, step, average]
    of the DDIM repository, where the average is taken. A prefix ``module.`` is dropped.

    Raises:
        UnseenError: If the file cannot be read so, holds no state dict, or a tensor is not
            floating point or not finite.
    """
    if not path.is_file():
        raise UnseenError(f"checkpoint {path} does not exist; correct its path")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path, device="cpu")
        else:
            content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # zip, pickle, struct and torch each have their own classes
        raise UnseenError(
            f"checkpoint {path} is damaged, or more than tensors (code in it is never run); "
            "fetch it again, or save its state dict alone as safetensors") from error
    state = _weights(content)
    if state is None:
        raise UnseenError(f"checkpoint {path} holds no state dict; save its weights as a mapping "
                          f"from names to tensors, alone or under {' or '.join(_KEYS)}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name: _checked(path, name, tensor) for name, tensor in state.items()}


def _weights(content: object) -> Mapping[str, Tensor] | None:
    """Return the state dict of a file's content, or None."""
    if _is_state(content):
        return content
    if isinstance(content, Mapping):
        return next((content[key] for key in _KEYS if _is_state(content.get(key))), None)
    if isinstance(content, Sequence):
        return next((item for item in reversed(content) if _is_state(item)), None)
    return None


def _is_state(content: object) -> bool:
    """Say whether something maps names to tensors."""
    return isinstance(content, Mapping) and bool(content) and all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in content.items())


def _checked(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Return a tensor as float32, or raise UnseenError naming it."""
    if not tensor.is_floating_point():
        raise UnseenError(f"checkpoint {path}: tensor {name!r} is {tensor.dtype}; weights are "
                          "floating-point numbers, so save them again as float32")
    # A view may claim far more values than the file holds, and would be copied out in full.
    whole = tensor.layout == torch.strided and not tensor.is_meta
    if not whole or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise UnseenError(f"checkpoint {path}: tensor {name!r} does not hold its own values; save "
                          "its state dict again as safetensors")
    if not tensor.isfinite().all():
        raise UnseenError(f"checkpoint {path}: tensor {name!r} is not finite; fetch the file "
                          "again, or take an earlier one of the training")
    return tensor.detach().float()
