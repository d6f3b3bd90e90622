"""libavat3r_native, our C++ library of rasterizers, bases and reprojection, called through ctypes.

`src/avat3r_native.h` is its interface; loader.py finds it and build.py compiles it where it is
missing.
"""

from avat3r_ros.native.basis import LinearBasis
from avat3r_ros.native.loader import library
from avat3r_ros.native.mesh import MeshFragments, rasterize_mesh
from avat3r_ros.native.reproject import reproject
from avat3r_ros.native.splats import (
    SplatGradients,
    SplatScene,
    SplatStats,
    SplatWorkspace,
    instruction_sets,
)

__all__ = [
    "LinearBasis",
    "MeshFragments",
    "SplatGradients",
    "SplatScene",
    "SplatStats",
    "SplatWorkspace",
    "instruction_sets",
    "library",
    "rasterize_mesh",
    "reproject",
]
