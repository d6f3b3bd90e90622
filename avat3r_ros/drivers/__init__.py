"""Expressions that do not come from images: what a phone, another program or a file says.

UDP datagram ─► LiveLinkFace, OscFace ─┐
code file ────► Playback ──────────────┴─► FaceSample, FaceState ─► nodes/expression_driver.py
"""

from avat3r_ros.drivers.live_link_face import LiveLinkFace
from avat3r_ros.drivers.osc_face import OscFace
from avat3r_ros.drivers.playback import Playback
from avat3r_ros.drivers.sample import FaceSample, FaceSource

__all__ = ["FaceSample", "FaceSource", "LiveLinkFace", "OscFace", "Playback"]
