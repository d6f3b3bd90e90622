"""Parameters of the expression driver."""

from dataclasses import dataclass

from avat3r_ros.drivers import LiveLinkFace, OscFace, live_link_face, osc_face
from avat3r_ros.nodes.parameters import ranged

UDP_SOURCES = {
    "live_link_face": (LiveLinkFace, live_link_face.PORT),
    "osc": (OscFace, osc_face.PORT),
}
FACE_WEIGHTS, RECORDING, ROSBAG = "face_weights", "recording", "rosbag"
DRIVERS = (*UDP_SOURCES, FACE_WEIGHTS, RECORDING, ROSBAG)
PLAYED = {
    RECORDING: "a code file, as `avat3r track` writes it",
    ROSBAG: "a bag, as `ros2 bag record` writes it",
}


@dataclass(frozen=True)
class DriverConfig:
    """Parameters of the expression driver.

    Attributes:
        driver: "live_link_face" (UDP packets of the iPhone app), "osc" (UDP), "face_weights" (a
            headset's weights by topic), "recording" (a file of `avat3r track`) or "rosbag".
        address: Of this machine, where packets are taken; 0.0.0.0 takes them from every network
            that can reach it, 127.0.0.1 only from programs here.
        port: UDP port; 0 is the usual one, 11111 for Live Link Face, 9000 for OSC.
        sender: IP address of the only sender whose packets are taken; empty takes all. UDP senders
            can be forged: keep the port away from networks you do not trust.
        head_unit_deg: Degrees of a head angle of 1: 57.29578 for radians, 1 for degrees, 180 for
            shares of half a turn.
        frame_id: Of the expressions; empty gives each source one of its own, by its name.
        recording: Code file or bag that is played.
        bag_topic: Topic of the bag that is played; empty takes the only one of expressions.
        loop: Start the recording again at its end.
    """

    driver: str = "live_link_face"
    address: str = "0.0.0.0"
    port: int = ranged(0, 0, 65535)
    sender: str = ""
    head_unit_deg: float = ranged(57.29578, 0.01, 360.0)
    frame_id: str = ""
    recording: str = ""
    bag_topic: str = ""
    loop: bool = True

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise ValueError(f"expected a driver of {DRIVERS}, got {self.driver!r}")
        if self.driver in PLAYED and not self.recording:
            raise ValueError(f"expected {PLAYED[self.driver]}, in `recording`, got none")
