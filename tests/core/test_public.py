"""What the core shows: a list of names in every module, a docstring on every one of them."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import unseen_core

ROOT = Path(unseen_core.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def module_name(file: Path) -> str:
    """The dotted name of a file of the core."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def title(file: Path) -> str:
    """A file's path inside the core."""
    return file.relative_to(ROOT).as_posix()


def public_members(kind: type) -> list[tuple[str, object]]:
    """Methods and properties that a class itself defines under a public name."""
    return [(name, value) for name, value in vars(kind).items()
            if not name.startswith("_")
            and (inspect.isroutine(value) or isinstance(value, (property, classmethod)))]


@pytest.mark.parametrize("file", FILES, ids=title)
def test_every_module_lists_its_names(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"))
    assert ast.get_docstring(tree), "a module says what it is for"
    if len(tree.body) == 1:  # a package that only says what is in it
        return
    module = importlib.import_module(module_name(file))
    names = module.__all__
    assert names and len(set(names)) == len(names)
    missing = [name for name in names if not hasattr(module, name)]
    assert not missing
    defined = [node.name for node in tree.body
               if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
    unlisted = sorted(set(defined) - set(names))
    assert not unlisted, "public functions and classes belong into __all__, others get a _"


@pytest.mark.parametrize("file", FILES, ids=title)
def test_every_public_thing_is_documented(file: Path) -> None:
    module = importlib.import_module(module_name(file))
    silent = []
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if inspect.isclass(thing):
            silent += [f"{name}.{m}" for m, value in public_members(thing)
                       if not inspect.getdoc(value)]
        # vars, since a class inherits its parents' docstring and a dataclass writes its own
        text = vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and (
            not text or text.startswith(f"{name}(")
        ):
            silent.append(name)
    assert not silent
