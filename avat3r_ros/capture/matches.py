"""The same spots of skin in two photos: dense matches that hold the photos' cameras together.

Landmarks err alike in all photos, so they pin down how the cameras stand to each other only
roughly. Once a first fit lays the photos on the head, one photo drawn as the other's camera would
see it differs from that other photo by a few pixels; optical flow measures them.

    photo b ──fitted head──► b as seen by camera a ──flow──► photo a
                                                     └─► pixel of a, surface point, pixel of b

Light may differ: flow sees pictures whose brightness and contrast are evened out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float, Int

from avat3r_ros import native
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig import HeadTemplate

WORKING_SIZE_PX = 150.0
"""Photos are matched at the scale at which a face (sellion to chin, 0.12 m) is this long."""

FACE_LENGTH_M = 0.12

MATCHED_REGIONS = ("skin", "brows", "lips", "ears", "lid_left", "lid_right")
"""Neither hair, which lies off the mesh, nor what turns with the gaze or the body."""

MIN_FACING = 0.35
"""Cosine below which a surface is too foreshortened to be matched."""

DEPTH_TOLERANCE_M = 0.006
GRID_PX = 5
MAX_FLOW_PX = 14.0
MAX_DISAGREEMENT_PX = 0.7
"""Between the flow there and back."""

BACK = {"winSize": (13, 13), "maxLevel": 2, "criteria": (3, 15, 0.02)}
"""Settings of the flow back: up to 15 steps, or shorter ones than 0.02 pixels."""

PER_PAIR = 100
"""Matches kept of a pair of photos, evenly spread."""

MIN_CORRELATION = 0.6
MIN_TEXTURE = 0.002
"""Smaller eigenvalue of the structure tensor of an evened picture: below it the flow slides."""


@dataclass(frozen=True)
class Matches:
    """Surface points seen in two photos; n may be 0.

    Attributes:
        first: Index of a photo.
        second: Index of another.
        triangles: Where on the mesh, triangle of each point.
        barycentrics: Likewise.
        first_px: The point in the first photo, pixels of the whole photo.
        second_px: In the second.
    """

    first: int
    second: int
    triangles: Int[np.ndarray, "n"]
    barycentrics: Float[np.ndarray, "n 3"]
    first_px: Float[np.ndarray, "n 2"]
    second_px: Float[np.ndarray, "n 2"]


class MatchFinder:
    """Finds matches between photos, given a fit; the photos are prepared once.

    Args:
        images: RGB uint8 (H, W, 3).
        template: The head model.
    """

    def __init__(self, images: Sequence[np.ndarray], template: HeadTemplate) -> None:
        self._images = list(images)
        self._template = template
        self._triangles = template.triangles_without_lashes().int().numpy()
        self._matched = template.region_mask(*MATCHED_REGIONS).numpy()

    def find(
        self,
        vertices: list[Float[np.ndarray, "v 3"]],
        intrinsics: list[Float[np.ndarray, "3 3"]],
        camera_from_head: list[Float[np.ndarray, "4 4"]],
    ) -> list[Matches]:
        """Match every pair of photos.

        Args:
            vertices: The head in each photo's expression, head frame, metres.
            intrinsics: Of each whole photo.
            camera_from_head: Of each photo.
        """
        prepared = partial(_View, triangles=self._triangles, matched=self._matched)
        views = in_threads(prepared, self._images, vertices, intrinsics, camera_from_head)
        pairs = [(first, second) for first in range(len(views)) for second in range(first)]
        return in_threads(partial(self._match, views), pairs)

    def _match(self, views: list["_View"], pair: tuple[int, int]) -> Matches:
        first, second = pair
        a, b = views[first], views[second]
        usable = a.usable
        triangles = a.ids[usable]
        corners = b.vertices[self._triangles[triangles]]
        points = np.einsum("nk,nkc->nc", a.weights[usable], corners)
        at = np.full((a.height, a.width, 2), -10, np.float32)
        depth, facing = (np.zeros(usable.shape, np.float32) for _ in range(2))
        at[usable], depth[usable], facing[usable] = b.look_at(points, triangles)
        columns, rows = at[..., 0], at[..., 1]
        there = cv2.remap(b.depth, columns - 0.5, rows - 0.5, cv2.INTER_NEAREST, borderValue=np.inf)
        both = usable & (facing > MIN_FACING) & (np.abs(there - depth) < DEPTH_TOLERANCE_M)
        drawn = cv2.remap(
            b.picture, columns - 0.5, rows - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        soft = cv2.GaussianBlur(cv2.erode(both.astype(np.float32), np.ones((3, 3))), (0, 0), 1.5)
        drawn = soft * drawn + (1 - soft) * a.picture
        eight = [np.clip(128 + 40 * p, 0, 255).astype(np.uint8) for p in (a.picture, drawn)]
        row, column = np.mgrid[GRID_PX // 2 : a.height : GRID_PX, GRID_PX // 2 : a.width : GRID_PX]
        row, column = row.ravel(), column.ravel()
        keep = both[row, column] & (a.texture[row, column] > MIN_TEXTURE)
        start = np.stack([column, row], -1)[keep].astype(np.float32)
        moved, back = _followed(*eight, start)
        away = np.linalg.norm(back - start, axis=1)
        row, column = row[keep], column[keep]
        # Bilinear between surface points: all four around it must be of one surface.
        whole = _sample(cv2.erode(both.astype(np.uint8), np.ones((5, 5))).astype(np.float32), moved)
        keep = (away < MAX_DISAGREEMENT_PX) & (whole > 0.999)
        keep &= np.linalg.norm(moved - start, axis=1) < MAX_FLOW_PX
        keep = np.flatnonzero(keep)
        alike = _correlation(*eight, start[keep], moved[keep])
        keep = keep[alike > MIN_CORRELATION]
        keep = keep[np.linspace(0, len(keep) - 1, min(len(keep), PER_PAIR)).astype(int)]
        row, column, moved = row[keep], column[keep], moved[keep]
        return Matches(
            first,
            second,
            a.ids[row, column],
            a.weights[row, column].astype(np.float64),
            a.to_photo(np.stack([column, row], -1) + 0.5),
            b.to_photo(_sample(at.astype(np.float32), moved)),
        )


class _View:
    """One photo around the head at the working scale, with the head drawn into it."""

    def __init__(
        self,
        image: np.ndarray,
        vertices: np.ndarray,
        intrinsics: np.ndarray,
        camera_from_head: np.ndarray,
        triangles: np.ndarray,
        matched: np.ndarray,
    ) -> None:
        self.vertices = vertices
        self.pose = camera_from_head
        scale = WORKING_SIZE_PX * camera_from_head[2, 3] / (FACE_LENGTH_M * intrinsics[0, 0])
        used = np.unique(triangles[matched])
        points = vertices[used] @ camera_from_head[:3, :3].T + camera_from_head[:3, 3]
        pixels = points[:, :2] / points[:, 2:] * intrinsics[0, 0] + intrinsics[:2, 2]
        low = np.floor(pixels.min(0)) - 8 / scale
        size = np.ceil((pixels.max(0) + 8 / scale - low) * scale).astype(int)
        self.width, self.height = (int(side) for side in size)
        self._low, self._scale = low, scale
        to_crop = np.array([[scale, 0, -scale * low[0]], [0, scale, -scale * low[1]], [0, 0, 1.0]])
        self.k = to_crop @ intrinsics
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
        if scale < 0.7:
            grey = cv2.GaussianBlur(grey, (0, 0), 0.4 / scale)
        shift = to_crop[:2].copy()
        shift[:, 2] += 0.5 * scale - 0.5  # OpenCV's pixel centres are integers
        grey = cv2.warpAffine(
            grey, shift, (self.width, self.height), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        self.picture = _evened(grey)
        self.texture = cv2.cornerMinEigenVal(self.picture, 9)
        self.ids, self.weights, self.depth = native.rasterize_mesh(
            vertices.astype(np.float32), triangles, self.k, camera_from_head,
            self.width, self.height,
        )  # fmt: skip
        corners = vertices[triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        smooth = np.zeros_like(vertices)
        for k in range(3):
            np.add.at(smooth, triangles[:, k], normals)
        smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-12)
        self._normals = smooth[triangles].mean(1) @ camera_from_head[:3, :3].T
        self.usable = (self.ids >= 0) & matched[self.ids.clip(0)]
        seen = self.ids[self.usable]
        points = np.einsum("nk,nkc->nc", self.weights[self.usable], corners[seen])
        self.usable[self.usable] = self.look_at(points, seen)[2] > MIN_FACING

    def look_at(
        self, points: np.ndarray, triangles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Crop pixels, depths and cosines of points (n, 3) on these triangles."""
        camera = points @ self.pose[:3, :3].T + self.pose[:3, 3]
        depth = camera[..., 2]
        pixels = camera[..., :2] / depth[..., None] * self.k[0, 0] + self.k[:2, 2]
        facing = -np.einsum("nc,nc->n", self._normals[triangles], camera)
        facing /= np.sqrt(np.einsum("nc,nc->n", camera, camera))
        return pixels.astype(np.float32), depth.astype(np.float32), facing

    def to_photo(self, crop_px: np.ndarray) -> np.ndarray:
        return crop_px.astype(np.float64) / self._scale + self._low


