"""The latent store beside .npy, Parquet, torch.save and plain safetensors: write, read, gather.

    python benchmarks/store.py [--count 200]

200 latents of 3 x 256 x 256 in float32 (157 MB) are written, read whole, and 32 of them gathered in
random order, from a file just opened and once more. All are written so that a power cut loses
nothing (fsync). The store seals its parts with SHA-256 when it writes, verifies them when it
publishes, and compares the seals when it first reads a part; of the others only Parquet has
checksums, of its pages. What is read is in the page cache.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import RESULTS, STORED, circumstances, side_by_side, write_result, write_store
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from unseen_core.store import TensorStore

SHAPE, GATHERED = (3, 256, 256), 32


def write_parquet(path: Path, x: Tensor) -> None:
    """Write a row per latent, uncompressed, with checksums of pages."""
    values = pa.array(x.flatten().numpy())
    column = pa.FixedSizeListArray.from_arrays(values, x[0].numel())
    pq.write_table(pa.table({"x": column}), path, compression="none", use_dictionary=False,
                   row_group_size=GATHERED, write_page_checksum=True)


def durable(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file and wait until the disk has it."""
    write(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_parquet(path: Path) -> Tensor:
    """Read it, comparing the checksums."""
    column = pq.read_table(path, page_checksum_verification=True)["x"].combine_chunks()
    return torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy())


def picked(path: Path, rows: list[int]) -> Tensor:
    """Gather rows of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        stored = file.get_slice("x")
        return torch.stack([stored[row] for row in rows])


def ways(folder: Path, x: Tensor, rows: list[int]) -> dict[str, dict[str, Callable[[], object]]]:
    """Return what each format does for each kind of work."""
    npy, parquet, torched, tensors = (folder / f"x.{end}" for end in
                                      ("npy", "parquet", "pt", "safetensors"))
    ids = [str(row) for row in rows]

    @cache
    def opened() -> TensorStore:
        return TensorStore(folder / "store")

    @cache
    def mapped() -> np.ndarray:
        return np.load(npy, mmap_mode="r")

    def sealed() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        write_store(folder, x, "float32")

    return {
        "write": {
            "store": sealed, ".npy": lambda: durable(npy, lambda file: np.save(file, x.numpy())),
            "Parquet": lambda: durable(parquet, lambda file: write_parquet(file, x)),
            "torch.save": lambda: durable(torched, lambda file: torch.save(x, file)),
            "safetensors": lambda: durable(tensors, lambda file: save_file({"x": x}, file))},
        "read": {
            "store": lambda: TensorStore(folder / "store").all(STORED),
            ".npy": lambda: torch.from_numpy(np.load(npy)), "Parquet": lambda: read_parquet(
                parquet), "torch.save": lambda: torch.load(torched, weights_only=True),
            "safetensors": lambda: load_file(tensors)["x"].clone()},
        "gather": {
            "store": lambda: TensorStore(folder / "store").rows(STORED, ids),
            ".npy": lambda: torch.from_numpy(np.load(npy, mmap_mode="r")[rows]),
            "Parquet": lambda: read_parquet(parquet).view(-1, *SHAPE)[rows],
            "torch.save": lambda: torch.load(torched, weights_only=True, mmap=True)[rows],
            "safetensors": lambda: picked(tensors, rows)},
        "gather again": {
            "store": lambda: opened().rows(STORED, ids), ".npy": lambda: mapped()[rows],
            "safetensors": lambda: picked(tensors, rows)},
    }


def main() -> None:
    """Time the formats and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "store.json")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.count, *SHAPE, generator=generator)
    rows = torch.randperm(options.count, generator=generator)[:GATHERED].tolist()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, formats in ways(Path(name), x, rows).items():
            found[kind], _ = side_by_side(formats)
            fastest = min(took["median"] for took in found[kind].values())
            for way, took in found[kind].items():
                took["ratio"] = took["median"] / fastest
                print(f"{kind:7} {way:12} {took['median']:7.3f} s, {took['ratio']:5.2f} times the "
                      "fastest", flush=True)
    write_result(options.out, {**circumstances("cpu"), "latents": options.count, "shape": SHAPE,
                               "bytes": x.nbytes, "gathered": len(rows), "ways": found})


if __name__ == "__main__":
    main()
