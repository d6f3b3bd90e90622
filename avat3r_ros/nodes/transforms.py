"""TF, where ROS has it: tf2_ros comes with a ROS installation only. The topics suffice without."""

import numpy as np
from geometry_msgs.msg import TransformStamped
from jaxtyping import Float
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from avat3r_ros.nodes.conversions import (
    HEAD_FROM_FACE,
    msg_from_pose,
    pose_from_msg,
    stamp_s_from_msg,
)
from avat3r_ros.types import FaceState

MISSING = "needs ROS's tf2_ros, which is not installed (apt-get install ros-$ROS_DISTRO-tf2-ros-py)"


class TransformSender:
    """Broadcasts the pose of a face.

    Raises:
        RuntimeError: tf2_ros is not installed.
    """

    def __init__(self, node: Node) -> None:
        try:
            from tf2_ros import TransformBroadcaster
        except ImportError:
            raise RuntimeError(f"publish_tf {MISSING}") from None
        self._broadcaster = TransformBroadcaster(node)

    def send_face(self, face: FaceState, header: Header, child_frame: str) -> None:
        """Send the face's REP-155 frame as a child of the camera's optical frame."""
        pose = msg_from_pose(face.camera_from_head @ HEAD_FROM_FACE)
        transform = TransformStamped(header=header, child_frame_id=child_frame)
        position, translation = pose.position, transform.transform.translation
        translation.x, translation.y, translation.z = position.x, position.y, position.z
        transform.transform.rotation = pose.orientation
        self._broadcaster.sendTransform(transform)


class TransformReader:
    """Looks up where one frame is seen from another.

    Raises:
        RuntimeError: tf2_ros is not installed.
    """

    def __init__(self, node: Node) -> None:
        try:
            import tf2_ros
        except ImportError:
            raise RuntimeError(f"viewer_frame {MISSING}") from None
        self._errors = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def newest(self, parent: str, child: str) -> tuple[Float[np.ndarray, "4 4"], float] | None:
        """Newest parent_from_child and its stamp in seconds, or None while it is not known.

        Raises:
            ValueError: The transform is not finite or not a rotation.
        """
        from geometry_msgs.msg import Pose

        try:
            stamped = self._buffer.lookup_transform(parent, child, Time())
        except self._errors:
            return None
        pose = Pose(orientation=stamped.transform.rotation)
        t = stamped.transform.translation
        pose.position.x, pose.position.y, pose.position.z = t.x, t.y, t.z
        return pose_from_msg(pose), stamp_s_from_msg(stamped.header.stamp)
