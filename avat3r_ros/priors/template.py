"""Position maps from the fitted head template: where on the head each reference pixel lies.

crops, cameras, codes ──rasterize──► surface point, triangle, barycentrics of each pixel
                      ──hair──────► the scalp is lifted to where the mattes show hair; what hangs
                                    beside the head is put where no photo denies it
                      ──claims────► which of several views may speak for a surface point
"""

from functools import partial

import cv2
import numpy as np
import torch

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.parallel import in_threads
from avat3r_ros.priors.free_hair import MATTE_TOLERANCE_M, place_free_hair
from avat3r_ros.priors.hair import hair_thickness
from avat3r_ros.priors.view import ReferenceView
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import HeadCrops, ReferenceViews, SurfaceBinding

OFF_MESH_CONFIDENCE = 0.55
"""Of pixels off the mesh: just kept, and drawn fainter than the face."""

OWNER_RADIUS_M = 0.02
"""Size of the neighbourhood on the mesh that decides which view shows what is off the mesh."""

FRONTAL_BONUS = 0.4
"""Advantage (in cosine) of the most frontal photo with open eyes. The face then comes from one
photo: each photo's fit errs by another millimetre or degree, and patches show it."""

BONUS_FROM, BONUS_WHOLE = 0.3, 0.6
"""Cosines at which a bonus begins and is whole, so that seams run where the frontal photo sees the
head some 57 degrees aslant, wherever the others stand. (Of left-out photos of five people, a bonus
of 0.22 on everything gave 23.20 dB, landmarks 1.00 px off; 0.4 on everything 23.41 dB and 1.02 px,
but smeared temples; this 23.38 dB and 0.96 px.)"""

CLOSED_EYES_MALUS, MISFIT_MALUS = 1 - np.cos(np.radians(30)), 200.0
"""By how much (in cosine) closed eyes count against the frontal photo, and each metre that the
fitted head is off its landmarks: a millimetre is as much as 37 degrees. What a photo's code does
not say of its expression, as one brow raised, would stay in every other expression."""

GUESSED_MALUS = 0.12
"""Disadvantage (in cosine) of views that nobody photographed: beside the frontal bonus of a single
photo it leaves them what the photo sees more than some 65 degrees aslant."""

OVERLAP = 0.02
"""Advantage (in cosine) that another view needs to take a pixel over. Two views share the seam by
this much, so that no crack opens between their pixel grids."""

GUESSED_OVERLAP = 0.08
"""Likewise where one of the two was guessed from the other, so that both show the same."""


def position_maps(crops: HeadCrops, template: HeadTemplate) -> ReferenceViews:
    """Place every pixel of the crops on the fitted head.

    Args:
        crops: V fitted views.
        template: The head model of the fit.

    Returns:
        The crops with position maps. Confidence is above 0.5 where a pixel should be used: in the
        view that shows its surface point best, and below where another view shows it better. Hair
        is bound to the scalp beneath it, so its positions lie outside the template's surface. What
        lies off the mesh and its hair has triangle -1 and `OFF_MESH_CONFIDENCE`.
    """
    views = in_threads(partial(ReferenceView, crops, template), range(len(crops.codes)))
    normals = template.coarse_normals(crops.identity).numpy()
    if crops.hair_thickness_m is not None:
        thickness = crops.hair_thickness_m.double().numpy()
    else:
        thickness = hair_thickness(views, template, normals)
    if thickness.any():
        offset = thickness[:, None] * normals
        in_threads(lambda view: view.draw(offset), views)
        if crops.hair_thickness_m is not None:
            normals = template.coarse_normals(
                crops.identity, torch.from_numpy(offset).float()
            ).numpy()
    place_free_hair(views)
    num_photos = len(views) - crops.num_guessed
    for view in views[num_photos:]:
        view.guessed, view.bonus = True, -GUESSED_MALUS
    residuals = None if crops.residuals_m is None else crops.residuals_m[:num_photos].numpy()
    _prefer_frontal(views[:num_photos], crops.codes[:num_photos].numpy(), residuals)
    confidence = np.stack(in_threads(lambda view: _confidence(view, views, normals), views))
    positions = np.stack([view.points for view in views])
    inside = np.stack([view.mask > 0 for view in views])
    ids = np.where(inside, np.stack([view.ids for view in views]), -1)
    weights = np.where(ids[..., None] >= 0, np.stack([view.weights for view in views]), 0)
    return ReferenceViews(
        images=crops.images,
        masks=crops.masks,
        cameras=crops.cameras,
        codes=crops.codes,
        position_maps=torch.from_numpy(
            (positions * inside[..., None]).transpose(0, 3, 1, 2).astype(np.float32)
        ),
        confidence=torch.from_numpy((confidence * inside).astype(np.float32))[:, None],
        binding=SurfaceBinding(
            triangle_ids=torch.from_numpy(ids.astype(np.int64)),
            barycentrics=torch.from_numpy(weights.astype(np.float32)),
        ),
        identity=crops.identity,
        num_guessed=crops.num_guessed,
        hair_thickness_m=torch.from_numpy(thickness).float(),
        told=crops.told,
    )


