"""An avatar and an expression code to Gaussians."""

from avat3r_ros.animation.animator import PATHS, Animator
from avat3r_ros.animation.compile import CompileConfig, compile_avatar, quick
from avat3r_ros.animation.compiled import is_compiled, thin_avatar

__all__ = [
    "PATHS",
    "Animator",
    "CompileConfig",
    "compile_avatar",
    "is_compiled",
    "quick",
    "thin_avatar",
]
