"""From what the other photos say of each pixel to a change that lasts in every expression.

    evidence of the pixel and its surroundings ─► features ────────┐
    evidence of cells of all views ─► self-attention ─► features, ─┴─► GELU ─► GELU ─► 14 changes
                                          between the nearest four

Run once per person. One of the outputs moves the pixel along its own ray: that is where the
evidence was looked for, and a direction would be hard to learn from numbers about depth. Attention
carries what outlines tell of hair to where no outline is near.

Letters: P kept pixels, F features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avat3r_ros.model.changes import ATTRIBUTES
from avat3r_ros.model.evidence import EVIDENCE_INPUTS, NUMBERS, Evidence
from avat3r_ros.model.layers import SelfAttentionBlock, zeros_linear
from avat3r_ros.model.pixel_decoder import between_tokens

CELL_WIDTH, CELL_HEADS = 64, 4

CELL_DROPOUT = 0.3
"""Share of the cells' features left out in training: all cells together can tell a person."""

UNITS = {"along_ray": 1.0, "position": 0.5, "log_scale": 1.0, "color": 0.3, "opacity": 3.0}
"""What an output of one means, relative to `ATTRIBUTES`: about how far each has to go."""

LEAST_LOG_SCALE = -0.1
"""Pixels shrink by a tenth at most: smaller ones look sharper to a score, and like a sieve in a
fold that is seen from near."""

_CHANNELS = {"along_ray": 1, "position": 3, "log_scale": 3, "color": 3, "opacity": 1}


class EvidenceDecoder(nn.Module):
    """Changes per pixel from evidence; the last layers are zero.

    Args:
        features: F.
        layers: Of self-attention among the cells; 0 looks at the pixels' surroundings alone.
    """

    def __init__(self, features: int, layers: int) -> None:
        super().__init__()
        if layers:
            self.from_cells = nn.Linear(NUMBERS, CELL_WIDTH)
            self.attention = nn.ModuleList(
                SelfAttentionBlock(CELL_WIDTH, CELL_HEADS) for _ in range(layers)
            )
            self.cell_norm = nn.LayerNorm(CELL_WIDTH)
            self.to_pixels = nn.Linear(CELL_WIDTH, features)
        self.layers = layers
        self.from_evidence = nn.Linear(EVIDENCE_INPUTS, features)
        self.hidden = nn.Linear(features, features)
        self.heads = nn.ModuleDict(
            {name: zeros_linear(features, count) for name, count in _CHANNELS.items()}
        )

    def forward(self, evidence: Evidence, rays: Float[Tensor, "p 3"]) -> Float[Tensor, "p 14"]:
        """Decode.

        Args:
            evidence: Of the pixels.
            rays: Unit vectors from the pixels' places towards their own cameras.
        """
        features = self.from_evidence(evidence.numbers)
        if self.layers:
            cells = self.from_cells(evidence.cells)[None]
            for block in self.attention:
                cells = block(cells)
            around = nn.functional.dropout(
                self.to_pixels(self.cell_norm(cells[0])), CELL_DROPOUT, self.training
            )
            features = features + between_tokens(around, evidence.places, slice(None))
        features = nn.functional.gelu(self.hidden(nn.functional.gelu(features)))
        out = {name: UNITS[name] * head(features) for name, head in self.heads.items()}
        out["position"] = out["position"] + out.pop("along_ray") * rays
        out["log_scale"] = out["log_scale"].clamp(min=LEAST_LOG_SCALE)
        out["rotation"] = torch.zeros_like(rays[:, :1]).expand(-1, ATTRIBUTES["rotation"])
        return torch.cat([out[name] for name in ATTRIBUTES], -1)

    @torch.no_grad()
    def scale_changes(self, *, place: float = 1.0, opacity: float = 1.0) -> None:
        """Make the last layers change places and opacities by these shares of what they learned."""
        for name, share in (("along_ray", place), ("position", place), ("opacity", opacity)):
            for parameter in self.heads[name].parameters():
                parameter.mul_(share)
