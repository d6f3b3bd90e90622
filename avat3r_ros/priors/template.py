"""Position maps from the fitted head template: where on the head each reference pixel lies.

crops, cameras, codes ──rasterize──► surface point, triangle, barycentrics of each pixel
                      ──hair──────► pixels inside the matte but off the mesh
                      ──claims────► which of several views may speak for a surface point
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt

from avat3r_ros import native
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import invert_pose
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import HeadCrops, ReferenceViews, SurfaceBinding

SKULL_CENTER_HEAD_M = np.array([0.0, 0.025, -0.085])
SKULL_RADII_M = np.array([0.078, 0.105, 0.1])
"""Ellipsoid about the mean skull. Hair lies on larger copies of it."""

CONTINUATION_M = 0.012
"""How far from the mesh its depth still governs the depth of hair."""

HAIR_CONFIDENCE = 0.55
"""Of pixels off the mesh: just kept, and drawn fainter than the face."""

HAIR_TOLERANCE_M = 0.012
"""How far outside another photo's matte hair may project: fits of skulls and hair are that good."""

FRONTAL_BONUS = 0.15
"""Advantage (in cosine) of the most frontal photo with open eyes. The middle of the face then comes
from one photo, and seams run down the cheeks where the side views are clearly better."""

OVERLAP = 0.04
"""Advantage (in cosine) that another view needs to take a pixel over. Two views share the seam by
this much, so that no crack opens between their pixel grids."""

DEPTH_TOLERANCE_M = 0.004
"""Surface points this close behind the nearest one are still seen by a view."""

NORMAL_SMOOTHING_STEPS = 25
"""Claims follow the coarse shape of the head: with its fine normals they would form patches."""


def position_maps(crops: HeadCrops, template: HeadTemplate) -> ReferenceViews:
    """Place every pixel of the crops on the fitted head.

    Args:
        crops: V fitted views.
        template: The head model of the fit.

    Returns:
        The crops with position maps. Confidence is above 0.5 where a pixel should be used: in the
        view that faces its surface point best, and below where another view sees the point better
        or none sees it well. Hair is off the template (triangle -1), at `HAIR_CONFIDENCE`.
    """
    views = [_View(crops, template, index) for index in range(len(crops.codes))]
    for view in views:
        view.extrapolate_hair()
    _prefer_frontal(views, crops.codes.numpy())
    normals = _coarse_normals(template, crops.identity)
    confidence = np.stack([_confidence(view, views, normals) for view in views])
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
    )


