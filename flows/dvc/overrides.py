"""Parameters laid over params.yaml: into the file itself, or as words for ``dvc exp run -S``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap

from unseen_core.errors import UnseenError

__all__ = ["as_words", "combine", "overlay", "read_parameters"]


def overlay(base: Path, extra: Path) -> None:
    """Lay the keys of ``extra`` over the YAML file ``base``, keeping its comments.

    Mappings are merged, other values replaced, and a null takes the key away, so that
    ``domains: {faces: null}`` drops a domain.

    Raises:
        UnseenError: If a file is missing, no YAML, or no mapping at the top.
    """
    parser = YAML()
    content = read_parameters(base, parser)
    _merge(content, read_parameters(extra))
    with base.open("w", encoding="utf-8") as stream:
        parser.dump(content, stream)


def read_parameters(path: Path, parser: YAML | None = None) -> dict[str, object]:
    """Return the mapping in a YAML file, read as DVC reads it.

    Raises:
        UnseenError: If the file is missing, no YAML, or no mapping at the top.
    """
    try:
        content = (parser or YAML(typ="safe")).load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UnseenError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(content, dict):
        raise UnseenError(f"{path}: holds no parameters; write `key: value` lines as params.yaml")
    return content


def combine(*layers: Mapping[str, object]) -> dict[str, object]:
    """Return overrides laid over each other, the last on top; their nulls stay."""
    whole: dict[str, object] = {}
    for layer in layers:
        for key, value in layer.items():
            below = whole.get(key)
            nested = isinstance(value, Mapping) and isinstance(below, Mapping)
            whole[key] = combine(below, value) if nested else value
    return whole


def as_words(base: Mapping[str, object], extra: Mapping[str, object]) -> list[str]:
    """Return arguments of ``dvc exp run`` that do what `overlay` does, without touching the file.

    They are Hydra overrides (hydra.cc, "Basic Override syntax"): ``-S ++levels=[500]``,
    ``-S ~domains.faces``.

    Args:
        base: The content of params.yaml.
        extra: What is laid over it.

    Raises:
        UnseenError: If a key is not a plain word, or YAML cannot hold a value.
    """
    return [word for override in _overrides(base, extra, "") for word in ("-S", override)]


def _merge(base: dict[str, object], extra: Mapping[str, object]) -> None:
    """Lay ``extra`` over ``base`` in place."""
    for key, value in extra.items():
        below = base.get(key)
        if value is None:
            base.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, dict):
            _merge(below, value)
            if not below and isinstance(base, CommentedMap):
                # Behind the comments of what is gone, {} would be written in column 0.
                base.ca.items.pop(key, None)
                base[key] = {}
        else:
            base[key] = value


def _overrides(
    base: Mapping[str, object], extra: Mapping[str, object], prefix: str
) -> Iterator[str]:
    """Yield one Hydra override per value."""
    for key, value in extra.items():
        name = f"{prefix}{key}"
        below = base.get(key)
        if not str(key).replace("-", "").replace("_", "").isalnum():
            raise UnseenError(f"overrides: {name} is not a parameter; nest the keys as params.yaml")
        if value is None:
            if key in base:
                yield f"~{name}"
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            yield from _overrides(below, value, f"{name}.")
        else:
            yield f"++{name}={_literal(name, value)}"


def _literal(name: str, value: object) -> str:
    """Return a value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and "${" not in value and not value.endswith("\\"):
        return "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, Mapping):
        inner = (f"{key}: {_literal(f'{name}.{key}', item)}" for key, item in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(_literal(name, item) for item in value) + "]"
    raise UnseenError(f"overrides: {name}: {value!r} cannot be given to `dvc exp run`; "
                      "write it into params.yaml")
