"""DUSt3R: position maps from what a published network sees in pairs of photos.

    crops ─network─► points of each pair ─alignment─► depth, cameras ─position_maps─► ReferenceViews

Own implementation of the network of Wang et al., "DUSt3R: Geometric 3D Vision Made Easy" (CVPR
2024, arXiv 2312.14132), made to load the published weights. Those weights are not part of this
package and are licensed for non-commercial use only (CC BY-NC-SA 4.0).
"""

from avat3r_ros.priors.dust3r.checkpoint import Dust3rWeightsError, load_dust3r
from avat3r_ros.priors.dust3r.config import Dust3rConfig
from avat3r_ros.priors.dust3r.network import Dust3r

__all__ = ["Dust3r", "Dust3rConfig", "Dust3rWeightsError", "load_dust3r"]
