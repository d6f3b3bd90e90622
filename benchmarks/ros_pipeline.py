"""Image in to image out over ROS, between processes, and what the middleware alone costs.

    .venv/bin/python benchmarks/ros_pipeline.py me.avat3r [--size 512] [--seconds 20] [--rate 30]

Sends a face's image with the present time as its stamp to the real tracker and renderer, each in a
process of its own, and takes the time until the rendered image with the same stamp is back: raw,
and as JPEG and VP9 until they are decoded here. Then a viewer moves 60 times a second: the frames
that come, however slow the rest is.
Without --image, skimage's astronaut is the face. Results: benchmarks/results/ros_pipeline.json.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 200))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from avat3r_ros.geometry import look_at_head  # noqa: E402
from avat3r_ros.nodes import supervisor  # noqa: E402
from avat3r_ros.nodes.conversions import msg_from_viewer_from_body  # noqa: E402
from avat3r_ros.nodes.images import image_from_compressed, msg_from_image  # noqa: E402
from avat3r_ros.nodes.paths import node_environment  # noqa: E402
from avat3r_ros.streaming import VideoDecoder  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / "results" / "ros_pipeline.json"

ECHO = """
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("echo")
publisher = node.create_publisher(Image, "echoed", qos_profile_sensor_data)
node.create_subscription(Image, "sent", publisher.publish, qos_profile_sensor_data)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
"""


def face_image(path: str | None, width: int, height: int) -> np.ndarray:
    """RGB picture of a face on a canvas of the camera's size."""
    import cv2

    if path:
        picture = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    else:
        from skimage import data

        picture = data.astronaut()[:256, 96:352]
    side = min(width, height)
    canvas = np.full((height, width, 3), 90, np.uint8)
    left = (width - side) // 2
    canvas[:side, left : left + side] = cv2.resize(np.ascontiguousarray(picture), (side, side))
    return canvas


def round_trips(
    node,
    picture: np.ndarray,
    topic_out: str,
    topic_in: str,
    rate_hz: float,
    seconds: float,
    kind: type = Image,
    decode: Callable[[object], object] = lambda msg: msg,
) -> dict[str, float]:
    """Send at a rate, and match what comes back by its stamp; milliseconds until it is decoded."""
    sent: dict[tuple[int, int], float] = {}
    took: list[float] = []
    sizes: list[int] = []

    def arrived(msg: object) -> None:
        decode(msg)
        sizes.append(len(msg.data))
        start = sent.pop((msg.header.stamp.sec, msg.header.stamp.nanosec), None)
        if start is not None:
            took.append(time.perf_counter() - start)

    publisher = node.create_publisher(Image, topic_out, qos_profile_sensor_data)
    subscription = node.create_subscription(kind, topic_in, arrived, qos_profile_sensor_data)
    end = time.perf_counter() + 90.0
    rng = np.random.default_rng(0)
    warm = 0
    num_sent = 0
    next_s = time.perf_counter()
    while time.perf_counter() < end:
        rclpy.spin_once(node, timeout_sec=max(0.0, next_s - time.perf_counter()))
        if time.perf_counter() < next_s:
            continue
        next_s = max(next_s + 1 / rate_hz, time.perf_counter())
        if len(took) >= 10 and not warm:  # connected and warmed up: measure from here
            warm = len(took)
            num_sent = 0
            end = time.perf_counter() + seconds
        # Sensor noise, so that no frame equals another.
        noisy = picture + rng.integers(0, 3, picture.shape[:2] + (1,), np.uint8)
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id="camera")
        msg = msg_from_image(noisy, "rgb8", header)
        sent[(header.stamp.sec, header.stamp.nanosec)] = time.perf_counter()
        publisher.publish(msg)
        num_sent += 1
    node.destroy_subscription(subscription)
    node.destroy_publisher(publisher)
    if not warm:
        raise SystemExit(f"fewer than 10 images came back on {topic_in} within 90 s")
    p50, p95, worst = 1e3 * np.quantile(took[warm:], [0.5, 0.95, 1.0])
    measured = len(took) - warm
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "max_ms": round(float(worst), 2),
        "sent": num_sent,
        "returned": measured,
        "returned_per_second": round(measured / seconds, 1),
        "kilobytes": round(float(np.median(sizes)) / 1e3, 1),
    }


