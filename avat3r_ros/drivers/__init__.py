"""Expressions that do not come from images: what a phone, a headset, a program or a file says.

UDP datagram ────► LiveLinkFace, OscFace ─┐
named weights ───► FaceWeights ───────────┼─► FaceSample, FaceState ─► nodes/expression_driver.py
code file, bag ──► Playback ──────────────┘
"""

from avat3r_ros.drivers.face_weights import FaceWeights
from avat3r_ros.drivers.live_link_face import LiveLinkFace
from avat3r_ros.drivers.osc_face import OscFace
from avat3r_ros.drivers.playback import Playback
from avat3r_ros.drivers.sample import FaceSample, FaceSource

__all__ = ["FaceSample", "FaceSource", "FaceWeights", "LiveLinkFace", "OscFace", "Playback"]