class _View:
    """One crop with its head rasterized into it; arrays are (H, W, ...), head frame, metres."""

    def __init__(self, crops: HeadCrops, template: HeadTemplate, index: int) -> None:
        self.bonus = 0.0
        self.mask = crops.masks[index, 0].double().numpy()
        self.height, self.width = self.mask.shape
        self.intrinsics = crops.cameras.intrinsics[index].double().numpy()
        self.camera_from_head = crops.cameras.camera_from_head[index].double().numpy()
        self.head_from_camera = invert_pose(self.camera_from_head)
        self.vertices = template.vertices(crops.identity, crops.codes[index]).numpy()
        # Lashes are thinner than pixels: what is seen between them counts.
        lashes = template.region_mask("eyelashes").numpy()
        self.triangles = template.triangles.int().numpy()
        drawn = np.where(lashes[:, None], 0, self.triangles)
        self.ids, self.weights, self.depth = native.rasterize_mesh(
            self.vertices,
            drawn,
            self.intrinsics,
            self.camera_from_head,
            self.width,
            self.height,
        )
        self.on_mesh = self.ids >= 0
        corners = self.vertices[self.triangles[np.maximum(self.ids, 0)]]
        self.points = (self.weights[..., None] * corners).sum(-2)

    @property
    def center(self) -> np.ndarray:
        """Of the camera, head frame."""
        return self.head_from_camera[:3, 3]

    def extrapolate_hair(self) -> None:
        """Give pixels off the mesh a place: on the skull's ellipsoid, blown up until it is met.

        A ray that misses the skull touches exactly one larger copy of it, at the point where the
        ellipsoid's own metric is smallest. Near the mesh the depth continues that of the nearest
        mesh pixel.
        """
        column, row = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(self.intrinsics).T
        rays = rays @ self.head_from_camera[:3, :3].T
        start = (self.center - SKULL_CENTER_HEAD_M) / SKULL_RADII_M
        scaled = rays / SKULL_RADII_M
        # Rays have unit z in the camera frame, so the ray parameter is the depth.
        depth = -(scaled @ start) / (scaled**2).sum(-1)
        if self.on_mesh.any():
            distance, nearest = distance_transform_edt(~self.on_mesh, return_indices=True)
            metres = distance * depth / self.intrinsics[0, 0]
            share = np.exp(-((metres / CONTINUATION_M) ** 2))
            depth = share * self.depth[tuple(nearest)] + (1 - share) * depth
        off = ~self.on_mesh
        self.points[off] = (self.center + rays * depth[..., None])[off]
        self.weights = np.where(off[..., None], 0, self.weights)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Array coordinates (2, n: row, column of pixel centres at integers) and depth (n,)."""
        camera = points @ self.camera_from_head[:3, :3].T + self.camera_from_head[:3, 3]
        pixels = (camera / np.maximum(camera[:, 2:], 1e-6)) @ self.intrinsics.T
        return np.stack([pixels[:, 1] - 0.5, pixels[:, 0] - 0.5]), camera[:, 2]

    def sees(self, points: np.ndarray) -> np.ndarray:
        """Which surface points of the posed head are in front and inside the matte, (n,) bool."""
        where, depth = self.project(points)
        row, column = np.rint(where).astype(int)
        inside = (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)
        row, column = row.clip(0, self.height - 1), column.clip(0, self.width - 1)
        near = depth < self.depth[row, column] + DEPTH_TOLERANCE_M
        return inside & near & self.on_mesh[row, column] & (self.mask[row, column] > 0.5)

    def score(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """How well a view shows surface points: the cosine of the angle to it, (n,)."""
        to_camera = self.center - points
        to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
        return (normals * to_camera).sum(-1) + self.bonus


def _prefer_frontal(views: list[_View], codes: np.ndarray) -> None:
    """Give the most frontal view its bonus; closed eyes count as much as 30 degrees."""
    blinks = codes[:, [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]].max(1)
    frontal = [
        view.center[2] / np.linalg.norm(view.center) - (1 - np.cos(np.radians(30))) * blink
        for view, blink in zip(views, blinks, strict=True)
    ]
    views[int(np.argmax(frontal))].bonus = FRONTAL_BONUS


def _coarse_normals(
    template: HeadTemplate, identity: Float[torch.Tensor, "k"]
) -> Float[np.ndarray, "v 3"]:
    """Vertex normals of the resting head, averaged over their surroundings."""
    triangles = template.triangles
    normals = template.vertex_normals(template.vertices(identity))
    count = torch.zeros(len(normals)).index_add(
        0, triangles.flatten(), torch.ones(triangles.numel())
    )
    for _ in range(NORMAL_SMOOTHING_STEPS):
        means = normals[triangles].mean(1, keepdim=True).expand(-1, 3, -1)
        total = torch.zeros_like(normals).index_add(0, triangles.flatten(), means.reshape(-1, 3))
        normals = torch.nn.functional.normalize(total / count.clamp(min=1)[:, None], dim=-1)
    return normals.double().numpy()


def _confidence(view: _View, views: list[_View], normals: np.ndarray) -> np.ndarray:
    """How far each pixel of a view may speak for what it shows, (H, W)."""
    confidence = np.zeros_like(view.mask)
    on = view.on_mesh & (view.mask > 0)
    corners = view.triangles[view.ids[on]]
    weights = view.weights[on][..., None]
    coarse = (weights * normals[corners]).sum(1)
    own = view.score(view.points[on], coarse)
    rival = np.full(len(own), -np.inf)
    for other in views:
        if other is view:
            continue
        points = (weights * other.vertices[corners]).sum(1)
        score = np.where(other.sees(points), other.score(points, coarse), -np.inf)
        rival = np.maximum(rival, score)
    lead = own - rival
    wins = 0.55 + 0.45 * own.clip(0, 1)
    loses = 0.45 * np.exp(np.minimum(lead + OVERLAP, 0) / 0.1)
    confidence[on] = np.where(lead >= -OVERLAP, wins, loses)

    off = ~view.on_mesh & (view.mask > 0)
    supported = np.ones(int(off.sum()), bool)
    for other in views:
        if other is view:
            continue
        # Hair that another photo shows as background is not there.
        where, depth = other.project(view.points[off])
        row, column = np.rint(where).astype(int)
        inside = (row >= 0) & (row < other.height) & (column >= 0) & (column < other.width)
        outside_m = (
            distance_transform_edt(other.mask <= 0.5) * depth.mean() / other.intrinsics[0, 0]
        )
        row, column = row.clip(0, other.height - 1), column.clip(0, other.width - 1)
        supported &= ~inside | (outside_m[row, column] < HAIR_TOLERANCE_M)
    confidence[off] = np.where(supported, HAIR_CONFIDENCE, 0.2)
    return confidence
