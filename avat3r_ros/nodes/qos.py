"""Quality of service by parameter: what a viewer or recorder may need otherwise than a display."""

from dataclasses import dataclass

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

from avat3r_ros.nodes.parameters import ranged

ALIVE_S = 1.0
"""Every publisher of expressions promises to be heard of in this time while its process lives."""

EXPRESSION_OFFER = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(seconds=ALIVE_S),
)
"""An old code is worthless: it is never sent again."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable, and late joiners get the last message."""


@dataclass(frozen=True)
class ImageQosConfig:
    """Parameters of image topics.

    Attributes:
        reliability: Of image topics: "best_effort" loses images rather than waiting; "reliable"
            serves listeners that ask for it, such as RViz by default, and waits for slow ones.
        depth: Images kept for a listener that is slow; more: smoother, later.
    """

    reliability: str = "best_effort"
    depth: int = ranged(5, 1, 100)

    def __post_init__(self) -> None:
        if self.reliability not in ("best_effort", "reliable"):
            raise ValueError(
                f"expected reliability 'best_effort' or 'reliable', got {self.reliability!r}"
            )

    def profile(self) -> QoSProfile:
        """As rclpy takes it."""
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self.depth,
            reliability=ReliabilityPolicy[self.reliability.upper()],
        )


def expression_request(lease_s: float) -> QoSProfile:
    """What the renderer asks of publishers of expressions.

    Args:
        lease_s: Only publishers that promise to be heard of in this time match, and one that dies
            is noticed after it; 0 takes any publisher.
    """
    plain = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    if lease_s > 0:
        plain.liveliness = LivelinessPolicy.AUTOMATIC
        plain.liveliness_lease_duration = Duration(seconds=lease_s)
    return plain
