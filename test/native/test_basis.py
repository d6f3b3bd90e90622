"""Linear bases: every instruction set against the same sums and closed forms in NumPy."""

import math

import numpy as np
import pytest
import torch

from avat3r_ros.geometry import matrices_from_quats_wxyz
from avat3r_ros.native import LinearBasis, instruction_sets

LANES, WIDTHS = 16, (3, 6, 1, 3, 1)
# Whole and partly used chunks, all groups, none, fading with and without components of opacity.
BLOCKS = (
    (33, (2, 3, 1, 1, 1), 0),
    (16, (1, 0, 0, 0, 0), 0),
    (20, (0, 0, 0, 2, 0), 0),
    (7, (3, 2, 0, 0, 0), 1),
    (5, (0, 1, 0, 0, 2), 1),
    (9, (0, 0, 0, 0, 0), 0),
)
NUM_INPUTS = 21
FADE_FROM, FADE_TO = 1.3, 3.3


def random_half(rng, *shape, scale=1.0):
    return torch.from_numpy(scale * rng.standard_normal(shape)).half()


@pytest.fixture(scope="module")
def content():
    """What the blocks hold, before it is laid out: one dictionary a block."""
    rng = np.random.default_rng(0)
    blocks = []
    for count, ranks, fades in BLOCKS:
        rest = random_half(rng, count, 14)
        rest[:, 13] = torch.from_numpy(rng.uniform(0.3, 1.2, count)).half()
        blocks.append(
            {
                "rest": rest,
                "positions": torch.from_numpy(rng.standard_normal((count, 3))).float(),
                "limits": torch.from_numpy(rng.uniform([0.1, 1.0], [0.4, 2.0], (count, 2))).half(),
                "inverse_area": torch.from_numpy(rng.uniform(0.3, 3.0, count)).half(),
                "components": [
                    random_half(rng, count, rank, width, scale=0.3)
                    for rank, width in zip(ranks, WIDTHS, strict=True)
                ],
                "ranks": ranks,
                "fades": fades,
                "map": random_half(rng, sum(ranks), NUM_INPUTS, scale=0.3),
            }
        )
    return blocks


def lay_out(blocks):
    """The stream and the positions, written from the description in basis_types.h."""
    stream, positions = [], []
    for block in blocks:
        count = len(block["rest"])
        for begin in range(0, count, LANES):
            lanes = range(begin, min(begin + LANES, count))

            def row(values, lanes=lanes):
                return [float(values[i]) for i in lanes] + [0.0] * (LANES - len(lanes))

            start = 0
            for group, width in enumerate(WIDTHS):
                rank, components = block["ranks"][group], block["components"][group]
                if group == 0 and rank:
                    positions += [row(block["positions"][:, w]) for w in range(3)]
                if rank or (group == 4 and block["fades"]):
                    if group == 1:
                        stream += [row(block["limits"][:, 0]), row(block["limits"][:, 1])]
                        if block["fades"]:
                            stream.append(row(block["inverse_area"]))
                    if group:
                        stream += [row(block["rest"][:, start + w]) for w in range(width)]
                    for k in range(rank):
                        stream += [row(components[:, k, w]) for w in range(width)]
                start += width
    return torch.tensor(stream).half().flatten(), torch.tensor(positions).float().flatten()


@pytest.fixture(scope="module")
def basis(content):
    stream, positions = lay_out(content)
    return LinearBasis(
        counts=np.array([b[0] for b in BLOCKS], np.int32),
        ranks=np.array([b[1] for b in BLOCKS], np.int32),
        fades=np.array([b[2] for b in BLOCKS], np.int32),
        stream=stream,
        positions=positions,
        map=torch.cat([block["map"] for block in content]),
        fade_from=FADE_FROM,
        fade_to=FADE_TO,
    )


def outputs(num_gaussians):
    widths = {"means": 3, "quats_wxyz": 4, "scales": 3, "opacities": 1, "colors": 3}
    return {
        name: torch.full((num_gaussians, w) if w > 1 else (num_gaussians,), -7.0)
        for name, w in widths.items()
    }