def _prefer_frontal(
    views: list[ReferenceView], codes: np.ndarray, residuals_m: np.ndarray | None
) -> None:
    """Give the most frontal view its bonus, less what counts against it.

    Level is the views' median height: cameras stand below or above the eyes, and what one photo
    gets wrong in depth shows least in the others if it stands among them.
    """
    blinks = codes[:, [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]].max(1)
    toward = np.stack([view.center / np.linalg.norm(view.center) for view in views])
    height = np.median(toward[:, 1])
    front = np.array([0.0, height, np.sqrt(1 - height**2)])
    frontal = toward @ front - CLOSED_EYES_MALUS * blinks
    # Of two photos neither is the odd one.
    if residuals_m is not None and len(views) > 2:
        frontal -= MISFIT_MALUS * residuals_m
    views[int(np.argmax(frontal))].bonus = FRONTAL_BONUS


def _score(view: ReferenceView, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """How well a view shows surface points: cosine of the angle, and its bonus."""
    cosine = view.facing(points, normals)
    if view.bonus <= 0:
        return cosine + view.bonus
    return cosine + view.bonus * np.interp(cosine, (BONUS_FROM, BONUS_WHOLE), (0, 1))


def _confidence(view: ReferenceView, views: list[ReferenceView], normals: np.ndarray) -> np.ndarray:
    """How far each pixel of a view may speak for what it shows, (H, W).

    All views score a surface point alike, so what one view leaves another keeps: a point goes to
    the view with the highest score among those that see it.
    """
    confidence = np.zeros_like(view.mask)
    on = view.on_mesh & (view.mask > 0)
    corners = view.triangles[view.ids[on]]
    weights = view.weights[on]
    coarse = np.einsum("nk,nkc->nc", weights, normals[corners])
    own = _score(view, view.points[on], coarse)
    overlap = np.full(len(own), OVERLAP)
    rival = np.full(len(own), -np.inf)
    for other in views:
        if other is not view:
            points = np.einsum("nk,nkc->nc", weights, other.vertices[corners])
            score = _score(other, points, coarse)
            score = np.where(other.sees(points), score, -np.inf)
            overlap[score > rival] = GUESSED_OVERLAP if view.guessed or other.guessed else OVERLAP
            rival = np.maximum(rival, score)
    lead = own - rival
    wins = 0.55 + 0.45 * own.clip(0, 1)
    loses = 0.45 * np.exp(np.minimum(lead + overlap, 0) / 0.1)
    confidence[on] = np.where(lead >= -overlap, wins, loses)

    off = ~view.on_mesh & (view.mask > 0)
    if not on.any():
        return confidence
    # What is off the mesh goes to the view that owns most of the mesh next to it.
    reach = OWNER_RADIUS_M / view.pixel_size_m()
    side = 2 * round(6 * reach) + 1
    owned, present = (
        cv2.GaussianBlur(
            part.astype(np.float32), (side, side), reach, borderType=cv2.BORDER_REFLECT
        )
        for part in (on & (confidence > 0.5), on)
    )
    supported = (owned > 0.5 * present)[off]
    for other in views:
        if other is not view and not other.guessed:
            # What another photo shows as background is not there.
            row, column, inside, _ = other.pixels_of(view.points[off])
            supported &= ~inside | (other.outside_m[row, column] < MATTE_TOLERANCE_M)
    supported |= view.free_hair[off]  # of which the other photos were asked already
    confidence[off] = np.where(supported, OFF_MESH_CONFIDENCE, 0.2)
    return confidence
