"""A scene seen from somewhere becomes a finished frame: pixels with the cameras that took them.

    Scene (animate thread) ──┐
    viewer pose, read late ──┴─► SceneRenderer.draw ──────────────────► Frame ─► FramePublisher
                                 SceneRenderer.layer ─► DrawnLayer ─┐
    newer viewer pose ──────────────────────────────────────────────┴─ warp ─► Frame

No ROS here: a frame knows nothing of topics.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from avat3r_ros.nodes.frame_times import FrameTimes
from avat3r_ros.nodes.presence import State
from avat3r_ros.nodes.viewpoint import (
    Eyes,
    ViewConfig,
    default_viewer_from_body,
    placeholder_picture,
)
from avat3r_ros.rendering import FrameRenderer, Layer, layer_camera, reproject
from avat3r_ros.types import Camera, Gaussians


@dataclass(frozen=True)
class Scene:
    """What is shown until the next one comes.

    Attributes:
        state: LIVE to PLACEHOLDER.
        gaussians: None for the placeholder.
        body_from_head: Turn of the operator's head.
        stamp: Acquisition stamp of the driving image, None where nothing drives.
        times: When the driving image passed each stage so far.
        text: Shown in the placeholder.
        veil: How far the placeholder covers the avatar, 0 to 1.
    """

    state: State
    gaussians: Gaussians | None
    body_from_head: Float[np.ndarray, "4 4"]
    stamp: object | None
    times: FrameTimes
    text: str = ""
    veil: float = 0.0


@dataclass(frozen=True)
class Frame:
    """Pixels of all eyes at one moment. The renderer may reuse their memory for the next frame.

    Attributes:
        images: In the channel order of `encoding`.
        encoding: As in sensor_msgs/Image: "rgb8", or "rgba8" with straight alpha.
        cameras: One for each image.
        viewer_from_body: The viewer pose that was used.
        depth_m: z in the camera frame, NaN where nothing is. None if not wanted.
        reprojected: Whether it was warped from a drawing for another viewer pose.
    """

    images: UInt8[np.ndarray, "c h w n"]
    encoding: str
    cameras: Camera
    viewer_from_body: Float[np.ndarray, "4 4"]
    depth_m: Float[np.ndarray, "c h w"] | None = None
    reprojected: bool = False

    @property
    def baselines_m(self) -> list[float]:
        """How far each camera is to the right of the first one."""
        poses = self.cameras.camera_from_head.double().cpu().numpy()
        first_from_head = poses[0]
        return [-float((pose @ np.linalg.inv(first_from_head))[0, 3]) for pose in poses]


@dataclass(frozen=True)
class DrawnLayer:
    """A drawing that can be warped to another viewer pose.

    Attributes:
        layer: Pixels with alpha and depth.
        scene: What was drawn.
        times: When its image passed each stage up to the drawing.
    """

    layer: Layer
    scene: Scene
    times: FrameTimes


class SceneRenderer:
    """Draws scenes for the eyes of `view`.

    `draw` and `layer` belong to one thread, `warp` may run in another.

    Args:
        renderer: Rasterizer.
        view: Size and projection.
        background: RGB in [0, 1].
        transparent: Give frames an alpha channel instead of a background.
        passthrough: Where pictures come from that replace the background: one RGB picture for each
            eye, or None while there is none.
        depth: Fill `Frame.depth_m`.
        num_threads: Of warping.

    Attributes:
        eyes: May be replaced at any time.
    """

    def __init__(
        self,
        renderer: FrameRenderer,
        view: ViewConfig,
        background: tuple[float, float, float],
        *,
        transparent: bool = False,
        passthrough: Callable[[], np.ndarray | None] | None = None,
        depth: bool = False,
        num_threads: int = 1,
    ) -> None:
        self._renderer, self._view, self._depth = renderer, view, depth
        self._background = None if transparent else np.asarray(background, np.float32)
        self._order = "rgba" if transparent else "rgb"
        self._passthrough, self._num_threads = passthrough, num_threads
        self.eyes = Eyes.of(view)
        self._placeholders: dict[str, np.ndarray] = {}

    def warm_up(self, device: str) -> None:
        """Render one Gaussian: compiling or loading a rasterizer must not cost the first frame.

        Raises:
            RuntimeError: The rasterizer cannot be used; the message says what helps.
        """
        dot = Gaussians(
            means=torch.zeros(1, 3),
            quats_wxyz=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            scales=torch.full((1, 3), 0.01),
            opacities=torch.ones(1),
            colors=torch.ones(1, 3),
        ).to(device)
        scene = Scene(State.NEUTRAL, dot, np.eye(4), None, FrameTimes())
        self.draw(scene, default_viewer_from_body(self._view))

    def draw(
        self, scene: Scene, viewer_from_body: Float[np.ndarray, "4 4"], scale: float = 1.0
    ) -> Frame:
        """Render a scene, or its placeholder, as the viewer sees it.

        Args:
            scene: What to show.
            viewer_from_body: From where.
            scale: Drawn pixels for each pixel of the frame and axis; the frame's size stays.
        """
        if scene.gaussians is None:
            return self._placeholder(scene.text, viewer_from_body)
        if scale != 1.0 or self._passthrough is not None:
            layer = self.layer(scene, viewer_from_body, scale)
            return replace(self.warp(layer, viewer_from_body), reprojected=False)
        cameras = self.eyes.cameras(viewer_from_body, scene.body_from_head)
        images = self._renderer.render_u8(
            scene.gaussians, cameras, self._background, self._order, depth=self._depth
        )
        depth_m = _with_gaps(self._renderer.last_depth_m) if self._depth else None
        return Frame(images, f"{self._order}8", cameras, viewer_from_body, depth_m)

    def layer(
        self,
        scene: Scene,
        viewer_from_body: Float[np.ndarray, "4 4"],
        scale: float = 1.0,
        overscan: float = 0.0,
    ) -> DrawnLayer:
        """Draw a scene that is no placeholder for `warp`, with a margin of `overscan`."""
        cameras = self.eyes.cameras(viewer_from_body, scene.body_from_head)
        wider = layer_camera(cameras, overscan=overscan, scale=scale)
        layer = self._renderer.render_layer(scene.gaussians, wider)
        return DrawnLayer(layer, scene, scene.times.now("rendered"))

    def warp(self, drawn: DrawnLayer, viewer_from_body: Float[np.ndarray, "4 4"]) -> Frame:
        """Show a drawing as another viewer sees it."""
        cameras = self.eyes.cameras(viewer_from_body, drawn.scene.body_from_head)
        warped = reproject(
            drawn.layer,
            cameras,
            background=self._background,
            background_images=None if self._passthrough is None else self._passthrough(),
            order=self._order,
            depth=self._depth,
            num_threads=self._num_threads,
        )
        depth_m = _with_gaps(warped.depth_m) if self._depth else None
        encoding = f"{self._order}8"
        return Frame(warped.images, encoding, cameras, viewer_from_body, depth_m, reprojected=True)

    def _placeholder(self, text: str, viewer_from_body: Float[np.ndarray, "4 4"]) -> Frame:
        view = self._view
        if text not in self._placeholders:
            picture = placeholder_picture(view.width, view.height, text)
            if self._order == "rgba":
                picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
            self._placeholders[text] = np.stack([picture] * len(view.eyes))
        cameras = self.eyes.cameras(viewer_from_body, np.eye(4))
        return Frame(self._placeholders[text], f"{self._order}8", cameras, viewer_from_body)


def _with_gaps(depth_m: np.ndarray) -> np.ndarray:
    """NaN instead of 0, as depth images say it on the ROS side."""
    return np.where(depth_m > 0, depth_m, np.float32(np.nan))
