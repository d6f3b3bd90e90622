"""Pictures of a person's mesh: visible triangles, light at their corners, colour per sample.

Most pixels are painted once, at their centre. Pixels with fine detail (eyes, brows, lips) or an
edge are painted from several samples on the head, and blurred on clothes:

    rasterize pixel centres ─► paint ─► busy pixels? ─► rasterize the head finer ─► paint, average
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Integer

from avat3r_ros import native
from avat3r_ros.data.person_mesh import PersonMesh
from avat3r_ros.data.shading import Light, NormalOperator, encode, vertex_light
from avat3r_ros.data.texels import TexelGrid

Part = Literal["all", "head", "clothes"]

NOTHING, SKIN, HAIR, CLOTH, DETAIL = range(5)
"""Kinds of surface; all but DETAIL take one sample per pixel away from edges."""

_DEPTH_EDGE_M = 0.012
"""Step in depth between neighbouring pixels that counts as an edge."""

_GLINTS = (("key_direction", 1.4, 900), ("fill_direction", 0.12, 200))
"""Highlights on the wet eyeballs: light, strength, sharpness."""


@dataclass(frozen=True)
class Body:
    """A person's mesh with all that does not change from picture to picture.

    Attributes:
        mesh: The person's shape.
        grid: Texels of the template's triangles.
        albedo: Linear RGB of the texels.
        occlusion: Open share of the surroundings of each vertex.
        shine: Strength of the highlight of each vertex.
        kinds: Kind of each triangle.
        eyes: Range of triangles and the vertices of each eyeball.
    """

    mesh: PersonMesh
    grid: TexelGrid
    albedo: Float[np.ndarray, "m 3"]
    occlusion: Float[np.ndarray, "v"]
    shine: Float[np.ndarray, "v"]
    kinds: Integer[np.ndarray, "f"]
    eyes: list[tuple[int, int, np.ndarray]]


@dataclass(frozen=True)
class Picture:
    """A painted part of an image; arrays cover rows and columns `window` of it.

    Attributes:
        window: Rows and columns of the image.
        rgba: RGB times coverage, and coverage.
        triangle_ids: Of the body, at pixel centres; -1 for nothing.
        barycentrics: Place on that triangle.
        depth_m: Camera-frame z; infinite for nothing.
    """

    window: tuple[slice, slice]
    rgba: Float[np.ndarray, "h w 4"]
    triangle_ids: Integer[np.ndarray, "h w"]
    barycentrics: Float[np.ndarray, "h w 3"]
    depth_m: Float[np.ndarray, "h w"]


class Painter:
    """Paints one body in any pose, camera and light."""

    def __init__(self, body: Body) -> None:
        """Prepare what all pictures of the body share."""
        self.body = body
        self._normals = NormalOperator(body.mesh.triangles, len(body.occlusion))
        self._part_starts = np.cumsum(
            [body.mesh.num_template_triangles]
            + [len(patch.triangles) for patch in body.mesh.patches]
        )

    def paint(
        self,
        vertices: Float[np.ndarray, "v 3"],
        intrinsics: Float[np.ndarray, "3 3"],
        camera_from_head: Float[np.ndarray, "4 4"],
        size: tuple[int, int],
        light: Light,
        supersample: int,
        *,
        part: Part = "all",
        heights: Float[np.ndarray, "v"] | None = None,
    ) -> Picture:
        """Paint the part of an image that shows the body.

        Args:
            vertices: Posed vertices, head frame, metres.
            intrinsics: Of the image, pixels.
            camera_from_head: Pose of the head.
            size: Width and height of the image.
            light: In the head frame.
            supersample: Samples per pixel and axis where several are taken.
            part: The head is template and hair.
            heights: If given, surface is left out where this value, interpolated over triangles, is
                negative.

        Raises:
            ValueError: `supersample` is less than 1.
        """
        if supersample < 1:
            raise ValueError(f"expected supersample >= 1, got {supersample}")
        start = self.body.mesh.clothes_vertex
        subject = {"all": vertices, "head": vertices[:start], "clothes": vertices[start:]}[part]
        left, top, right, bottom = projected_bounds(subject, intrinsics, camera_from_head, size)
        if right <= left or bottom <= top:
            return _empty_picture()
        shot = _Shot(self, vertices, camera_from_head, light, part, heights)
        width, height = right - left, bottom - top
        window = _shifted(intrinsics, left, top)
        centers = shot.rasterize(window, width, height)
        kind = shot.kinds.take(centers.triangle_ids, mode="wrap")  # "nothing", -1, is the last
        pixels = np.flatnonzero(kind)
        rgba = np.zeros((height, width, 4), np.float32)
        rgba.reshape(-1, 4)[pixels] = shot.colors(centers, pixels)
        if supersample > 1:
            busy = _busy_pixels(kind, centers.depth_m)
            soft = np.nonzero(busy)
            rgba[soft] = cv2.blur(rgba, (3, 3))[soft]
            fine = vertices if part == "clothes" else vertices[:start]
            x0, y0, x1, y1 = projected_bounds(fine, window, camera_from_head, (width, height))
            self._refine(rgba[y0:y1, x0:x1], busy[y0:y1, x0:x1], shot,
                         _shifted(window, x0, y0), supersample)  # fmt: skip
        return Picture(
            window=(slice(top, bottom), slice(left, right)),
            rgba=rgba,
            triangle_ids=np.where(
                centers.triangle_ids >= 0, shot.ids[centers.triangle_ids], np.int32(-1)
            ),
            barycentrics=centers.barycentrics,
            depth_m=centers.depth_m,
        )

    def _refine(
        self,
        rgba: np.ndarray,
        busy: np.ndarray,
        shot: "_Shot",
        intrinsics: np.ndarray,
        supersample: int,
    ) -> None:
        """Replace busy pixels by the mean of several samples, in place."""
        rows, columns = np.nonzero(busy)
        if not len(rows):
            return
        fine_intrinsics = intrinsics.copy()
        fine_intrinsics[:2] *= supersample
        height, width = (side * supersample for side in busy.shape)
        near = shot.touching(busy, intrinsics)
        fine = shot.rasterize(fine_intrinsics, width, height, near)
        steps = np.arange(supersample)
        samples = (rows[:, None, None] * supersample + steps[:, None]) * width
        samples = samples + columns[:, None, None] * supersample + steps
        colors = shot.colors(fine, samples.ravel(), near).reshape(len(rows), supersample**2, 4)
        total = colors[:, 0].copy()
        for index in range(1, supersample**2):
            total += colors[:, index]
        rgba[rows, columns] = total / supersample**2

    def albedo(
        self, ids: Integer[np.ndarray, "p"], weights: Float[np.ndarray, "3 p"]
    ) -> Float[np.ndarray, "p 3"]:
        """Linear RGB of surface points, given by three rows of weights."""
        body = self.body
        on_template = ids < body.mesh.num_template_triangles
        if on_template.all():
            return body.albedo.take(body.grid.lookup(ids, *weights[:2]), axis=0)
        out = np.empty((len(ids), 3), np.float32)
        rows = np.flatnonzero(on_template)
        texels = body.grid.lookup(ids[rows], weights[0][rows], weights[1][rows])
        out[rows] = body.albedo.take(texels, axis=0)
        for patch, start in zip(body.mesh.patches, self._part_starts, strict=False):
            rows = np.flatnonzero((ids >= start) & (ids < start + len(patch.triangles)))
            if len(rows):
                out[rows] = patch.colors(ids[rows] - start, weights[:, rows])
        return out


class _Shot:
    """One body posed before one camera position in one light."""

    def __init__(
        self,
        painter: Painter,
        vertices: np.ndarray,
        camera_from_head: np.ndarray,
        light: Light,
        part: Part,
        heights: np.ndarray | None,
    ) -> None:
        body = painter.body
        self.painter, self.vertices, self.light = painter, vertices, light
        self.camera_from_head = camera_from_head
        self.eye = (-camera_from_head[:3, :3].T @ camera_from_head[:3, 3]).astype(np.float32)
        to_camera = self.eye - vertices
        crosses = painter._normals.crosses(vertices)
        normals = painter._normals.from_crosses(crosses)

        facing = np.einsum("fc,fc->f", crosses, to_camera[body.mesh.triangles[:, 0]]) > 0
        facing[body.mesh.num_template_triangles :] = True  # hair and clothes are open sheets
        drawn = body.mesh.shown & facing
        self.cut = heights is not None
        if part != "all":
            drawn &= (body.kinds == CLOTH) == (part == "clothes")
        self.ids = np.flatnonzero(drawn).astype(np.int32)
        self.triangles = body.mesh.triangles[self.ids]
        self.kinds = np.append(body.kinds[self.ids], np.uint8(NOTHING))

        to_camera /= np.sqrt(np.einsum("vc,vc->v", to_camera, to_camera))[:, None]
        channels = np.zeros((len(vertices), 5), np.float32)
        channels[:, :4] = vertex_light(normals, to_camera, light, body.occlusion, body.shine)
        if heights is not None:
            channels[:, 4] = heights
        # One row per channel and corner: long rows are mixed much faster than many short ones.
        self.table = np.ascontiguousarray(
            channels[self.triangles].transpose(2, 1, 0)[: 5 if self.cut else 4]
        )

    def touching(self, busy: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
        """Rows of the triangles whose box holds a busy pixel: no other can show there."""
        projection = (intrinsics @ self.camera_from_head[:3]).astype(np.float32)
        x, y, z = projection[:, :3] @ self.vertices.T + projection[:, 3:]
        if z.min() < 0.01:
            return np.arange(len(self.triangles))
        height, width = busy.shape
        sums = np.zeros((height + 1, width + 1), np.int32)
        sums[1:, 1:] = busy.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)

        def ends(pixels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
            corners = pixels.astype(np.float32)[self.triangles]
            low = np.minimum(np.minimum(corners[:, 0], corners[:, 1]), corners[:, 2])
            high = np.maximum(np.maximum(corners[:, 0], corners[:, 1]), corners[:, 2])
            return (
                low.clip(0, size).astype(np.int32),
                (high.clip(-1, size - 1).astype(np.int32) + 1).clip(0, size),
            )

        (left, right), (top, bottom) = ends(x / z, width), ends(y / z, height)
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.flatnonzero((inside > 0) & (right > left) & (bottom > top))

    def rasterize(
        self, intrinsics: np.ndarray, width: int, height: int, chosen: np.ndarray | None = None
    ) -> native.MeshFragments:
        """What every pixel sees, as rows of `ids`, or of those chosen."""
        triangles = self.triangles if chosen is None else self.triangles[chosen]
        return native.rasterize_mesh(
            self.vertices, triangles, intrinsics, self.camera_from_head, width, height
        )

    def colors(
        self, fragments: native.MeshFragments, pixels: np.ndarray, chosen: np.ndarray | None = None
    ) -> np.ndarray:
        """Premultiplied RGBA at flat pixel indices."""
        num_samples = len(pixels)
        rows = fragments.triangle_ids.ravel().take(pixels)
        seen = np.flatnonzero(rows >= 0)
        if len(seen) < len(rows):
            rows, pixels = rows[seen], pixels[seen]
        if chosen is not None:
            rows = chosen.take(rows)
        weights = np.ascontiguousarray(fragments.barycentrics.reshape(-1, 3).take(pixels, axis=0).T)
        ids = self.ids.take(rows)
        color = self.painter.albedo(ids, weights)

        def mixed(channel: int) -> np.ndarray:
            total = self.table[channel, 0].take(rows) * weights[0]
            total += self.table[channel, 1].take(rows) * weights[1]
            total += self.table[channel, 2].take(rows) * weights[2]
            return total

        shine = mixed(3)
        for channel in range(3):
            color[:, channel] *= mixed(channel)
            color[:, channel] += shine
        self._add_glints(ids, weights.T, color)
        out = np.zeros((num_samples, 4), np.float32)
        if self.cut:
            above = mixed(4) > 0
            seen, color = seen[above], color[above]
        out[seen, :3] = encode(color)
        out[seen, 3] = 1.0
        return out

    def _add_glints(self, ids: np.ndarray, weights: np.ndarray, color: np.ndarray) -> None:
        """Mirror-like highlights on the eyeballs, which are nearly spheres."""
        for low, high, own in self.painter.body.eyes:
            rows = np.flatnonzero((ids >= low) & (ids < high))
            if not len(rows):
                continue
            points = self.vertices[own]
            center = (points.min(0) + points.max(0)) / 2
            corners = self.vertices[self.painter.body.mesh.triangles[ids[rows]]]
            normal = np.einsum("pkc,pk->pc", corners, weights[rows]) - center
            normal /= np.sqrt(np.einsum("pc,pc->p", normal, normal))[:, None]
            view = self.eye - center
            view /= np.linalg.norm(view)
            for name, strength, power in _GLINTS:
                half = view + getattr(self.light, name)
                half = (half / np.linalg.norm(half)).astype(np.float32)
                glint = strength * np.maximum(normal @ half, 0) ** power
                color[rows] += glint[:, None]


def projected_bounds(
    vertices: Float[np.ndarray, "n 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    camera_from_head: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that can show the vertices, within the image."""
    projection = (intrinsics @ camera_from_head[:3]).astype(np.float32)
    x, y, z = projection[:, :3] @ vertices.T + projection[:, 3:]
    if z.min() < 0.01:
        return 0, 0, *size
    x, y = x / z, y / z
    left, right = np.clip([np.floor(x.min()) - 1, np.ceil(x.max()) + 1], 0, size[0])
    top, bottom = np.clip([np.floor(y.min()) - 1, np.ceil(y.max()) + 1], 0, size[1])
    return int(left), int(top), int(right), int(bottom)


def _shifted(intrinsics: np.ndarray, left: int, top: int) -> np.ndarray:
    out = np.array(intrinsics)
    out[0, 2] -= left
    out[1, 2] -= top
    return out


def _busy_pixels(kind: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Pixels that need several samples: fine detail, and edges between surfaces."""
    cross = np.ones((3, 3), np.uint8)
    depth = np.minimum(depth_m, 10.0)
    jump = cv2.dilate(depth, cross) - cv2.erode(depth, cross) > _DEPTH_EDGE_M
    return (kind == DETAIL) | (cv2.dilate(kind, cross) != cv2.erode(kind, cross)) | jump


def _empty_picture() -> Picture:
    nothing = np.zeros((0, 0), np.float32)
    return Picture(
        (slice(0), slice(0)),
        np.zeros((0, 0, 4), np.float32),
        nothing.astype(np.int32),
        np.zeros((0, 0, 3), np.float32),
        nothing,
    )