def _followed(a: np.ndarray, b: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels (n, 2) float32 of a are in b, and where those are in a again."""
    if not len(start):
        return start, start
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setFinestScale(0)
    finder.setPatchStride(4)
    finder.setGradientDescentIterations(12)
    there = start + finder.calc(a, b, None)[tuple(start.T.astype(int)[::-1])]
    # Another method on the way back, quicker for few pixels: they rarely err alike.
    back, found, _ = cv2.calcOpticalFlowPyrLK(b, a, there, None, **BACK)
    back[found[:, 0] == 0] = -1e3
    return there, back


def _evened(grey: np.ndarray) -> np.ndarray:
    """Subtract the local brightness and divide by the local contrast."""
    mean = cv2.GaussianBlur(grey, (0, 0), 8.0)
    centred = grey - mean
    spread = np.sqrt(cv2.GaussianBlur(centred**2, (0, 0), 12.0))
    return centred / (spread + 3.0)


def _sample(field: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bilinear values of a float32 field at (n, 2) or (n, k, 2) pixel indices."""
    if not len(at):
        return np.zeros((*at.shape[:-1], *field.shape[2:]), np.float32)
    flat = at.reshape(len(at), -1, 2).astype(np.float32)
    values = cv2.remap(
        field, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return values.reshape(*at.shape[:-1], *field.shape[2:])


def _correlation(a: np.ndarray, b: np.ndarray, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """Correlation of the patches around corresponding points, (n,)."""
    span = np.arange(-5, 6)
    grid = np.stack(np.meshgrid(span, span), -1).reshape(1, -1, 2)
    patches = []
    for picture, at in ((a, in_a), (b, in_b)):
        values = _sample(picture.astype(np.float32), at[:, None] + grid)
        patches.append(values - values.mean(1, keepdims=True))
    first, second = patches
    norm = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return (first * second).sum(1) / np.maximum(norm, 1e-6)
