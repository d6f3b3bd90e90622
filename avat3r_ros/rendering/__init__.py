"""Gaussians to images: one rasterizer with two back-ends, frames for live use, PLY files.

`rasterization` is the bare call, `render_gaussians` the same for our data types, `FrameRenderer`
the fast way to bytes, `reproject` a drawn layer from another place. `ply` and `reference` are
imported by those who need them.
"""

from avat3r_ros.rendering.frames import FrameRenderer, RenderedViews, render_gaussians
from avat3r_ros.rendering.rasterization import rasterization
from avat3r_ros.rendering.reprojection import Layer, Reprojected, layer_camera, reproject

__all__ = [
    "FrameRenderer",
    "Layer",
    "RenderedViews",
    "Reprojected",
    "layer_camera",
    "rasterization",
    "render_gaussians",
    "reproject",
]
