"""Parameters: what is missing, misspelt or out of range is named in one line."""

import copy
import json
from collections.abc import Iterable, Iterator

import pytest
from ruamel.yaml import YAML
from workspace import ROOT

from flows.settings.params import Params, load_params
from flows.settings.plan import Plan
from unseen_core.errors import UnseenError

COMMITTED = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
Path = tuple[str, ...]


def leaves(section: dict, above: Path = ()) -> Iterator[Path]:
    """Yield the keys that lead to every value that is not a mapping."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def sections(section: dict, above: Path = ()) -> Iterator[Path]:
    """Yield the keys that lead to every mapping."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield (*above, key)
            yield from sections(value, (*above, key))


def may_be_absent(path: Path) -> bool:
    """Say whether a key has a default, or is a name that the user gave."""
    optional = {("models", 3): {"sha256"}, ("domains", 3): {"limit", "licence", "pool", "column"}}
    if path[0] == "samplers":  # settings of a sampler have defaults
        return path[-1] != "sampler" or len(path) == 2
    if path[:2] == ("evaluate", "extractors"):
        return len(path) > 2
    return path[-1] in optional.get((path[0], len(path)), ())


def may_be_renamed(path: Path) -> bool:
    """Say whether a key is a name that nothing else refers to."""
    named = {"samplers": 2, "domains": 2, "evaluate": 3}
    used = {*COMMITTED["pipeline"]["domains"],
            *(model["seen"] for model in COMMITTED["models"].values())}
    return named.get(path[0]) == len(path) and path[-1] not in used \
        and path[:2] not in (("evaluate", "draws"),)


def one_of_each(paths: Iterable[Path]) -> list[Path]:
    """Keep one key of those that the same code reads: of all models, or all ``geometric``."""

    def role(path: Path) -> Path:
        if path[0] in ("models", "domains", "downloads") and len(path) > 2:
            return (path[0], *path[2:])
        if path[0] == "samplers" and len(path) > 2:
            return (path[0], COMMITTED["samplers"][path[1]]["sampler"], *path[2:])
        return path

    return list({role(path): path for path in paths}.values())


LEAVES, SECTIONS = list(leaves(COMMITTED)), list(sections(COMMITTED))
REMOVABLE = one_of_each(path for path in LEAVES + SECTIONS if not may_be_absent(path)
                        and not (path[0] in ("domains", "samplers") and may_be_renamed(path)))
RENAMABLE = one_of_each(path for path in LEAVES + SECTIONS if not may_be_renamed(path))


def edited(folder, path, change):
    """Write the committed parameters with one key changed, and return the file."""
    params = copy.deepcopy(COMMITTED)
    section = params
    for key in path[:-1]:
        section = section[key]
    change(section, path[-1])
    file = folder / "params.yaml"
    file.write_text(json.dumps(params), "utf-8")  # JSON is YAML, and quick to write
    return file


def checked(file) -> Params:
    """Load a file as ``python -m flows check`` does."""
    params = load_params(file)
    Plan.of(params)
    return params


def mistake(file) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(UnseenError) as caught:
        checked(file)
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


def test_the_committed_file_is_sound_and_leaves_no_key_unread():
    params = checked(ROOT / "params.yaml")
    assert set(params.model_dump()) == set(COMMITTED)
    for name in params.pipeline.domains:
        assert params.domain(name).fit <= 100
    assert len(LEAVES) > 60


def test_reading_and_writing_gives_the_same_parameters(tmp_path):
    file = edited(tmp_path, ("seed",), lambda section, key: None)
    assert load_params(file) == load_params(ROOT / "params.yaml")


def test_a_removed_key_is_named(tmp_path):
    for path in REMOVABLE:
        text = mistake(edited(tmp_path, path, lambda section, key: section.pop(key)))
        assert path[-1] in text and "params.yaml" in text, path


def test_a_renamed_key_is_named(tmp_path):
    def rename(section, key):
        section[f"{key}x"] = section.pop(key)

    for path in RENAMABLE:
        assert path[-1] in mistake(edited(tmp_path, path, rename)), path


