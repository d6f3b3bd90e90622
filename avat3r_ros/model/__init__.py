"""Reference views to an avatar: the Avat3r network and its base guess.

Read `network.py` for the data flow, `base_guess.py` and `rig_motion.py` for what an untrained network
returns, `avatar.py` for what an avatar file holds.
"""

from avat3r_ros.model.config import PRESETS, Avat3rConfig, preset
from avat3r_ros.model.network import Avat3r, Prefix

__all__ = ["PRESETS", "Avat3r", "Avat3rConfig", "Prefix", "preset"]
