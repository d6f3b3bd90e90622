"""What a synthetic person's skin, eyes and mouth look like: one colour per texel of the template.

Everything is a function of the place on the *mean* head (metres, head frame), so the same cheek is
the same cheek on every person. Colours are linear RGB.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.template_surface import (
    BLOTCH_M,
    EYES,
    PORE_M,
    TemplateSurface,
    middle,
    template_surface,
)
from avat3r_ros.rig import REGIONS, HeadTemplate

_SKIN_TONES = np.array(
    [
        [244, 213, 196], [233, 193, 170], [222, 174, 145], [205, 152, 120],
        [180, 126, 94], [146, 98, 70], [112, 73, 52], [82, 54, 40],
    ]
)  # fmt: skip
"""From light to dark, sRGB bytes; a person lies somewhere between two neighbours."""

_IRIS_COLORS = np.array(
    [[84, 52, 30], [110, 74, 40], [100, 98, 60], [86, 112, 92], [88, 120, 150], [120, 134, 142]]
)
_HAIR_COLORS = np.array(
    [
        [24, 20, 18], [40, 28, 22], [70, 46, 30], [104, 70, 42], [150, 110, 64], [196, 160, 104],
        [140, 66, 34], [150, 146, 142], [205, 202, 198],
    ]
)  # fmt: skip

_BROW_TO_SKIN = 0.4
"""Brightest brows relative to the skin, linear light."""

IRIS_RADIUS_M, IRIS_LOG_SPREAD = 0.00585, 0.036
"""Half the width of the visible iris, nearly alike in all adults whatever the size of their heads
(11.71 mm, standard deviation 0.42 mm: Ruefer et al., Cornea 2005)."""


def linear_from_srgb8(color: Num[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Linear light of sRGB bytes, with the gamma of 2 that `shading` undoes by a square root."""
    return (np.asarray(color, np.float32) / 255) ** 2


@dataclass(frozen=True)
class Appearance:
    """The colours of one person.

    Attributes:
        albedo: Linear RGB of each texel of the template.
        hair: Linear RGB of the scalp hair, before strand variation.
        style: One of `hair.STYLES`.
        gloss: Strength of the skin's highlight, about 0.02 to 0.15.
    """

    albedo: Float[np.ndarray, "m 3"]
    hair: Float[np.ndarray, "3"]
    style: str
    gloss: float


def random_appearance(
    rng: np.random.Generator,
    template: HeadTemplate,
    style: str,
    vertices: Float[np.ndarray, "v 3"],
) -> Appearance:
    """Draw the looks of a person.

    Args:
        rng: Source of all choices.
        template: Head template under the person.
        style: Hair style, one of `hair.STYLES`.
        vertices: The person at rest, metres: what is as wide in everybody (the iris) takes another
            share of each head.
    """
    surface = template_surface(template)
    points = surface.points
    tone = rng.uniform(0, len(_SKIN_TONES) - 1.001)
    low = int(tone)
    skin_color = linear_from_srgb8(
        _SKIN_TONES[low] + (tone - low) * (_SKIN_TONES[low + 1] - _SKIN_TONES[low])
    ) * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    hair_color = linear_from_srgb8(_hair_color(rng, tone))

    albedo = _skin(surface, skin_color, tone, rng)
    _paint_spots(surface, albedo, tone, rng)
    bearded = rng.random() < 0.45
    _paint_lips(surface, albedo, rng, lipstick=not bearded and rng.random() < 0.25)
    if bearded:
        _paint_beard(surface, albedo, hair_color, rng)
    _paint_scalp(surface, albedo, hair_color, style, rng)
    _paint_brows(surface, albedo, hair_color, rng)
    _paint_lids(surface, albedo, hair_color, rng)
    iris = _IRIS_COLORS[rng.integers(0, 2 if tone > 3 else len(_IRIS_COLORS))]
    iris_color = linear_from_srgb8(iris * rng.uniform(0.8, 1.15))
    _paint_eyes(surface, albedo, iris_color, vertices, rng)
    _paint_mouth(surface, albedo, points, rng)
    np.clip(albedo, 0.0, 1.0, out=albedo)
    return Appearance(albedo, hair_color, style, float(rng.uniform(0.03, 0.12)))


def _hair_color(rng: np.random.Generator, tone: float) -> np.ndarray:
    """Darker skin goes with darker hair; grey hair with any."""
    grey = rng.random() < 0.12
    choice = rng.integers(7, 9) if grey else rng.integers(0, 7 if tone < 3 else 3)
    return _HAIR_COLORS[choice] * rng.uniform(0.85, 1.15)


