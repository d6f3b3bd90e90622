"""One reference crop with the posed head rasterized into it."""

from functools import cached_property

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from avat3r_ros import native
from avat3r_ros.geometry import invert_pose
from avat3r_ros.mattes import FACE_REGIONS, SEEN_MASK, misses_face
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.framing import SKULL_CENTER_HEAD_M, SKULL_RADII_M
from avat3r_ros.types import HeadCrops

CONTINUATION_M = 0.012
"""How far from the mesh its depth still governs the depth of what is off it."""

DEPTH_TOLERANCE_M = 0.004
"""Surface points this close behind the nearest one are still seen by a view."""


class ReferenceView:
    """Where the pixels of one crop lie; arrays are (H, W, ...), head frame, metres.

    Attributes:
        mask: Soft matte.
        hair: Which pixels show hair, as far as is known.
        free_hair: Those off the mesh whose place `place_free_hair` found.
        shown: Which pixels lie inside the photo.
        told: Where the matte tells the head's end.
        vertices: Of the head in this view's expression, with hair once `draw` was given some.
        ids: Triangle of each pixel, -1 off the mesh.
        weights: Its barycentrics.
        points: Surface point of each pixel; off the mesh, a guess: beside the skull, or as deep as
            the mesh next to it.
        on_mesh: Where `ids` is not -1.
        bonus: Advantage of this view over the others.
        matte_fails: It misses part of the face: where it is empty the head may still be.
        guessed: Not a photo: where it is empty the head may still be.
    """

    def __init__(self, crops: HeadCrops, template: HeadTemplate, index: int) -> None:
        self.bonus = 0.0
        self.guessed = False
        self.mask = crops.masks[index, 0].double().numpy()
        self.hair = (
            np.zeros(self.mask.shape, bool) if crops.hair is None else crops.hair[index, 0].numpy()
        )
        self.shown, self.told = (
            np.ones(self.mask.shape, bool) if where is None else where[index, 0].numpy()
            for where in (crops.shown, crops.told)
        )
        self.free_hair = np.zeros(self.mask.shape, bool)
        self.height, self.width = self.mask.shape
        self.intrinsics = crops.cameras.intrinsics[index].double().numpy()
        self.camera_from_head = crops.cameras.camera_from_head[index].double().numpy()
        self.head_from_camera = invert_pose(self.camera_from_head)
        self.center = self.head_from_camera[:3, 3]
        self.triangles = template.triangles.int().numpy()
        self._drawn = template.triangles_without_lashes().int().numpy()
        self._rays, self._skull_depth = self._beside_skull()
        self.vertices = template.vertices(crops.identity, crops.codes[index]).numpy()
        face = self.vertices[template.region_vertices(*FACE_REGIONS)].astype(np.float64)
        row, column, inside, _ = self.pixels_of(face)
        self.matte_fails = misses_face(self._outside_m()[row, column] * inside)
        self.draw()

    def draw(self, offset: np.ndarray | None = None) -> None:
        """Rasterize the head, with its vertices moved by `offset` (v, 3) metres for good."""
        if offset is not None:
            self.vertices = (self.vertices + offset).astype(np.float32)
        self.ids, self.weights, self.depth = self.rasterize(self.vertices)
        self.on_mesh = self.ids >= 0
        on, off = self.on_mesh, ~self.on_mesh
        self.points = np.empty((*on.shape, 3), np.float32)
        corners = self.vertices[self.triangles[self.ids[on]]]
        self.points[on] = np.einsum("nk,nkc->nc", self.weights[on], corners)
        depth = self._continued(self._skull_depth)
        self.points[off] = self.center + self._rays[off] * depth[off][:, None]

    def rasterize(self, vertices: np.ndarray) -> native.MeshFragments:
        """Draw the head with other vertices (v, 3) float32; the view stays as it is."""
        return native.rasterize_mesh(
            vertices, self._drawn, self.intrinsics, self.camera_from_head, self.width, self.height
        )

    def beside_skull(self, pixels: np.ndarray) -> np.ndarray:
        """Where the rays of pixels (H, W) bool pass the skull, (n, 3)."""
        return self.center + self._rays[pixels] * self._skull_depth[pixels][:, None]

    @cached_property
    def outside_m(self) -> np.ndarray:
        """How far outside the matte, as it was when first asked, each pixel is, metres.

        Nothing is outside a matte that fails, or where it does not tell the head's end.
        """
        if self.matte_fails:
            return np.zeros_like(self.mask)
        return self._outside_m() * self.told

    def _outside_m(self) -> np.ndarray:
        background = (self.mask <= SEEN_MASK).astype(np.uint8)
        outside = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return outside * self.pixel_size_m()

    @cached_property
    def matte_depth_px(self) -> np.ndarray:
        """How deep inside the matte, as it was when first asked, each pixel is; below 0 outside."""
        matte = (self.mask > SEEN_MASK).astype(np.uint8)
        inside, outside = (
            cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            for part in (matte, 1 - matte)
        )
        # The nearest pixel on the other side is one step beyond the outline between the two.
        return np.where(matte > 0, inside, 1 - outside)

    @cached_property
    def matte_slope(self) -> np.ndarray:
        """Change of `matte_depth_px` to the right and downwards, (H, W, 2)."""
        return np.stack(np.gradient(self.matte_depth_px)[::-1], -1)

    def to_border(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Pixels from where the crop or the photo in it ends."""
        return self._border_px[row, column]

    @cached_property
    def _border_px(self) -> np.ndarray:
        padded = np.pad(self.shown, 1).astype(np.uint8)
        return cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1] - 1

    def pixel_size_m(self) -> float:
        """Side of a pixel at the distance of the skull."""
        return float(np.linalg.norm(self.center - SKULL_CENTER_HEAD_M) / self.intrinsics[0, 0])

    def _beside_skull(self) -> tuple[np.ndarray, np.ndarray]:
        """Rays of all pixels with unit z in the camera frame, and how deep they pass the skull.

        What lies off the mesh lies on larger copies of the skull's ellipsoid. A ray that misses the
        skull touches exactly one of them, at the point where the ellipsoid's own metric is
        smallest.
        """
        column, row = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(self.intrinsics).T
        rays = rays @ self.head_from_camera[:3, :3].T
        start = (self.center - SKULL_CENTER_HEAD_M) / SKULL_RADII_M
        scaled = rays / SKULL_RADII_M
        return rays, -(scaled @ start) / np.einsum("hwc,hwc->hw", scaled, scaled)

    def _continued(self, depth: np.ndarray) -> np.ndarray:
        """Near the mesh, the depth of what is off it continues that of the nearest mesh pixel."""
        if not self.on_mesh.any():
            return depth
        distance, nearest = distance_transform_edt(~self.on_mesh, return_indices=True)
        share = np.exp(-((distance * self.pixel_size_m() / CONTINUATION_M) ** 2))
        return share * np.where(share > 0, self.depth[tuple(nearest)], 0) + (1 - share) * depth

    def pixels_of(
        self, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row, column (nearest inside the crop), whether inside, and depth of points (n, 3)."""
        camera = points @ self.camera_from_head[:3, :3].T + self.camera_from_head[:3, 3]
        pixels = (camera / np.maximum(camera[:, 2:], 1e-6)) @ self.intrinsics.T
        column, row = np.floor(pixels[:, :2].clip(-1, 1e6)).astype(int).T
        inside = (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)
        return row.clip(0, self.height - 1), column.clip(0, self.width - 1), inside, camera[:, 2]

    def sees(self, points: np.ndarray) -> np.ndarray:
        """Which surface points of this view's head are in front and inside the matte, (n,)."""
        row, column, inside, depth = self.pixels_of(points)
        near = depth < self.depth[row, column] + DEPTH_TOLERANCE_M
        return inside & near & self.on_mesh[row, column] & (self.mask[row, column] > SEEN_MASK)

    def facing(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Cosine of the angle at which this view sees surface points, (n,)."""
        to_camera = self.center - points
        to_camera = to_camera / np.linalg.norm(to_camera, axis=-1, keepdims=True)
        return np.einsum("nc,nc->n", normals, to_camera)
