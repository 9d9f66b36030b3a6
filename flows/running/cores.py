"""How a stage shares the cores of a machine among its parts."""

import torch

from flows.settings.params import Params

__all__ = ["share_cores"]


def share_cores(params: Params, device: str) -> int:
    """Return how many parts to work on at once: ``compute.threads`` on the CPU, one on a GPU.

    On the CPU each part then computes with one thread. Threads that share a network call wait for
    each other in every layer: two cells on a core each took 1.2 to 2 times less time than one
    after the other on both, the more the busier the machine was with other work. And the last
    bits of a result no longer depend on the number of cores.
    """
    workers = params.compute.threads if device == "cpu" else 1
    torch.set_num_threads(1 if workers > 1 else params.compute.threads)
    return workers
