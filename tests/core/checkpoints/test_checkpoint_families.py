"""State dicts of each family: exact maps at full size, and a name for whatever does not fit."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import (
    AFHQ_DOG,
    CELEBA_HQ,
    SMALL_DDPM,
    SMALL_GUIDED,
    SMALL_IDDPM,
    Shapes,
    ddpm_shapes,
    empty_state,
    openai_shapes,
    random_state,
)

from unseen_core.checkpoints import ddpm, openai
from unseen_core.checkpoints.architecture import PRESETS, Architecture
from unseen_core.checkpoints.network import HEADS, build_network
from unseen_core.errors import UnseenError

SMALL = Architecture(image_size=8, num_heads=2, use_new_attention_order=False)
FAMILIES = [(ddpm, SMALL_DDPM), (openai, SMALL_IDDPM), (openai, SMALL_GUIDED)]


@pytest.mark.parametrize("family, shapes, preset, tensors, parameters", [
    (ddpm, CELEBA_HQ, "ddpm", 450, 113_673_219),
    (openai, AFHQ_DOG, "afhqdog-p2", 362, 93_563_910),
])
def test_published_networks_map_at_full_size(
    family, shapes: Shapes, preset: str, tensors: int, parameters: int
) -> None:
    assert len(shapes) == tensors
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    state = empty_state(shapes)
    assert [f for f in (ddpm, openai) if f.recognises(state)] == [family]
    config, found = family.convert(state, PRESETS[preset])
    assert sum(x.numel() for x in found.values()) == parameters
    assert config["sample_size"] == 256
    assert config["block_out_channels"] == [128, 128, 256, 256, 512, 512]
    assert config["attention_head_dim"] == (64 if family is openai else None)


@pytest.mark.parametrize("preset, shapes, head_dim, fixed", [
    ("iddpm-lsun", openai_shapes(128, [128, 128, 256, 256, 512, 512], 2, {4}, scale_shift=False),
     None, None),
    ("iddpm-cifar10", openai_shapes(128, [128, 256, 256, 256], 3, {1, 2}), 64, None),
    ("iddpm-imagenet64", openai_shapes(128, [128, 256, 384, 512], 3, {2, 3}), None, 4),
    ("guided-256", openai_shapes(256, [256, 256, 512, 512, 1024, 1024], 2, {3, 4, 5},
                                 residual=True), 64, None),
    ("guided-imagenet64", openai_shapes(192, [192, 384, 576, 768], 3, {1, 2, 3}, residual=True,
                                        classes=1000), 64, None),
])
def test_other_presets_map_at_full_size(
    preset: str, shapes: Shapes, head_dim: int | None, fixed: int | None
) -> None:
    config, found = openai.convert(empty_state(shapes), PRESETS[preset])
    assert sum(x.numel() for x in found.values()) == sum(map(math.prod, shapes.values()))
    assert config["attention_head_dim"] == head_dim
    assert config.get(HEADS) == fixed


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("heads, per_head", [(4, None), (None, 16), (1, None)])
def test_attention_is_what_its_definition_says(
    new: bool, heads: int | None, per_head: int | None
) -> None:
    state = random_state(SMALL_IDDPM)
    config, tensors = openai.convert(state, Architecture(
        image_size=8, num_heads=heads, num_head_channels=per_head, use_new_attention_order=new))
    network = build_network(config, tensors)
    places = {"input_blocks.1.1": network.down_blocks[0].attentions[0],
              "input_blocks.3.1": network.down_blocks[1].attentions[0],
              "middle_block.1": network.mid_block.attentions[0],
              "output_blocks.3.1": network.up_blocks[1].attentions[1]}
    for name, module in places.items():
        width = state[f"{name}.norm.weight"].shape[0]
        count = heads or width // per_head
        x = torch.randn(2, width, 4, 4, generator=torch.Generator().manual_seed(3))
        normal = torch.nn.functional.group_norm(
            x, 32, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]).flatten(2)
        stacked = torch.einsum("oi,bin->bon", state[f"{name}.qkv.weight"][..., 0], normal) \
            + state[f"{name}.qkv.bias"][:, None]
        # Legacy: heads first, then query, key and value; new: the three first, then heads.
        axes = "b (three heads c) n" if new else "b (heads three c) n"
        q, k, v = cut(stacked, axes, count)
        weights = torch.einsum("bhcn,bhcm->bhnm", q, k) / (width // count) ** 0.5
        mixed = torch.einsum("bhnm,bhcm->bhcn", weights.softmax(-1), v).flatten(1, 2)
        wanted = x + (torch.einsum("oi,bin->bon", state[f"{name}.proj_out.weight"][..., 0], mixed)
                      + state[f"{name}.proj_out.bias"][:, None]).view_as(x)
        torch.testing.assert_close(module(x), wanted, rtol=1e-5, atol=1e-5)


def cut(stacked: torch.Tensor, axes: str, heads: int) -> tuple[torch.Tensor, ...]:
    """Return queries, keys and values, each (b, heads, c, n)."""
    b, rows, n = stacked.shape
    if axes.startswith("b (three"):
        return stacked.reshape(b, 3, heads, rows // 3 // heads, n).unbind(1)
    return stacked.reshape(b, heads, 3, rows // 3 // heads, n).unbind(2)


def test_the_order_matters_only_with_several_heads() -> None:
    state, asked = empty_state(SMALL_IDDPM), Architecture(image_size=8, num_heads=1)
    openai.convert(state, asked)
    with pytest.raises(UnseenError, match=r"set architecture\.use_new_attention_order"):
        openai.convert(state, replace(asked, num_heads=2))


@given(st.data())
@settings(max_examples=40)
def test_a_tensor_that_does_not_fit_is_named(data: st.DataObject) -> None:
    family, shapes = FAMILIES[data.draw(st.integers(0, len(FAMILIES) - 1))]
    state = empty_state(shapes)
    names = [name for name in shapes if name != "label_emb.weight"]  # alone, it may be absent
    name = data.draw(st.sampled_from(names))
    damage = data.draw(st.sampled_from(["missing", "extra", "transposed", "cut"]))
    if damage == "missing":
        del state[name]
    elif damage == "extra":
        name = f"{name}_again"
        state[name] = torch.empty(3, device="meta")
    elif damage == "transposed":
        name = data.draw(st.sampled_from(
            [n for n in names if len(shapes[n]) > 1 and shapes[n][0] != shapes[n][1]]))
        state[name] = state[name].transpose(0, 1)
    else:
        name = data.draw(st.sampled_from([n for n in names if len(shapes[n]) > 1]))
        state[name] = state[name][:, :-1]
    with pytest.raises(UnseenError) as caught:
        family.convert(state, SMALL)
    assert repr(name) in str(caught.value), (damage, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family, shapes, name", [
    (ddpm, SMALL_DDPM, "down.0.block.999999999.norm1.weight"),
    (ddpm, SMALL_DDPM, f"down.{'9' * 5000}.block.0.norm1.weight"),
    (openai, SMALL_IDDPM, "output_blocks.999999999.0.in_layers.0.weight"),
])
def test_a_wild_number_in_a_name_builds_nothing(family, shapes: Shapes, name: str) -> None:
    state = empty_state(shapes) | {name: torch.empty(3, device="meta")}
    with pytest.raises(UnseenError, match="give the whole checkpoint"):
        family.convert(state, SMALL)


@pytest.mark.parametrize("family, shapes, words", [
    (ddpm, ddpm_shapes(32, [64, 64], 1, set()), "ch_mult does not begin with 1"),
    (openai, openai_shapes(32, [64, 64], 1, set()), "channel_mult does not begin with 1"),
    (openai, openai_shapes(32, [32, 64], 1, set(), out=4),
     "takes images of 3 channels and .* gives 4"),
])
def test_what_the_network_class_cannot_express_is_refused(family, shapes, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        family.convert(empty_state(shapes), SMALL)


@pytest.mark.parametrize("family, change, words", [
    (ddpm, {"image_size": None}, "set architecture.image_size"),
    (openai, {"image_size": None}, "set architecture.image_size"),
    (openai, {"image_size": 9}, "side 9 cannot be halved 1 times"),
    (openai, {"num_heads": None}, "set architecture.num_heads .*num_head_channels"),
    (openai, {"num_heads": 7}, "num_heads 7 does not divide an attention of"),
    (openai, {"num_heads": None, "num_head_channels": 48}, "num_head_channels 48 does not divide"),
])
def test_what_a_file_does_not_record_is_asked_for(family, change, words: str) -> None:
    shapes = SMALL_DDPM if family is ddpm else SMALL_IDDPM
    with pytest.raises(UnseenError, match=words):
        family.convert(empty_state(shapes), replace(SMALL, **change))


def test_settings_override_a_preset() -> None:
    made = Architecture.from_settings({"preset": "afhqdog-p2", "image_size": 64, "num_heads": 4})
    assert (made.image_size, made.num_heads, made.num_head_channels) == (64, 4, None)
    assert made.noise_schedule == "linear"
    assert Architecture.from_settings({"preset": None}) == Architecture()


@pytest.mark.parametrize("given_, words", [
    ({"preset": "celeba"}, "architecture.preset 'celeba' is not known; use one of ddpm"),
    ({"heads": 4}, "architecture.heads is not a key; use preset, image_size"),
    ({"num_heads": 0}, "num_heads 0 is not a positive number"),
    ({"image_size": "32"}, "image_size '32' is not a positive number"),
    ({"num_heads": 4, "num_head_channels": 64}, "keep the one"),
    ({"noise_schedule": "sigmoid"}, "noise_schedule 'sigmoid' is not known; use linear or cosine"),
    ({"diffusion_steps": 10}, "not a schedule"),
    ({"preset": "ddpm", "beta_start": 0.5}, "betas from 0.5 to 0.02 are not a schedule"),
])
def test_wrong_settings_are_one_line(given_: dict[str, object], words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        Architecture.from_settings(given_)
