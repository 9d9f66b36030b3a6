"""Parameters laid over params.yaml: the file, and the same as words for DVC."""

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from flows.dvc.overrides import as_words, combine, overlay, read_parameters
from unseen_core.errors import UnseenError

BASE = """# why
levels: [300, 500]
rate: 1e-4
domains:
  a: {n: 9, m: 1}
  b-c: {}
"""


def test_overlay_merges_keeps_comments_and_drops_nulls(tmp_path):
    base, extra = tmp_path / "params.yaml", tmp_path / "reduced.yaml"
    base.write_text("# why\nlevels: [300, 500]\nrate: 1e-4\ndomains:\n  a: {n: 9, m: 1}\n  b: {}\n")
    extra.write_text("levels: [500]\ndomains:\n  a: {n: 2}\n  b: null\nnew: 1\n")
    overlay(base, extra)
    text = base.read_text()
    assert text.startswith("# why\n")
    assert "rate: 1e-4" in text
    expected = {"levels": [500], "rate": 1e-4, "domains": {"a": {"n": 2, "m": 1}}, "new": 1}
    assert read_parameters(base) == expected


@pytest.mark.parametrize("content", [None, "- 1\n", "a: [\n", "a: 1\na: 2\n"])
def test_a_bad_parameter_file_is_one_line_that_names_it(tmp_path, content):
    base, extra = tmp_path / "params.yaml", tmp_path / "extra.yaml"
    base.write_text("a: 1\n")
    if content is not None:
        extra.write_text(content)
    with pytest.raises(UnseenError, match=r"extra\.yaml") as caught:
        overlay(base, extra)
    assert "\n" not in str(caught.value)
    assert base.read_text() == "a: 1\n"


@pytest.mark.parametrize("extra", [
    {"levels": [500], "domains": {"a": {"n": 2}, "b-c": None, "absent": None}, "new": 1},
    {"domains": {"b-c": {"k": {"x": [1, None, True]}}}, "rate": 2.5e-05},
    {"text": "it's \"so\": {a, b} = [c] # ~", "empty": "", "none": {"a": None}},
])
def test_words_for_dvc_do_what_an_overlay_does(tmp_path, extra):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(BASE)
    two.write_text(BASE)
    words = as_words(read_parameters(one), extra)
    assert words[::2] == ["-S"] * (len(words) // 2)
    apply_overrides(one, words[1::2])
    lay = tmp_path / "extra.yaml"
    YAML().dump(extra, lay)
    overlay(two, lay)
    assert read_parameters(one) == read_parameters(two)
    assert one.read_text().startswith("# why\n")


@pytest.mark.parametrize("extra", [
    {"a.b": 1}, {"a=b": 1}, {"-S": {"x": 1}, "a b": 1}, {"a": "${oc.env:HOME}"},
    {"a": {"b": object()}},
])
def test_what_dvc_would_misread_is_one_line(extra):
    with pytest.raises(UnseenError, match="overrides: ") as caught:
        as_words({}, extra)
    assert "\n" not in str(caught.value)


def test_overrides_are_laid_over_each_other_and_keep_their_nulls():
    first = {"domains": {"a": None, "b": {"n": 1}}, "levels": [1]}
    assert combine(first, {"domains": {"b": {"m": 2}}, "levels": None}) == {
        "domains": {"a": None, "b": {"n": 1, "m": 2}}, "levels": None}


def test_a_mapping_that_is_emptied_can_be_read_again(tmp_path):
    base, extra = tmp_path / "params.yaml", tmp_path / "extra.yaml"
    base.write_text("domains:    # what is read\n  a:   # one\n    n: 1\nseed: 0\n")
    extra.write_text("domains: {a: null}\n")
    overlay(base, extra)
    assert read_parameters(base) == {"domains": {}, "seed": 0}
