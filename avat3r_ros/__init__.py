"""avat3r: four photos become an animatable 3D Gaussian head, driven by a webcam, rendered live.

Read `types.py` for the data that travels, `geometry.py` for frames and units, and `pipeline.py` for
the order of the stages. Nothing here needs ROS except `nodes/`.
"""

__version__ = "0.1.0"
