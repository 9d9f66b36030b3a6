"""Procedurally drawn shapes: the only images that ``shapes32`` ever sees.

Backgrounds are gradients or stripes; on them lie one to three discs, boxes, triangles or
rings, each shaded by a linear light. Nothing in them resembles a digit, a face or a galaxy.
"""

import colorsys

import numpy as np

__all__ = ["draw_shapes"]

_OVERSAMPLING = 2
_CHUNK = 512


def draw_shapes(count: int, *, seed: int, size: int = 32) -> np.ndarray:
    """Return ``count`` images of coloured shapes.

    The image at index i depends on ``seed``, ``size`` and its chunk of 512 only, so a longer
    draw starts with the images of a shorter one wherever whole chunks agree.

    Args:
        count: Number of images, >= 0.
        seed: Any integer; the same seed gives the same bytes.
        size: Side in pixels.

    Returns:
        uint8 array, shape (count, size, size, 3), values 0..255.
    """
    if count == 0:
        return np.empty((0, size, size, 3), np.uint8)
    starts = range(0, count, _CHUNK)
    chunks = [_draw_chunk(np.random.default_rng([seed, i]), _CHUNK, size) for i in starts]
    return np.concatenate(chunks)[:count]


def _draw_chunk(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Draw n images at twice the size and average, which antialiases every edge."""
    side = size * _OVERSAMPLING
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")  # (side, side), in [-1, 1]
    canvas = _background(rng, n, x, y)
    layers = rng.integers(1, 4, n)
    for layer in range(3):
        coverage, colour = _shape(rng, n, x, y)
        coverage = coverage * (layer < layers)[:, None, None]
        canvas += coverage[..., None] * (colour - canvas)
    small = canvas.reshape(n, size, _OVERSAMPLING, size, _OVERSAMPLING, 3).mean((2, 4))
    return (small.clip(0, 1) * 255).round().astype(np.uint8)


def _colours(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return n colours, uniform in hue, mostly saturated and bright; shape (n, 3)."""
    hsv = np.stack([rng.random(n), rng.uniform(0.1, 1, n), rng.uniform(0.1, 1, n)], axis=1)
    return np.array([colorsys.hsv_to_rgb(*row) for row in hsv], np.float32)


def _project(rng: np.random.Generator, n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the coordinate along a random direction, one per image; shape (n, side, side)."""
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
    return x * np.cos(angle) + y * np.sin(angle)


def _background(rng: np.random.Generator, n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Blend two colours along a gradient or in stripes; shape (n, side, side, 3)."""
    along = _project(rng, n, x, y)
    first, second = _colours(rng, n), _colours(rng, n)
    gradient = (along / 1.4 + 1) / 2
    frequency = rng.uniform(3, 12, (n, 1, 1)).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
    stripes = 1 / (1 + np.exp(-8 * np.sin(frequency * along + phase)))
    weight = np.where(rng.random((n, 1, 1)) < 0.6, gradient, stripes)[..., None]
    return (first[:, None, None] * (1 - weight) + second[:, None, None] * weight).astype(np.float32)


def _shape(
    rng: np.random.Generator, n: int, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return one random shape per image: coverage (n, s, s) in {0, 1}, colour (n, s, s, 3)."""
    centre = rng.uniform(-0.6, 0.6, (2, n, 1, 1)).astype(np.float32)
    radius = rng.uniform(0.2, 0.6, (n, 1, 1)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
    dx, dy = x - centre[0], y - centre[1]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / radius
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / radius
    rho = np.sqrt(u * u + v * v)
    width = rng.uniform(0.2, 0.4, (n, 1, 1)).astype(np.float32)
    aspect = rng.uniform(0.5, 1, (n, 1, 1)).astype(np.float32)
    half = np.float32(np.sqrt(3) / 2)
    kinds = [
        rho < 1,  # disc
        np.maximum(np.abs(u), np.abs(v) / aspect) < 0.85,  # box
        np.maximum(v, np.maximum(half * u - v / 2, -half * u - v / 2)) < 0.5,  # triangle
        np.abs(rho - (1 - width / 2)) < width / 2,  # ring
    ]
    kind = rng.integers(0, len(kinds), (n, 1, 1))
    coverage = np.select([kind == k for k in range(len(kinds))], kinds).astype(np.float32)
    light = (1 + rng.uniform(0, 0.5, (n, 1, 1)) * u).astype(np.float32)
    return coverage, (_colours(rng, n)[:, None, None] * light[..., None]).clip(0, 1)
