"""The renderer's own parameters; those of its parts are beside the parts."""

from dataclasses import dataclass

from avat3r_ros.animation import PATHS
from avat3r_ros.nodes.parameters import ranged

BACKGROUND_MODES = ("color", "transparent", "image")


@dataclass(frozen=True)
class RendererConfig:
    """Parameters of the renderer.

    Attributes:
        max_rate_hz: Frames per second are not more than this.
        idle_rate_hz: Frames per second while neither expression nor viewer changes.
        head_motion: "rotation" turns the avatar's head with the operator's; "none" keeps it still.
        head_max_turn_deg: The avatar's head turns by at most this angle, about the same axis.
        background: Red, green and blue in [0, 1].
        background_mode: "color" shows `background`; "transparent" publishes rgba8 with straight
            alpha; "image" shows pictures of background/image_raw (stereo:
            left/background/image_raw and right/…), cut to the frame's shape.
        background_timeout_s: Pictures behind the avatar that are older than this give way to the
            colour.
        viewer_frame: TF frame of the viewer's eyes (optical axes); empty uses viewer_pose.
        animation_path: "auto" takes the avatar's compiled animation where it has one; "full" always
            runs the network or the rig, "compiled" refuses avatars without a compiled animation.
        device: "auto", "cpu" or "cuda".
        backend: Rasterizer: "auto", "gsplat" or "cpu".
        driver_lease_s: Ask drivers to promise to be heard of in this time: one whose process dies
            is then noticed after it. The tracker promises 1 s; 0 takes any publisher.
        compact_expressions: Subscribe to expression/compact instead of expression: 33 kbit/s for 30
            a second, where a link is narrow.
        num_threads: Threads of animation and of rasterizer; 0 takes half of the cores, but two
            where there are two.
    """

    max_rate_hz: float = ranged(60.0, 1.0, 240.0)
    idle_rate_hz: float = ranged(5.0, 0.1, 60.0)
    head_motion: str = "rotation"
    head_max_turn_deg: float = ranged(70.0, 0.0, 180.0)
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    background_mode: str = "color"
    background_timeout_s: float = ranged(0.5, 0.05, 60.0)
    viewer_frame: str = ""
    animation_path: str = "auto"
    device: str = "auto"
    backend: str = "auto"
    driver_lease_s: float = ranged(0.0, 0.0, 60.0)
    compact_expressions: bool = False
    num_threads: int = ranged(0, 0, 256)

    def __post_init__(self) -> None:
        if self.head_motion not in ("rotation", "none"):
            raise ValueError(f"expected head_motion 'rotation' or 'none', got {self.head_motion!r}")
        if self.animation_path not in PATHS:
            raise ValueError(f"expected animation_path of {PATHS}, got {self.animation_path!r}")
        if self.background_mode not in BACKGROUND_MODES:
            raise ValueError(
                f"expected background_mode of {BACKGROUND_MODES}, got {self.background_mode!r}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"expected device 'auto', 'cpu' or 'cuda', got {self.device!r}")
        if len(self.background) != 3 or not all(0 <= v <= 1 for v in self.background):
            raise ValueError(f"expected a background of 3 values in [0, 1], got {self.background}")
