"""Hashes of parameters, files and code: what a result depends on."""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from unseen_core.errors import UnseenError

__all__ = ["file_hash", "fingerprint", "folder_hash", "import_closure", "syntax_tree"]


def fingerprint(parts: Mapping[str, object]) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of ``parts`` as canonical JSON.

    The order of keys does not matter; 1 and 1.0 differ, lists and tuples do not.

    Raises:
        UnseenError: A value is not JSON (paths, tensors, NaN); its key is named.
    """
    for key, value in parts.items():
        try:
            _canonical(value)
        except (TypeError, ValueError) as error:
            raise UnseenError(
                f"fingerprint of {key!r}: {error}; give numbers, strings, lists or mappings"
            ) from error
    return hashlib.sha256(_canonical(dict(parts)).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, read as a stream.

    Raises:
        UnseenError: There is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UnseenError(f"{path}: no such file; run the stage that writes it") from error


def folder_hash(path: Path) -> str:
    """Return the SHA-256 of a folder: the sorted relative names and hashes of its files.

    Raises:
        UnseenError: There is no such folder.
    """
    if not path.is_dir():
        raise UnseenError(f"{path}: no such folder; run the stage that writes it")
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    return fingerprint({name: file_hash(file) for name, file in files.items()})


def import_closure(
    module_file: Path, root: Path, packages: Sequence[str] = ("unseen_core", "flows")
) -> list[Path]:
    """List the project files that run when a module is imported, directly or indirectly.

    Read from the syntax trees, so nothing is executed. Imports inside functions count;
    modules named at run time only (``importlib``) are not seen. The ``__init__.py`` of every
    package on the way counts, since Python runs it.

    Args:
        module_file: The module to begin with, below ``root``.
        root: Folder that holds the packages.
        packages: Top-level names to follow; everything else is a library.

    Returns:
        Sorted paths, each ``root`` joined with a relative path, ``module_file`` included.

    Raises:
        UnseenError: A file is missing, lies outside ``root`` or is not Python.
    """
    try:
        start = module_file.resolve().relative_to(root.resolve())
    except ValueError as error:
        raise UnseenError(f"{module_file}: not below {root}; name a project module") from error
    found: set[Path] = set()
    waiting = [root / start, *_packages_above(root, start)]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported_names(file, root):
            if name.split(".")[0] in packages:
                waiting.extend(_files_of(name, root))
    return sorted(found)


def syntax_tree(file: Path) -> ast.Module:
    """Return what a Python file says, without running it.

    Raises:
        UnseenError: The file is missing or is not Python.
    """
    try:
        source = file.read_bytes()
        try:
            return ast.parse(source, filename=str(file))
        except SystemError:
            # Python 3.11 counts the depth of all threads as one: where another thread parses at
            # the same time (to print a traceback, say), a sound file may be refused.
            return ast.parse(source, filename=str(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnseenError(f"{file}: cannot be read as Python ({error}); fix the file") from error


def _canonical(value: object) -> str:
    """Return JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _packages_above(root: Path, relative: Path) -> list[Path]:
    """List the ``__init__.py`` files of the packages that hold a module."""
    return [
        file
        for folder in relative.parents
        if folder != Path(".") and (file := root / folder / "__init__.py").is_file()
    ]


def _files_of(name: str, root: Path) -> list[Path]:
    """List the files that ``import name`` runs; a name that is not a module adds none."""
    relative = Path(*name.split("."))
    for candidate in (relative / "__init__.py", relative.with_name(relative.name + ".py")):
        if (root / candidate).is_file():
            return [root / candidate, *_packages_above(root, candidate)]
    return _packages_above(root, relative)


def _imported_names(file: Path, root: Path) -> tuple[str, ...]:
    """Return the absolute dotted names that a file imports, possible submodules included."""
    state = file.stat() if file.is_file() else None
    return _names_in(file, root, state and (state.st_mtime_ns, state.st_size))


@cache
def _names_in(file: Path, root: Path, _state: tuple[int, int] | None) -> tuple[str, ...]:
    """Do that once for every state of the file."""
    names: list[str] = []
    package = file.relative_to(root).parent.parts
    for node in ast.walk(syntax_tree(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, *(node.module.split(".") if node.module else ())]
            if base:
                names.append(".".join(base))
            names += [".".join([*base, alias.name]) for alias in node.names if alias.name != "*"]
    return tuple(names)