def evaluated(basis, inputs, **options):
    result = outputs(basis.num_gaussians + 3)
    basis.evaluate(inputs, **result, **options)
    return result


def covariance_mm2(axes):
    p, q = axes[:, :3].double(), axes[:, 3:].double()
    return p[:, :, None] * p[:, None] + q[:, :, None] * q[:, None]


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_the_kernel_gives_the_sums_and_their_principal_axes(basis, content, instruction_set):
    inputs = np.random.default_rng(3).standard_normal(NUM_INPUTS).astype(np.float32)
    result = evaluated(basis, inputs, instruction_set=instruction_set)
    first = 0
    for block in content:
        count = len(block["rest"])
        own = slice(first, first + count)
        coefficients = (block["map"].float() @ torch.from_numpy(inputs)).split(block["ranks"])
        moved = torch.cat(
            [
                torch.einsum("k,nkw->nw", c, component.float())
                for c, component in zip(coefficients, block["components"], strict=True)
            ],
            -1,
        )
        sums = moved + torch.cat([torch.zeros(count, 3), block["rest"][:, 3:].float()], -1)
        untouched = torch.full((count,), -7.0)
        position, axes, thickness, color, opacity = block["ranks"]
        expected = block["positions"] + 1e-3 * sums[:, :3] if position else untouched[:, None]
        close(result["means"][own], expected.expand(-1, 3))
        expected = 1e-3 * sums[:, 9].clamp(min=0) if thickness else untouched
        close(result["scales"][own, 2], expected)
        close(result["colors"][own], sums[:, 10:13] if color else untouched[:, None].expand(-1, 3))
        share = torch.ones(count)
        if axes:
            area = torch.cross(sums[:, 3:6], sums[:, 6:9], dim=-1).norm(dim=-1)
            check_discs(result["quats_wxyz"][own], result["scales"][own], sums[:, 3:9], block)
            if block["fades"]:
                ratio = area * block["inverse_area"].float()
                change = torch.maximum(ratio, 1 / ratio)
                share = ((FADE_TO - change) / (FADE_TO - FADE_FROM)).clamp(0, 1)
        written = opacity or block["fades"]
        expected = sums[:, 13].clamp(0, 1) * share if written else untouched
        # Worst of three instruction sets, measured: 8e-7, where the fading is steep.
        close(result["opacities"][own], expected, atol=4e-6)
        first += count
    for tensor in result.values():
        assert bool((tensor[first:] == -7.0).all()), "rows after the moving ones were written"


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-5)


