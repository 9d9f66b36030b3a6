"""Child process of test_store_scratch.py: builds a store, killed at every write in turn.

Prints one JSON line with what it saw, then holds a scratch lock until it is killed.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import pandas as pd
import torch

import unseen_core
from unseen_core.store import (
    Scratch,
    folder_hash,
    latent_manifest,
    part_name,
    save_part,
    write_index,
)

LATENTS = torch.linspace(-3, 3, 4 * 3 * 2 * 2).reshape(4, 3, 2, 2)
INDEX = pd.DataFrame({"id": list("abcd"), "part": [0, 0, 1, 1], "row": [0, 1, 0, 1]})
NAMES = [part_name(300, 0), part_name(300, 1), "index.parquet"]
KILLED = 99


def build(root: Path, out: Path) -> int:
    """Make what is missing, publish, return how many parts were made."""
    with Scratch(root, "mark") as scratch:
        missing = [name for name in NAMES if not scratch.has(name)]
        for name in missing:
            if name == "index.parquet":
                scratch.add(name, lambda path: write_index(path, INDEX))
            else:
                rows = LATENTS[2 * NAMES.index(name) :][:2]
                scratch.add(name, lambda path, rows=rows: save_part(path, rows, "float16"))
        scratch.publish(
            out, NAMES, latent_manifest("tensors", (3, 2, 2), "float16", [300], [2, 2], "f")
        )
    return len(missing)


def arm(limit: int) -> None:
    """Let this process die just before its write number ``limit``."""
    count = itertools.count(1)
    for name in ("replace", "fsync", "link", "unlink"):
        real = getattr(os, name)

        def mortal(*given: object, real: object = real, name: str = name, **named: object) -> None:
            if next(count) == limit:
                os._exit(KILLED)
            real(*given, **named)

        setattr(os, name, mortal)


def forked(limit: int, root: Path, out: Path) -> int:
    """Build in a forked process that dies at write ``limit``; return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            arm(limit)
            status = build(root, out) + 10
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path) -> None:
    """Kill, look, rerun, for every write; then hold a lock."""
    torch.set_num_threads(1)
    # Losing power is not simulated, so waiting for the disk would prove nothing.
    os.fsync = lambda handle: None
    home = Path(unseen_core.__file__).parent.parent
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    seen = {"imported": sorted(f for f in files if Path(f).is_relative_to(home / "unseen_core"))}
    build(folder / "plain-work", folder / "plain")
    whole = seen["whole"] = folder_hash(folder / "plain")
    seen["runs"] = []
    for limit in itertools.count(1):
        root, out = folder / f"work-{limit}", folder / f"out-{limit}"
        (out / "L0900").mkdir(parents=True)
        for name in ("L0900/stale", "manifest.json", "stale"):
            (out / name).write_text("of an earlier run")
        old = folder_hash(out)
        first = forked(limit, root, out)
        if first != KILLED:
            seen["last"] = [first, folder_hash(out) == whole]
            break
        states = {old: "old", whole: "whole"} if (out / "manifest.json").exists() else {}
        state = states.get(folder_hash(out), "torn" if states else "open")
        made = build(root, out)
        left = sorted(str(file) for file in root.rglob("*"))
        seen["runs"].append([state, made, folder_hash(out), left])
    sys.stdout.write(json.dumps(seen) + "\n")
    with Scratch(folder / "work", "held") as scratch:
        scratch.add("part", lambda path: path.write_bytes(b"made by the child"))
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
