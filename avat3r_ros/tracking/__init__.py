"""Webcam image to FaceState: landmarks, expression codes, head pose, smoothing."""

from avat3r_ros.tracking.smoothing import SmoothingConfig
from avat3r_ros.tracking.tracker import FaceTracker

__all__ = ["FaceTracker", "SmoothingConfig"]
