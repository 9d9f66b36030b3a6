"""Names and shapes of the tensors of published networks, written down from their architecture."""

import torch

Shapes = dict[str, tuple[int, ...]]


def conv(name: str, rows: int, columns: int, *kernel: int) -> Shapes:
    """A layer with weights and bias."""
    return {f"{name}.weight": (rows, columns, *kernel), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> Shapes:
    """A group normalisation."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def ddpm_shapes(stem: int, widths: list[int], blocks: int, attends: set[int]) -> Shapes:
    """``Model`` of the DDIM repository, three channels in and out."""

    def block(name: str, before: int, after: int) -> Shapes:
        return norm(f"{name}.norm1", before) | conv(f"{name}.conv1", after, before, 3, 3) \
            | conv(f"{name}.temb_proj", after, 4 * stem) | norm(f"{name}.norm2", after) \
            | conv(f"{name}.conv2", after, after, 3, 3) \
            | (conv(f"{name}.nin_shortcut", after, before, 1, 1) if before != after else {})

    def attention(name: str, width: int) -> Shapes:
        layers = [conv(f"{name}.{x}", width, width, 1, 1) for x in ("q", "k", "v", "proj_out")]
        return norm(f"{name}.norm", width) | layers[0] | layers[1] | layers[2] | layers[3]

    shapes = conv("temb.dense.0", 4 * stem, stem) | conv("temb.dense.1", 4 * stem, 4 * stem) \
        | conv("conv_in", stem, 3, 3, 3) | norm("norm_out", widths[0]) \
        | conv("conv_out", 3, widths[0], 3, 3)
    now, skips = stem, [stem]
    for i, width in enumerate(widths):
        for j in range(blocks):
            shapes |= block(f"down.{i}.block.{j}", now, width)
            shapes |= attention(f"down.{i}.attn.{j}", width) if i in attends else {}
            now = width
            skips.append(now)
        if i < len(widths) - 1:
            shapes |= conv(f"down.{i}.downsample.conv", now, now, 3, 3)
            skips.append(now)
    shapes |= block("mid.block_1", now, now) | attention("mid.attn_1", now) \
        | block("mid.block_2", now, now)
    for i, width in reversed(list(enumerate(widths))):
        for j in range(blocks + 1):
            shapes |= block(f"up.{i}.block.{j}", now + skips.pop(), width)
            shapes |= attention(f"up.{i}.attn.{j}", width) if i in attends else {}
            now = width
        if i > 0:
            shapes |= conv(f"up.{i}.upsample.conv", now, now, 3, 3)
    return shapes


def openai_shapes(
    stem: int, widths: list[int], blocks: int, attends: set[int], *, out: int = 6,
    residual: bool = False, scale_shift: bool = True, classes: int = 0,
) -> Shapes:
    """``UNetModel`` of improved-diffusion, or with ``residual`` resampling of guided-diffusion."""

    def block(name: str, before: int, after: int) -> Shapes:
        return norm(f"{name}.in_layers.0", before) \
            | conv(f"{name}.in_layers.2", after, before, 3, 3) \
            | conv(f"{name}.emb_layers.1", after * (1 + scale_shift), 4 * stem) \
            | norm(f"{name}.out_layers.0", after) \
            | conv(f"{name}.out_layers.3", after, after, 3, 3) \
            | (conv(f"{name}.skip_connection", after, before, 1, 1) if before != after else {})

    def attention(name: str, width: int) -> Shapes:
        return norm(f"{name}.norm", width) | conv(f"{name}.qkv", 3 * width, width, 1) \
            | conv(f"{name}.proj_out", width, width, 1)

    shapes = conv("time_embed.0", 4 * stem, stem) | conv("time_embed.2", 4 * stem, 4 * stem) \
        | conv("input_blocks.0.0", stem, 3, 3, 3) | norm("out.0", widths[0]) \
        | conv("out.2", out, widths[0], 3, 3)
    if classes:
        shapes["label_emb.weight"] = (classes, 4 * stem)
    now, skips, count = stem, [stem], 1
    for i, width in enumerate(widths):
        for _ in range(blocks):
            shapes |= block(f"input_blocks.{count}.0", now, width)
            shapes |= attention(f"input_blocks.{count}.1", width) if i in attends else {}
            now, count = width, count + 1
            skips.append(now)
        if i < len(widths) - 1:
            shapes |= block(f"input_blocks.{count}.0", now, now) if residual \
                else conv(f"input_blocks.{count}.0.op", now, now, 3, 3)
            count += 1
            skips.append(now)
    shapes |= block("middle_block.0", now, now) | attention("middle_block.1", now) \
        | block("middle_block.2", now, now)
    count = 0
    for i, width in reversed(list(enumerate(widths))):
        for j in range(blocks + 1):
            shapes |= block(f"output_blocks.{count}.0", now + skips.pop(), width)
            shapes |= attention(f"output_blocks.{count}.1", width) if i in attends else {}
            now = width
            if i > 0 and j == blocks:
                last = f"output_blocks.{count}.{2 if i in attends else 1}"
                shapes |= block(last, now, now) if residual \
                    else conv(f"{last}.conv", now, now, 3, 3)
            count += 1
    return shapes


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw tensors that keep activations near one."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=draw)
        fan = x[0].numel() if len(shape) > 1 else 25
        state[name] = x / fan**0.5 + (name.endswith("weight") and len(shape) == 1)
    return state


def empty_state(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors without values."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


CELEBA_HQ = ddpm_shapes(128, [128, 128, 256, 256, 512, 512], 2, {4})
AFHQ_DOG = openai_shapes(128, [128, 128, 256, 256, 512, 512], 1, {4}, residual=True)
SMALL_DDPM = ddpm_shapes(32, [32, 64], 1, {0})
SMALL_IDDPM = openai_shapes(32, [32, 64], 1, {0, 1})
SMALL_GUIDED = openai_shapes(32, [32, 64], 1, {1}, residual=True, scale_shift=False, classes=5)
