"""Feature maps of the reference crops, one kind of network a file; `none` is the default.

The paper gives its network Sapiens features (arXiv 2502.20220, section 3). Feature maps enter a
network through the tokens, which an avatar keeps: they are computed once per avatar.
"""

from avat3r_ros.priors.features.backbones import load_backbone
from avat3r_ros.priors.features.extractor import FeatureExtractor
from avat3r_ros.priors.features.sapiens import load_sapiens

__all__ = ["FeatureExtractor", "load_backbone", "load_sapiens"]