def check_discs(quats, scales, axes, block):
    """The ellipse of p and q, its half axes within limits, as a rotation and two scales."""
    assert torch.allclose(quats.norm(dim=-1), torch.ones(len(quats)), atol=1e-6)
    rotation = matrices_from_quats_wxyz(quats).double()
    of_disc = rotation.transpose(1, 2) @ covariance_mm2(axes) @ rotation
    # Principal axes: no mixed terms, and no extent along the normal.
    scale = of_disc.diagonal(dim1=1, dim2=2).amax(-1)[:, None]
    mixed = torch.stack([of_disc[:, 0, 1], of_disc[:, 0, 2], of_disc[:, 1, 2], of_disc[:, 2, 2]], 1)
    # The square root of a float's precision: the angle of an almost round disc hardly matters.
    assert float((mixed / scale).abs().max()) < 2e-6
    sizes = of_disc.diagonal(dim1=1, dim2=2)[:, :2].clamp(min=0).sqrt().float()
    assert bool((sizes[:, 0] >= sizes[:, 1] * 0.999).all())
    low, high = block["limits"].float().split(1, -1)
    expected = torch.minimum(torch.maximum(sizes, low), high)
    # The shorter half axis of a thin disc is known to some 1e-4 mm.
    close(1e3 * scales[:, :2], expected, atol=2e-4)


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_results_do_not_depend_on_threads_or_earlier_calls(basis, instruction_set):
    inputs = np.linspace(-1, 1, NUM_INPUTS, dtype=np.float32)
    one = evaluated(basis, inputs, instruction_set=instruction_set)
    evaluated(basis, 2 * inputs, instruction_set=instruction_set)
    many = evaluated(basis, inputs, instruction_set=instruction_set, num_threads=3)
    assert all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_a_disc_without_extent_stays_finite(instruction_set):
    """Given p along x and q = 0, then q along z, then nothing at all: no NaN, unit quaternions."""
    rest = torch.zeros(3, 14)
    rest[:2, 3], rest[1, 8] = 1.0, 1e-4
    block = {
        "rest": rest,
        "limits": torch.tensor([[0.125, 2.0]] * 3),
        "components": [torch.zeros(3, k, w) for k, w in zip((0, 1, 0, 0, 0), WIDTHS, strict=True)],
        "inverse_area": torch.ones(3),
        "ranks": (0, 1, 0, 0, 0),
        "fades": 1,
    }
    stream, positions = lay_out([block])
    basis = LinearBasis(
        np.array([3], np.int32), np.array([block["ranks"]], np.int32), np.array([1], np.int32),
        stream, positions, torch.zeros(1, 2).half(), FADE_FROM, FADE_TO,
    )  # fmt: skip
    result = evaluated(basis, np.zeros(2, np.float32), instruction_set=instruction_set)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in result.values())
    torch.testing.assert_close(result["quats_wxyz"][:3].norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(1e3 * result["scales"][0, :2], torch.tensor([1.0, 0.125]))
    assert bool((result["opacities"][:3] == 0).all()), "folded discs have faded"


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_half_floats_of_all_kinds_are_read(instruction_set):
    """Subnormal, smallest, negative and largest halves come out as the numbers they are."""
    values = torch.tensor([0.0, -0.0, 6e-8, -3e-5, 6.1e-5, 1.0, -2.5, 65504.0]).half()
    stream = torch.zeros(2, 3, LANES, dtype=torch.half)
    stream[0, 0, : len(values)] = values
    basis = LinearBasis(
        np.array([8], np.int32), np.array([[0, 0, 0, 1, 0]], np.int32), np.zeros(1, np.int32),
        stream.flatten(), torch.zeros(0), torch.zeros(1, 1).half(), FADE_FROM, FADE_TO,
    )  # fmt: skip
    result = evaluated(basis, np.ones(1, np.float32), instruction_set=instruction_set)
    assert torch.equal(result["colors"][:8, 0], values.float())


def test_sizes_that_do_not_fit_are_refused(basis):
    fields = {name: getattr(basis, name) for name in basis.__dataclass_fields__}
    for name, value, message in (
        ("stream", basis.stream[:-1], "rows of the stream"),
        ("positions", basis.positions[:-1], "rows of the positions"),
        ("map", basis.map[:-1], "rows of the map"),
        ("ranks", basis.ranks - 1, "ranks of at least 0"),
        ("ranks", basis.ranks + 65, "ranks up to 64"),
        ("counts", basis.counts * 0, "at least one Gaussian"),
        ("map", torch.zeros(len(basis.map), 300).half(), "at most 256 inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            LinearBasis(**(fields | {name: value}))
    good = outputs(basis.num_gaussians)
    with pytest.raises(ValueError, match="expected 21 inputs"):
        basis.evaluate(np.zeros(20, np.float32), **good)
    short = good | {"means": good["means"][:-1]}
    with pytest.raises(ValueError, match="expected means contiguous float32"):
        basis.evaluate(np.zeros(21, np.float32), **short)
    with pytest.raises(ValueError, match="expected scales contiguous float32"):
        basis.evaluate(np.zeros(21, np.float32), **(good | {"scales": good["scales"].double()}))
    with pytest.raises(ValueError, match="expected an instruction set"):
        basis.evaluate(np.zeros(21, np.float32), **good, instruction_set="mmx")


def test_a_quarter_turn_of_the_inputs_shows_in_the_sizes(basis):
    """Guards the test itself: other inputs must give other results."""
    a = evaluated(basis, np.zeros(NUM_INPUTS, np.float32))
    b = evaluated(basis, np.full(NUM_INPUTS, 0.5, np.float32))
    assert not torch.equal(a["means"], b["means"])
    assert not torch.equal(a["scales"], b["scales"])
    assert math.isfinite(float(b["scales"].sum()))