def _blob(points: np.ndarray, center: tuple[float, float, float], radius_m: float) -> np.ndarray:
    """Gaussian bump mirrored to both sides of the face."""
    x, y, z = np.array(center, np.float32)
    squared = (np.abs(points[:, 0]) - x) ** 2
    squared += (points[:, 1] - y) ** 2
    squared += (points[:, 2] - z) ** 2
    return np.exp(-squared / (2 * radius_m**2))


def _step(value: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Smooth 0 -> 1 as `value` goes from low to high (also where low > high)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _mix(albedo: np.ndarray, color: np.ndarray, amount: np.ndarray) -> None:
    rows = np.flatnonzero(amount)  # a few percent, mostly
    share = amount[rows, None].astype(np.float32)
    albedo[rows] += (np.asarray(color, np.float32) - albedo[rows]) * share


def _skin(
    surface: TemplateSurface, color: np.ndarray, tone: float, rng: np.random.Generator
) -> np.ndarray:
    points = surface.points
    # Melanin darkens all channels, most the blue; blood takes green and blue away.
    melanin = (
        0.04 * surface.smooth_noise(0.03, rng)
        + rng.uniform(0.008, 0.02) * surface.noise.mixture(BLOTCH_M, rng)
        + rng.uniform(0.012, 0.035) * surface.noise.mixture(PORE_M, rng)
    )
    flush = rng.uniform(0.5, 1.4)
    blood = flush * (
        0.16 * _blob(points, (0.042, -0.035, -0.005), 0.016)
        + 0.14 * _blob(points, (0.0, -0.032, 0.02), 0.012)
        + 0.10 * _blob(points, (0.0, -0.105, 0.0), 0.012)
        + 0.15 * surface.regions["ears"]
        + 0.03 * surface.smooth_noise(0.02, rng)
        + rng.uniform(0.005, 0.025) * surface.noise.mixture(BLOTCH_M, rng)
    )
    blood += 0.12 * np.maximum(surface.regions["lid_left"], surface.regions["lid_right"])
    shadow = rng.uniform(0.05, 0.22) * _blob(points, (0.028, -0.017, -0.004), 0.008)
    shadow += 0.7 * _blob(points, (0.0075, -0.042, 0.012), 0.0032)  # nostrils
    weight = 1.0 / (1.0 + 0.25 * tone)
    log_albedo = -np.outer(melanin + shadow, [0.9, 1.1, 1.3])
    log_albedo -= weight * np.outer(blood, [0.1, 1.0, 0.9])
    return (color * np.exp(log_albedo)).astype(np.float32)


def _paint_spots(
    surface: TemplateSurface, albedo: np.ndarray, tone: float, rng: np.random.Generator
) -> None:
    """Freckles over nose and cheeks of some, and a few moles anywhere."""
    skin = np.flatnonzero(surface.hard_regions == REGIONS.index("skin"))
    freckled = tone < 3.5 and rng.random() < 0.35
    candidates = skin[rng.integers(0, len(skin), 900 if freckled else 60)]
    place = surface.points[candidates]
    chance = np.exp(-(((place - [0, -0.02, 0.0]) / [0.05, 0.025, 0.03]) ** 2).sum(-1))
    freckles = candidates[rng.random(len(candidates)) < chance * (0.8 if freckled else 0.1)]
    moles = skin[rng.integers(0, len(skin), rng.integers(0, 7))]
    for centers, radius_m, spread, depth in (
        (freckles, 0.0009, 0.4, rng.uniform(0.15, 0.45)),
        (moles, 0.0016, 0.3, 0.9),
    ):
        for center in centers:
            radius = radius_m * rng.lognormal(0, spread)
            near = surface.tree.query_ball_point(surface.points[center], 2.2 * radius)
            near = np.array(near)
            distance = np.linalg.norm(surface.points[near] - surface.points[center], axis=1)
            amount = depth * np.exp(-((distance / radius) ** 2))
            albedo[near] *= np.exp(-np.outer(amount, [0.7, 1.0, 1.2])).astype(np.float32)


def _paint_lips(
    surface: TemplateSurface, albedo: np.ndarray, rng: np.random.Generator, *, lipstick: bool
) -> None:
    amount = _step(surface.regions["lips"], 0.15, 0.85)
    if lipstick:
        color = linear_from_srgb8(rng.uniform([130, 20, 30], [200, 70, 90]))
        _mix(albedo, color, 0.75 * amount)
        return
    strength = rng.uniform(0.35, 0.75)
    creases = 0.08 * surface.noise.mixture(PORE_M, rng)
    tint = np.outer(strength * amount * (1 + creases), [0.25, 1.0, 0.75])
    albedo *= np.exp(-tint).astype(np.float32)


def _beard_mask(points: np.ndarray) -> np.ndarray:
    """Where a beard grows: from the sideburns along the jaw, chin, throat and over the lip."""
    side, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    # The upper edge runs from the sideburn (in front of the ear) to the corner of the mouth.
    edge = np.interp(z, [-0.09, -0.062, -0.04, -0.02, -0.008], [0.0, -0.022, -0.05, -0.062, -0.068])
    jaw = _step(y, edge + 0.006, edge - 0.006)
    lip = _step(y + 0.25 * side, -0.038, -0.050) * _step(side, 0.036, 0.018)
    lip *= _step(z, -0.014, -0.004)
    lip *= 1 - 0.7 * _step(side, 0.004, 0.0) * _step(y, -0.066, -0.058)
    throat = _step(y, -0.145, -0.12) * _step(z, -0.1, -0.08)
    soul = 1 - 0.6 * _step(np.abs(y + 0.092), 0.008, 0.002) * _step(side, 0.008, 0.016)
    return np.maximum(jaw * soul, lip) * throat


def _paint_beard(
    surface: TemplateSurface, albedo: np.ndarray, hair: np.ndarray, rng: np.random.Generator
) -> None:
    mask = _beard_mask(surface.points) * (1 - _step(surface.regions["lips"], 0.1, 0.6))
    mask *= (surface.regions["skin"] + surface.regions["neck"]).clip(0, 1)
    density = rng.uniform(0.12, 0.75)
    stubble = 0.5 + 0.5 * np.tanh(1.5 * surface.noise.mixture(PORE_M, rng))
    patches = (1 + 0.3 * surface.smooth_noise(0.012, rng)).clip(0.2, 1.3)
    _mix(albedo, hair * 0.8, (mask * density * patches * (0.55 + 0.45 * stubble)).clip(0, 0.92))


def _paint_scalp(
    surface: TemplateSurface,
    albedo: np.ndarray,
    hair: np.ndarray,
    style: str,
    rng: np.random.Generator,
) -> None:
    """Hair roots: faint stubble on a bald scalp, nearly opaque under hair."""
    ragged = 0.12 * surface.smooth_noise(0.01, rng) + 0.08 * surface.noise.mixture(BLOTCH_M, rng)
    mask = _step(surface.regions["scalp"] + ragged, 0.25, 0.8)
    if style == "bald":
        crown = _step(surface.points[:, 1], 0.03, 0.075)  # hair is lost from the crown down
        mask = mask * (rng.uniform(0.1, 0.4) + rng.uniform(0.0, 0.4) * (1 - crown))
    roots = 0.85 + 0.15 * np.tanh(surface.noise.mixture(PORE_M, rng))
    _mix(albedo, hair * 0.75, (mask * roots).clip(0, 0.95))


def _paint_brows(
    surface: TemplateSurface, albedo: np.ndarray, hair: np.ndarray, rng: np.random.Generator
) -> None:
    points = surface.points
    rows = np.flatnonzero(
        (points[:, 1] > -0.002) & (points[:, 1] < 0.035) & (points[:, 2] > -0.035)
        & (surface.regions["skin"] + surface.regions["brows"] > 0.3)
    )  # fmt: skip
    side, height = np.abs(points[rows, 0]), points[rows, 1]
    inner, outer = rng.uniform(0.0115, 0.0155), rng.uniform(0.047, 0.053)
    middle = np.polynomial.polynomial.polyval(side, surface.brow_line) + rng.normal(0, 0.0012)
    middle += rng.uniform(-0.05, 0.09) * (side - 0.03)  # straight or arched
    along = (side - inner) / (outer - inner)
    half = rng.uniform(0.0026, 0.0048) * (1 - 0.55 * along.clip(0, 1) ** 1.5)
    across = (height - middle) / half
    # Hairs lean outwards: noise stretched along a direction that turns from up to sideways.
    lean = 0.9 - 0.75 * along.clip(0, 1)
    stroke = np.stack([side - lean * (height - middle), 0.25 * (height - middle)], -1)
    hairs = value_noise(stroke.astype(np.float32), 0.0008, rng)
    density = _step(along, -0.06, 0.12) * _step(along, 1.08, 0.8)
    density = density * _step(np.abs(across) - 0.16 * hairs, 1.25, 0.55) * (0.86 + 0.14 * hairs)
    strands = np.zeros(len(points), np.float32)
    strands[rows] = density * rng.uniform(0.7, 0.95)
    # Brows stay readable: even grey ones are clearly darker than the skin around them.
    skin = albedo[rows].mean()
    color = hair * min(0.7, _BROW_TO_SKIN * float(skin / hair.mean()))
    _mix(albedo, color, strands.clip(0, 1))


def _paint_lids(
    surface: TemplateSurface, albedo: np.ndarray, hair: np.ndarray, rng: np.random.Generator
) -> None:
    """Lashes, the dark line they root in, and pink around the eyeball."""
    regions = surface.regions
    _mix(albedo, np.array([0.010, 0.008, 0.007]), _step(regions["eyelashes"], 0.5, 0.9))
    _mix(albedo, np.array([0.22, 0.09, 0.08]), 0.9 * _step(regions["eye_sockets"], 0.3, 0.9))
    upper, lower = surface.to_lashes
    reach = rng.uniform(0.0011, 0.0018)
    line = rng.uniform(0.8, 0.97) * _step(upper, 1.3 * reach, 0.75 * reach)
    line = np.maximum(line, rng.uniform(0.1, 0.5) * _step(lower, 1.1 * reach, 0.6 * reach))
    painted = np.zeros(len(albedo), np.float32)
    painted[surface.lids] = line
    _mix(albedo, 0.3 * hair, painted)


def _paint_eyes(
    surface: TemplateSurface,
    albedo: np.ndarray,
    iris_color: np.ndarray,
    vertices: np.ndarray,
    rng: np.random.Generator,
) -> None:
    pupil = rng.uniform(0.30, 0.45)
    fibres = rng.normal(size=160)
    white = linear_from_srgb8(np.array([232, 226, 220]) * rng.uniform(0.92, 1.03))
    # Drawn apart, so that a seed's person keeps all other looks.
    iris_m = IRIS_RADIUS_M * np.exp(IRIS_LOG_SPREAD * rng.spawn(1)[0].normal())
    for side, name in enumerate(EYES):
        rows = np.flatnonzero(surface.hard_regions == REGIONS.index(name))
        direction = surface.points[rows] - surface.eye_centers[side]
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        angle = np.arccos(direction[:, 2].clip(-1, 1))
        around = np.arctan2(direction[:, 1], direction[:, 0])
        fibre = np.interp(around, np.linspace(-np.pi, np.pi, len(fibres)), fibres)
        color = np.tile(white, (len(rows), 1))
        veins = value_noise(surface.points[rows], 0.002, rng)
        redness = (0.10 + 0.06 * veins) * _step(angle, 0.5, 1.1)
        color *= np.exp(-np.outer(redness, [0.15, 1.0, 0.9]))
        eye = vertices[surface.eye_vertices[side]]
        radius = angle / np.arcsin(iris_m / np.linalg.norm(eye - middle(eye), axis=1).mean())
        glow = (0.75 + 0.18 * fibre * _step(radius, 0.3, 0.7)) * (1.3 - 0.45 * radius)
        limbus = 1 - 0.7 * _step(radius, 0.74, 1.0)
        inside = _step(radius, 1.06, 0.94)[:, None]
        color += (np.outer(glow * limbus, iris_color) - color) * inside
        color *= 1 - 0.985 * _step(radius, pupil * 1.12, pupil * 0.9)[:, None]
        # The upper lid and its lashes keep light away from the top of the eyeball.
        color *= (1 - 0.45 * _step(direction[:, 1], 0.02, 0.42))[:, None]
        albedo[rows] = color


def _paint_mouth(
    surface: TemplateSurface, albedo: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> None:
    """Teeth with gaps, tongue, and a throat that gets no light."""
    depth = points[:, 2]
    rows = np.flatnonzero(surface.hard_regions == REGIONS.index("teeth"))
    shade = rng.uniform(0.85, 1.0)
    ivory = linear_from_srgb8(np.array([228, 218, 196]) * shade)
    along = np.arctan2(points[rows, 0], points[rows, 2] + 0.05)  # around the dental arch
    gap = np.abs(((along / 0.17) % 1.0) - 0.5)
    color = ivory * (1 - 0.35 * _step(gap, 0.42, 0.5))[:, None]
    albedo[rows] = color * _step(depth[rows], -0.045, -0.01)[:, None]
    rows = np.flatnonzero(surface.hard_regions == REGIONS.index("tongue"))
    rough = 1 + 0.1 * surface.noise.mixture(PORE_M, rng)[rows]
    color = linear_from_srgb8(np.array([178, 92, 92])) * rough[:, None]
    albedo[rows] = color * _step(depth[rows], -0.06, -0.015)[:, None]
    rows = np.flatnonzero(surface.hard_regions == REGIONS.index("inner_mouth"))
    color = linear_from_srgb8(np.array([120, 52, 50]))
    albedo[rows] = color * (0.04 + 0.96 * _step(depth[rows], -0.03, -0.002))[:, None]
