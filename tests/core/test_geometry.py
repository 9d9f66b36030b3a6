"""The judge against plain loops and closed forms; the envelope's coverage on fresh draws."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge, angle_degrees, shell_lengths


def normals(seed: int, n: int, d: int) -> Tensor:
    """Standard normals, float64 (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def orders(seed: int, n: int, total: int) -> Tensor:
    """A random order of the references for each of n states."""
    return Streams(seed, "order", [str(i) for i in range(n)]).choose(total, total)


def angle_at(o: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The angle at o between a and b, by the dot product."""
    u, v = a - o, b - o
    return math.degrees(math.acos(u @ v / (np.linalg.norm(u) * np.linalg.norm(v))))


def by_hand(x: Tensor, references: Tensor, picked: list[int]) -> list[float]:
    """The five statistics of one state, one pair of references at a time."""
    z, refs = x.numpy(), references.numpy()
    distances = [np.linalg.norm(z - refs[i]) for i in picked[:-1]]
    origin = [angle_at(np.zeros_like(z), z, refs[i]) for i in picked[:-1]]
    corner = [angle_at(z, refs[i], refs[j]) for i, j in pairwise(picked)]
    return [np.linalg.norm(z), np.linalg.norm(z - refs.mean(0)),
            np.mean(distances), np.mean(origin), np.mean(corner)]


def test_statistics_equal_a_loop_over_pairs() -> None:
    references, x = 0.5 + normals(0, 9, 4), normals(1, 6, 4)
    order = orders(2, 6, 9)
    found = StateJudge.of(references, neighbours=4).statistics(x, order)
    wanted = [by_hand(z, references, row[:5]) for z, row in zip(x, order.tolist(), strict=True)]
    assert found.shape == (6, len(STATISTICS))
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-10, atol=1e-10)


def test_inner_products_are_enough() -> None:
    references, x = 0.5 + normals(0, 9, 4), normals(1, 6, 4)
    judge = StateJudge.of(references, neighbours=4)
    order, own = orders(2, 6, 9), orders(3, 6, 9)[:, :2]
    turn = torch.linalg.qr(normals(4, 7, 4))[0]  # the same states in 7 dimensions
    found = StateJudge.of(references @ turn.T, neighbours=4).statistics(x @ turn.T, order, own)
    wanted = judge.from_products(x @ references.T, x.square().sum(1), order, own)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_images_are_flattened_and_neighbours_capped() -> None:
    references = normals(0, 6, 12)
    judge = StateJudge.of(references.float().reshape(6, 3, 2, 2), neighbours=10)
    assert judge.neighbours == 3 and judge.references.gram.dtype == torch.float64
    torch.testing.assert_close(judge.mean, references.mean(0), rtol=0, atol=1e-6)


def test_parents_never_judge_their_child() -> None:
    references = normals(0, 12, 5)
    parents = torch.tensor([[3, 7], [0, 11]])
    x = references[parents[:, 0]]  # a parent among the judges would be at distance 0
    # The barred references come first in the order, so that ignoring the bar would show.
    order = torch.tensor([[3, 7, *(i for i in range(12) if i not in (3, 7))],
                          [0, 11, *range(1, 11)]])
    judge = StateJudge.of(references, neighbours=4)
    found = judge.statistics(x, order, parents)
    wanted = [by_hand(z, references, row[2:7]) for z, row in zip(x, order.tolist(), strict=True)]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-10, atol=1e-10)
    assert (judge.statistics(x, order)[:, 2] < found[:, 2]).all()


@pytest.mark.parametrize("parents", [4, 9])
def test_parents_stay_barred_when_few_others_remain(parents: int) -> None:
    references = normals(0, 12, 5)
    made_of = orders(1, 7, 12)[:, :parents]
    judge = StateJudge.of(references, neighbours=10)  # asks for 10 judges of 12
    found = judge.statistics(normals(2, 7, 5), orders(3, 7, 12), made_of)
    for x, order, own, row in zip(normals(2, 7, 5), orders(3, 7, 12).tolist(), made_of.tolist(),
                                  found, strict=True):
        others = [i for i in order if i not in own]
        wanted = torch.tensor(by_hand(x, references, others[:11]))
        torch.testing.assert_close(row, wanted, rtol=1e-10, atol=1e-10)


def test_too_many_parents_name_the_mend() -> None:
    judge = StateJudge.of(normals(0, 6, 5))
    with pytest.raises(UnseenError, match="parents"):
        judge.statistics(normals(1, 2, 5), orders(2, 2, 6), orders(3, 2, 6)[:, :5])


def test_isotropic_identities_in_high_dimension() -> None:
    d, n, v = 20_000, 40, 0.8
    mean = torch.full((d,), 0.4, dtype=torch.float64)
    references, x = mean + v**0.5 * normals(0, n, d), mean + v**0.5 * normals(1, n, d)
    values = StateJudge.of(references).statistics(x, orders(2, n, n))
    square, trace = (mean @ mean).item(), d * v
    wanted = torch.tensor([
        (square + trace) ** 0.5,
        (trace * (1 + 1 / n)) ** 0.5,  # to the mean of n others
        (2 * trace) ** 0.5,
        math.degrees(math.acos(square / (square + trace))),
        60.0,
    ], dtype=torch.float64)
    # Draws and references both scatter, each by about the spread of single values.
    error = values.std(0) * (2 / n) ** 0.5
    assert ((values.mean(0) - wanted).abs() < 5 * error).all(), (values.mean(0), wanted, error)
    assert (error < torch.tensor([0.3, 0.3, 0.3, 0.1, 0.1])).all()  # the test has teeth


def test_pair_distance_spreads_as_predicted() -> None:
    d, n, v, k = 4000, 300, 0.5, 10
    judge = StateJudge.of(v**0.5 * normals(0, 400, d), neighbours=k)
    values = judge.statistics(v**0.5 * normals(1, n, d), orders(2, n, 400))
    wanted = (v * (1 / 4 + 3 / (4 * k))) ** 0.5  # method of sd for fresh references
    assert abs(values[:, 2].std().item() / wanted - 1) < 5 / (2 * n) ** 0.5


def test_shell_lengths_leave_each_state_out() -> None:
    references = normals(0, 8, 6)
    wanted = [(x - torch.cat([references[:i], references[i + 1 :]]).mean(0)).norm()
              for i, x in enumerate(references)]
    torch.testing.assert_close(shell_lengths(references.reshape(8, 1, 2, 3)),
                               torch.stack(wanted), rtol=1e-12, atol=0)


def law(seed: int, n: int, d: int) -> Tensor:
    """Draws of N(0.3, diag(0.5 .. 1.2)): a domain whose latents are not N(0, I)."""
    scale = torch.linspace(0.5, 1.2, d, dtype=torch.float64).sqrt()
    return 0.3 + scale * normals(seed, n, d)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_fresh_draws_pass_at_the_stated_coverage(coverage: float) -> None:
    total, fresh, rounds, d = 100, 200, 12, 300
    shares = []
    for r in range(rounds):
        judge = StateJudge.of(law(2 * r, total, d))
        envelope = Envelope.calibrate(judge, orders(r, total, total), coverage=coverage)
        values = judge.statistics(law(2 * r + 1, fresh, d), orders(99 + r, fresh, total))
        shares.append(envelope.accept(values).double().mean().item())
    # One calibration's coverage scatters as a beta law; then come the fresh draws.
    noise = (coverage * (1 - coverage) * (1 / (total + 2) + 1 / fresh) / rounds) ** 0.5
    # Centre and spread come from the same references: up to 1 % less than nominal.
    assert -4 * noise - 0.01 < np.mean(shares) - coverage < 4 * noise, shares


def test_own_references_pass_and_foreign_noise_fails() -> None:
    total, d = 60, 3072
    references = law(0, total, d)
    judge, order = StateJudge.of(references), orders(0, total, total)
    envelope = Envelope.calibrate(judge, order, coverage=0.95)
    own = judge.statistics(references, order, torch.arange(total)[:, None])
    own[:, 1] = shell_lengths(references)
    assert envelope.accept(own).sum() == math.ceil(61 * 0.95)
    noise = judge.statistics(normals(5, 200, d), orders(6, 200, total))
    assert not envelope.accept(noise).any()


def test_accept_is_all_of_inside_and_bounds_belong_to_it() -> None:
    envelope = Envelope(torch.zeros(5).double(), torch.ones(5).double(), 0.9)
    values = torch.full((3, 5), 0.5).double()
    values[0, :2], values[1, 3] = torch.tensor([0.0, 1.0]), 1.0001
    assert envelope.inside(values).sum(1).tolist() == [5, 4, 5]
    assert envelope.accept(values).tolist() == [True, False, True]


def test_state_survives_json() -> None:
    envelope = Envelope.calibrate(StateJudge.of(law(0, 30, 20)), orders(0, 30, 30), coverage=0.9)
    back = Envelope.from_state(json.loads(json.dumps(envelope.state())))
    assert torch.equal(back.low, envelope.low) and torch.equal(back.high, envelope.high)
    assert back.coverage == 0.9 and (back.low < back.high).all()
    state = envelope.state()
    del state["bounds"]["radius"]
    with pytest.raises(UnseenError, match="radius"):
        Envelope.from_state(state)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 1.5])
def test_coverage_out_of_range(coverage: float) -> None:
    with pytest.raises(UnseenError, match="coverage"):
        Envelope.calibrate(StateJudge.of(normals(0, 9, 3)), orders(0, 9, 9), coverage=coverage)


def test_too_few_references_name_the_parameter() -> None:
    with pytest.raises(UnseenError, match="5 fit images, not 4"):
        StateJudge.of(normals(0, 4, 3))


def test_angles_stay_in_range_despite_rounding() -> None:
    found = angle_degrees(torch.tensor([1 + 1e-15, 0.0, -1 - 1e-15], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0, 90, 180])
