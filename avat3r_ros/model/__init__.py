"""Reference views to an avatar: the Avat3r network and its base guess.

Read `network.py` for the data flow, `base_guess.py` and `rig_motion.py` for what an untrained
network returns, `avatar.py` for what an avatar file holds.
"""

from avat3r_ros.model.avatar import build_avatar, restore_avatar
from avat3r_ros.model.checkpoint import (
    CheckpointError,
    load_network,
    save_network,
    weights_sha256,
)
from avat3r_ros.model.config import PRESETS, Avat3rConfig, cloud, preset
from avat3r_ros.model.network import Avat3r
from avat3r_ros.model.prefix import Prefix, subset_prefix

__all__ = [
    "PRESETS",
    "Avat3r",
    "Avat3rConfig",
    "CheckpointError",
    "Prefix",
    "build_avatar",
    "cloud",
    "load_network",
    "preset",
    "restore_avatar",
    "save_network",
    "subset_prefix",
    "weights_sha256",
]