def measure_middleware(node, picture: np.ndarray, rate_hz: float, seconds: float) -> dict:
    """There and back through one other process that does nothing."""
    command = [sys.executable, "-c", ECHO]
    process = subprocess.Popen(command, env=node_environment())
    try:
        return round_trips(node, picture, "sent", "echoed", rate_hz, seconds)
    finally:
        process.terminate()
        process.wait(5.0)


def measure_pipeline(
    node, picture: np.ndarray, avatar: str, size: int, stereo: bool, rate_hz: float, seconds: float
) -> dict:
    """Camera image -> tracker -> renderer -> image, the avatar sent by the builder."""
    processes = supervisor.NodeProcesses()
    nodes = supervisor.telepresence_nodes(avatar=avatar, size=size, stereo=stereo)
    video = {"encoding.video": "vp9"}
    nodes[-1] = replace(nodes[-1], parameters={**nodes[-1].parameters, **video})
    try:
        for command in nodes[1:]:  # no camera: this process is the camera
            processes.start(command)
        back = "rendered/left/image_raw" if stereo else "rendered/image_raw"
        result = round_trips(node, picture, "camera/image_raw", back, rate_hz, seconds)
        decoder = VideoDecoder("vp9")
        for name, topic, decode in (
            ("as_jpeg", f"{back}/compressed", image_from_compressed),
            ("as_vp9", f"{back}/video", lambda msg: decoder.decode(bytes(msg.data))),
        ):
            result[name] = round_trips(
                node, picture, "camera/image_raw", topic, rate_hz, seconds, CompressedImage, decode
            )
        with moving_viewer(node) as stages:
            frames = count_frames(node, picture, back, rate_hz, min(seconds, 10.0))
        result["frames_per_second_with_moving_viewer"] = frames
        result["stages"] = stages
        result["resident_mb"] = {
            name: round(resident_mb(process.pid)) for name, process in processes._processes.items()
        }
        return result
    finally:
        processes.stop()


@contextlib.contextmanager
def moving_viewer(node):
    """Moves the viewer 60 times a second; gives what the nodes say on /diagnostics meanwhile."""
    stages: dict[str, dict[str, str]] = {}

    def note(msg: DiagnosticArray) -> None:
        stages[msg.status[0].name] = {v.key: v.value for v in msg.status[0].values}

    publisher = node.create_publisher(PoseStamped, "viewer_pose", qos_profile_sensor_data)
    subscription = node.create_subscription(DiagnosticArray, "/diagnostics", note, 10)

    def move() -> None:
        viewer = look_at_head(0.3 * np.sin(2 * time.monotonic()), 0.0, 0.6)
        publisher.publish(PoseStamped(pose=msg_from_viewer_from_body(viewer)))

    timer = node.create_timer(1 / 60, move)
    try:
        yield stages
    finally:
        node.destroy_timer(timer)
        node.destroy_subscription(subscription)
        node.destroy_publisher(publisher)


def count_frames(node, picture: np.ndarray, topic_in: str, rate_hz: float, seconds: float) -> float:
    """Rendered frames per second while the driver's images go on."""
    frames: list[float] = []
    publisher = node.create_publisher(Image, "camera/image_raw", qos_profile_sensor_data)
    subscription = node.create_subscription(
        Image, topic_in, lambda _: frames.append(time.monotonic()), qos_profile_sensor_data
    )

    def send() -> None:
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id="camera")
        publisher.publish(msg_from_image(picture, "rgb8", header))

    timer = node.create_timer(1 / rate_hz, send)
    start = time.monotonic()
    while time.monotonic() < start + seconds + 2.0:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_timer(timer)
    node.destroy_subscription(subscription)
    node.destroy_publisher(publisher)
    return round(sum(t > start + 2.0 for t in frames) / seconds, 1)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def processor() -> str:
    """Name of the CPU."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", nargs="?", help=".avat3r file; without it only the middleware")
    parser.add_argument("--image", help="picture of a face")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size", type=int, default=512, help="rendered image side")
    parser.add_argument("--stereo", action="store_true")
    parser.add_argument("--rate", type=float, default=30.0, help="images sent per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()

    os.environ.update(node_environment())
    rclpy.init()
    node = rclpy.create_node("benchmark")
    picture = face_image(args.image, args.width, args.height)
    report = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        "settings": vars(args),
        "middleware": measure_middleware(node, picture, args.rate, min(args.seconds, 10.0)),
    }
    if args.avatar:
        report["image_to_image"] = measure_pipeline(
            node, picture, args.avatar, args.size, args.stereo, args.rate, args.seconds
        )
    node.destroy_node()
    rclpy.try_shutdown()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
