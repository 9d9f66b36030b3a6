"""What git knows of the repository that a run works in."""

import subprocess
from pathlib import Path

__all__ = ["ask_git"]


def ask_git(root: Path, *words: str) -> str:
    """Return what ``git WORDS`` prints in ``root``, or nothing where it fails.

    It fails where there is no repository, and for most questions where there is no commit.
    """
    said = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True,
                          check=False)
    return said.stdout.strip() if said.returncode == 0 else ""
