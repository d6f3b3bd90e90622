"""Expressions on their topics: `expression`, and `expression/compact` for narrow links.

The compact one is sent while somebody listens, and says the same in whole numbers: values in
255ths, angles in 1e-4 radians.
"""

import numpy as np
from avat3r.msg import CompactExpression, Expression
from geometry_msgs.msg import Point, Pose, Quaternion

from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.qos import EXPRESSION_OFFER

TOPIC, COMPACT_TOPIC = "expression", "expression/compact"

_VALUE_STEPS, _GAZE_STEPS, _TURN_STEPS = 255, 10_000, 32_767


class ExpressionPublisher:
    """A node's two topics of expressions, from configuring to cleaning up.

    Args:
        node: Whose expressions they are.
    """

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._whole, self._compact = (
            node.create_lifecycle_publisher(kind, topic, EXPRESSION_OFFER)
            for kind, topic in ((Expression, TOPIC), (CompactExpression, COMPACT_TOPIC))
        )

    def publish(self, expression: Expression) -> None:
        """Send an expression; compactly, too, if somebody listens."""
        self._whole.publish(expression)
        if self._compact.get_subscription_count():
            self._compact.publish(compact_expression(expression))

    def close(self) -> None:
        """Give up both topics."""
        for publisher in (self._whole, self._compact):
            self._node.destroy_lifecycle_publisher(publisher)


def compact_expression(msg: Expression) -> CompactExpression:
    """Round an expression to the steps of the compact message."""
    p, q = msg.head_pose.position, msg.head_pose.orientation
    return CompactExpression(
        header=msg.header,
        detected=msg.detected,
        num_faces=msg.num_faces,
        confidence=round(_VALUE_STEPS * msg.confidence),
        code_space=msg.code_space,
        values=_steps(msg.values, _VALUE_STEPS, np.uint8),
        gaze=_steps(msg.gaze, _GAZE_STEPS, np.int16),
        position=np.array([p.x, p.y, p.z], np.float32),
        orientation=_steps([q.x, q.y, q.z, q.w], _TURN_STEPS, np.int16),
    )


def whole_expression(msg: CompactExpression) -> Expression:
    """Return the expression that a compact one says; nothing is checked that is not elsewhere."""
    turn = np.asarray(msg.orientation, float) / _TURN_STEPS
    return Expression(
        header=msg.header,
        detected=msg.detected,
        num_faces=msg.num_faces,
        confidence=msg.confidence / _VALUE_STEPS,
        code_space=msg.code_space,
        values=(np.asarray(msg.values, np.float32) / _VALUE_STEPS).tolist(),
        gaze=np.asarray(msg.gaze, np.float32) / _GAZE_STEPS,
        head_pose=Pose(
            position=Point(**dict(zip("xyz", map(float, msg.position), strict=True))),
            orientation=Quaternion(**dict(zip("xyzw", turn.tolist(), strict=True))),
        ),
    )


def _steps(values: object, steps: int, kind: type) -> np.ndarray:
    """Whole numbers of steps, within what they can say."""
    limits = np.iinfo(kind)
    return np.rint(np.asarray(values, float) * steps).clip(limits.min, limits.max).astype(kind)
