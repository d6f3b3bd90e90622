"""An avatar and an expression code to Gaussians."""

from avat3r_ros.animation.animator import Animator

__all__ = ["Animator"]