@pytest.mark.parametrize(("path", "wrong"), [
    (("sample", "count"), "cuont"),
    (("solver", "steps"), "step"),
    (("invert", "part_size"), "partsize"),
    (("domains", "faces", "held_out"), "heldout"),
    (("pipeline",), "pipelin"),
    (("pretrain", "learning_rate"), "learning-rate"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_misspelt_key_suggests_the_right_one(tmp_path, path, wrong):
    def misspell(section, key):
        section[wrong] = section.pop(key)

    text = mistake(edited(tmp_path, path, misspell))
    assert ".".join([*path[:-1], wrong]) in text
    assert f"did you mean {path[-1]}?" in text


def test_an_added_key_beside_a_complete_section_suggests_its_neighbour(tmp_path):
    file = edited(tmp_path, ("sample", "counts"), lambda s, key: s.update({key: 3}))
    text = mistake(file)
    assert "sample.counts is not a parameter; did you mean count?" in text
    file = edited(tmp_path, ("domains", "faces", "limits"), lambda s, key: s.update({key: 3}))
    assert "domains.faces.limits is not a parameter; did you mean limit?" in mistake(file)


@pytest.mark.parametrize(("path", "value", "said"), [
    (("levels",), [0, 500], "levels.0"),
    (("levels",), [500, 300, 500], "levels: 500 is listed twice"),
    (("pipeline", "domains"), ["digits", "faces", "digits"], "domains: digits is listed twice"),
    (("samplers", "noise"), {"sampler": "noise", "levels": []}, "samplers.noise.levels"),
    (("samplers", "noise"), {"sampler": "noise", "levels": [900, 900]}, "900 is listed twice"),
    (("solver", "steps"), 10**9, "solver.steps"),
    (("evaluate", "draws"), 10**13, "evaluate.draws"),
    (("sample", "count"), 10**12, "sample.count"),
    (("seed",), "0", "seed"),
    (("compute", "threads"), True, "compute.threads"),
    (("domains", "digits", "fit"), "8", "domains.digits.fit"),
    (("images", "crop"), "no", "images.crop"),
    (("fit", "coverage"), "0.9", "fit.coverage"),
    (("levels",), [], "levels"),
    (("levels",), ["high"], "levels.0"),
    (("samplers", "noise"), {"sampler": "nosie"}, "samplers.noise: sampler 'nosie' is not known"),
    (("samplers", "noise"), {"sampler": "noise", "kind": "empirical"}, "no setting 'kind'"),
    (("samplers", "noise"), {"kind": "empirical"}, "samplers.noise.sampler is missing"),
    (("samplers", "slerp"), {"sampler": "slerp", "points": 0}, "samplers.slerp: points 0"),
    (("samplers", "slerp"), {"sampler": "slerp", "points": "ten"}, "samplers.slerp"),
    (("samplers", "slerp"), {"sampler": "slerp", "levels": [123]}, "samplers.slerp.levels: 123"),
    (("samplers", "slerp"), {"sampler": "slerp", "space": "pixel"}, "samplers.slerp.space"),
    (("samplers", "x"), {"sampler": "prior", "kind": "dct"}, "samplers.x.kind: 'dct'"),
    (("samplers", "x"), {"sampler": "geometric", "proposal": "blnd"}, "samplers.x.proposal"),
    (("samplers", "x"), {"sampler": "slerp", "partner": "other"}, "samplers.x.partner"),
    (("pipeline", "domains"), ["digits", "dogs"], "domains.dogs is not defined"),
    (("pipeline", "domains"), ["digit"], "did you mean digits?"),
    (("pipeline", "models"), ["natural"], "did you mean natural32?"),
    (("models", "natural32", "seen"), "photograph", "did you mean photographs?"),
    (("models", "natural32", "sha256"), "abc", "models.natural32.sha256"),
    (("domains", "digits", "fit"), 4, "domains.digits.fit"),
    (("domains", "Big"), {"source": "folder", "path": "x", "fit": 9, "held_out": 9}, "domains.Big"),
    (("domains", "../up"), {"source": "folder", "path": "x", "fit": 9, "held_out": 9}, "../up"),
    (("solver", "method"), "euler", "solver.method"),
    (("fit", "coverage"), 1.0, "fit.coverage"),
    (("compute", "threads"), 0, "compute.threads"),
    (("images", "size"), "large", "images.size"),
    (("seed",), None, "seed"),
    (("sample",), 100, "sample"),
], ids=lambda value: ".".join(value) if isinstance(value, tuple) else "")
def test_a_wrong_value_is_one_line_that_names_it(tmp_path, path, value, said):
    text = mistake(edited(tmp_path, path, lambda section, key: section.update({key: value})))
    assert said in text


@pytest.mark.parametrize("content", [
    "levels: [300\n", "a: 1\na: 2\n", "\tseed: 0\n", "", "- 1\n", "seed\n", "a: !!python/none x\n",
    "? [1, 2]\n: 3\n", "a: &x [*x]\n", "\x00",
])
def test_a_file_that_is_no_mapping_is_one_line_that_names_it(tmp_path, content):
    file = tmp_path / "params.yaml"
    file.write_text(content)
    text = mistake(file)
    assert str(file) in text
    assert len(text) < 1000


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    assert "params.yaml" in mistake(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00seed")
    assert "params.yaml" in mistake(tmp_path / "params.yaml")


@pytest.mark.parametrize(("place", "named"), [("seed: 0", "params.yaml: seed"),
                                              ("alpha: 20.0", "samplers.geometric.alpha")])
def test_an_alias_of_more_values_than_memory_holds_is_one_short_line(tmp_path, place, named):
    bomb = "&a0 [1, 2, 3]"
    for i in range(1, 15):
        bomb = f"&a{i} [{bomb}{9 * f', *a{i - 1}'}]"
    text = (ROOT / "params.yaml").read_text("utf-8")
    file = tmp_path / "params.yaml"
    file.write_text(text.replace(place, f"{place.split(':')[0]}: {bomb}", 1), "utf-8")
    said = mistake(file)
    assert named in said and len(said) < 400


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    file = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text("utf-8")
    file.write_text(text.replace("learning_rate: 0.0006", "learning_rate: 6e-4"))
    assert load_params(file).pretrain.learning_rate == 6e-4
