"""A scene seen from somewhere becomes a finished frame: pixels with the cameras that took them.

    Scene (animate thread) ──┐
    viewer pose, read late ──┴─► SceneRenderer ─► Frame ─► FramePublisher

No ROS here: a frame knows nothing of topics.
"""

from dataclasses import dataclass

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
from avat3r_ros.rendering import FrameRenderer, render_gaussians
from avat3r_ros.types import Camera, Gaussians

MIN_ALPHA = 0.5
"""Pixels that are more transparent have no depth."""


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
        encoding: As in sensor_msgs/Image: "rgb8".
        cameras: One for each image.
        viewer_from_body: The viewer pose that was used.
        depth_m: z in the camera frame, NaN where nothing is; of the first eye. None if not wanted.
    """

    images: UInt8[np.ndarray, "c h w n"]
    encoding: str
    cameras: Camera
    viewer_from_body: Float[np.ndarray, "4 4"]
    depth_m: Float[np.ndarray, "h w"] | None = None

    @property
    def baselines_m(self) -> list[float]:
        """How far each camera is to the right of the first one."""
        poses = self.cameras.camera_from_head.double().cpu().numpy()
        first_from_head = poses[0]
        return [-float((pose @ np.linalg.inv(first_from_head))[0, 3]) for pose in poses]


class SceneRenderer:
    """Draws scenes for the eyes of `view`; not for two threads at once.

    Args:
        renderer: Rasterizer.
        view: Size and projection.
        background: RGB in [0, 1].
        depth: Fill `Frame.depth_m`.

    Attributes:
        eyes: May be replaced at any time.
    """

    def __init__(
        self,
        renderer: FrameRenderer,
        view: ViewConfig,
        background: tuple[float, float, float],
        *,
        depth: bool,
    ) -> None:
        self._renderer, self._view, self._depth = renderer, view, depth
        self._background = np.asarray(background, np.float32)
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

    def draw(self, scene: Scene, viewer_from_body: Float[np.ndarray, "4 4"]) -> Frame:
        """Render a scene, or its placeholder, as the viewer sees it."""
        if scene.gaussians is None:
            return self._placeholder(scene.text, viewer_from_body)
        cameras = self.eyes.cameras(viewer_from_body, scene.body_from_head)
        images = self._renderer.render_u8(scene.gaussians, cameras, self._background, "rgb")
        depth_m = None
        if self._depth:
            views = render_gaussians(scene.gaussians, cameras[:1], depth=True)
            transparent = views.alpha[0, 0] < MIN_ALPHA
            depth_m = views.depth[0, 0].masked_fill(transparent, float("nan")).cpu().numpy()
        return Frame(images, "rgb8", cameras, viewer_from_body, depth_m)

    def _placeholder(self, text: str, viewer_from_body: Float[np.ndarray, "4 4"]) -> Frame:
        view = self._view
        if text not in self._placeholders:
            picture = placeholder_picture(view.width, view.height, text)
            self._placeholders[text] = np.stack([picture] * len(view.eyes))
        cameras = self.eyes.cameras(viewer_from_body, np.eye(4))
        return Frame(self._placeholders[text], "rgb8", cameras, viewer_from_body)
