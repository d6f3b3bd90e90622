"""Make the reference views agree in colour, so that no seam shows where one takes over.

Photos differ in exposure, white balance and light. Each view keeps its own detail and takes its
low frequencies from a consensus of all views: the two-band case of multi-band blending (Burt and
Adelson, "A multiresolution spline with application to image mosaics", 1983), done on the head
template's mesh instead of on a flat image.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse

from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

SMOOTHING_STEPS = 24
"""Diffusion steps over the mesh; with vertices 4 to 8 mm apart, a blur of about 20 mm. Ours: fewer
copy one view's shading detail into another, more leave seams under side light."""

MAX_LOG_GAIN = 1.0
"""Largest correction, a factor of e: beyond it a view is better replaced than repaired."""

DARKEST = 0.02
"""Colours below this are lifted before taking logarithms."""

UNTRUSTED_REGIONS = ("eye_left", "eye_right", "eyelashes", "inner_mouth", "teeth", "tongue")
"""What they show depends on the expression, not on the light."""


def harmonize_colors(views: ReferenceViews, template: HeadTemplate) -> ReferenceViews:
    """Return the views with their low-frequency colours brought to a common consensus.

    Args:
        views: With position binding and confidence; images RGB in [0, 1].
        template: Whose triangles the binding refers to.

    Returns:
        The same views with other `images`. Pixels off the template get their view's mean gain.
    """
    triangles = template.triangles.numpy()
    num_vertices = template.neutral.shape[0]
    untrusted = template.region_mask(*UNTRUSTED_REGIONS).numpy()
    diffusion = _diffusion(triangles, num_vertices)

    pixels = [_bound_pixels(views, view, untrusted) for view in range(len(views.images))]
    tones, weights, claims = [], [], []
    for ids, barycentrics, log_colors, confidence in pixels:
        corners = triangles[ids]
        scatter = sparse.csr_matrix(
            (barycentrics.ravel(), (corners.ravel(), np.repeat(np.arange(len(ids)), 3))),
            shape=(num_vertices, len(ids)),
        )
        weight = scatter @ np.ones(len(ids))
        values = np.concatenate([log_colors, confidence[:, None]], 1)
        smooth, reach = _smooth(diffusion, scatter @ values, weight)
        tones.append(smooth[:, :3])
        weights.append(reach)
        claims.append(smooth[:, 3])

    # A view speaks for a vertex as far as it claims the surface there; a little everywhere it sees,
    # so that a vertex nobody claims is still defined.
    voice = np.stack(claims) + 1e-2 * (np.stack(weights) > 0)
    total = voice.sum(0)
    consensus = np.einsum("vn,vnc->nc", voice, np.stack(tones)) / np.maximum(total, 1e-9)[:, None]

    images = views.images.clone()
    for view, tone in enumerate(tones):
        known = weights[view] > 0
        if not known.any():
            continue
        correction = np.clip(consensus - tone, -MAX_LOG_GAIN, MAX_LOG_GAIN)
        seen = known & (total > 0)
        mean = np.average(correction[seen], axis=0, weights=np.minimum(weights[view][seen], 1.0))
        correction[~seen] = mean
        images[view] = _corrected(views, view, triangles, correction, mean)
    return dataclasses.replace(views, images=images)


def _bound_pixels(views: ReferenceViews, view: int, untrusted: np.ndarray) -> tuple:
    """Triangle, barycentrics, log colour and confidence of a view's trusted skin pixels."""
    ids = views.binding.triangle_ids[view].numpy().reshape(-1)
    keep = (ids >= 0) & (views.masks[view, 0].numpy().reshape(-1) > 0.9)
    keep[keep] &= ~untrusted[ids[keep]]
    colors = views.images[view].permute(1, 2, 0).reshape(-1, 3).numpy()[keep]
    return (
        ids[keep],
        views.binding.barycentrics[view].reshape(-1, 3).numpy()[keep],
        np.log(np.maximum(colors, DARKEST)),
        views.confidence[view, 0].numpy().reshape(-1)[keep],
    )


def _diffusion(triangles: np.ndarray, num_vertices: int) -> sparse.csr_matrix:
    """One step of averaging each vertex with its neighbours; rows sum to 1."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    adjacency = sparse.csr_matrix(
        (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(num_vertices, num_vertices)
    )
    adjacency.data[:] = 1.0
    matrix = adjacency + sparse.identity(num_vertices, format="csr")
    return sparse.diags(1.0 / np.asarray(matrix.sum(1)).ravel()) @ matrix


def _smooth(
    diffusion: sparse.csr_matrix, sums: Float[np.ndarray, "n c"], weight: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n"]]:
    """Blur weighted sums and weights alike, and divide: holes are filled from their rim."""
    both = np.column_stack([sums, weight])
    for _ in range(SMOOTHING_STEPS):
        both = diffusion @ both
    sums, weight = both[:, :-1], both[:, -1]
    known = weight > 1e-6
    return np.where(known[:, None], sums / np.maximum(weight, 1e-9)[:, None], 0), weight * known


def _corrected(
    views: ReferenceViews,
    view: int,
    triangles: np.ndarray,
    correction: np.ndarray,
    mean: np.ndarray,
) -> Float[torch.Tensor, "3 h w"]:
    """Apply a per-vertex log gain to one image; the mean gain where it is off the template."""
    ids = views.binding.triangle_ids[view].numpy()
    barycentrics = views.binding.barycentrics[view].numpy()
    on = ids >= 0
    gain = np.tile(mean, (*ids.shape, 1))
    gain[on] = np.einsum("nkc,nk->nc", correction[triangles[ids[on]]], barycentrics[on])
    factor = torch.from_numpy(np.exp(gain).astype(np.float32)).permute(2, 0, 1)
    return (views.images[view] * factor).clamp(0, 1)
