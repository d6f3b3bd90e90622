"""camera: files, absent devices, the synthetic operator."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from avat3r_ros.nodes import camera, sources
from avat3r_ros.nodes.camera import CameraNode
from avat3r_ros.nodes.images import image_from_compressed, image_from_msg


@pytest.fixture(scope="module")
def red_video(tmp_path_factory):
    """Ten red frames of 64x48."""
    import av

    path = tmp_path_factory.mktemp("video") / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        red = np.zeros((48, 64, 3), np.uint8)
        red[..., 0] = 200
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def test_a_video_is_played_in_a_loop_with_its_calibration(graph, overrides, red_video):
    node = CameraNode(**overrides(source=red_video, focal_px=70.0, compressed_quality=90))
    images = graph.listen(Image, "image_raw", sensor)
    infos = graph.listen(CameraInfo, "camera_info", sensor)
    jpegs = graph.listen(CompressedImage, "image_raw/compressed", sensor)
    graph.start(node)
    graph.until(lambda: len(images) > 12 and infos and jpegs)
    picture = image_from_msg(images[-1])
    assert picture.shape == (48, 64, 3)
    assert picture[..., 0].mean() > 180 and picture[..., 2].mean() < 20
    assert image_from_compressed(jpegs[-1])[..., 0].mean() > 180
    assert images[-1].header.frame_id == "camera_optical_frame"
    assert infos[-1].k[0] == 70.0 and infos[-1].k[2] == 31.5
    stamps = [i.header.stamp.sec + 1e-9 * i.header.stamp.nanosec for i in images]
    assert stamps == sorted(stamps)


def test_a_video_without_loop_ends_in_peace(graph, overrides, red_video):
    node = graph.start(CameraNode(**overrides(source=red_video, loop=False)))
    graph.until(lambda: not any(t.is_alive() for t in node._workers))
    assert not node.failed and node.is_active


@pytest.mark.parametrize("source", ["/dev/video_none", "77", "/no/such/file.mp4"])
def test_an_absent_source_is_said_once_and_awaited(graph, overrides, capfd, monkeypatch, source):
    monkeypatch.setattr(camera, "RETRY_S", 0.05)
    node = graph.start(CameraNode(**overrides(source=source)))
    graph.until(lambda: node.health()[0] == DiagnosticStatus.ERROR)
    graph.spin(0.3)
    assert node.is_active
    errors = [line for line in capfd.readouterr().err.splitlines() if "trying again" in line]
    assert len(errors) == 1 and source.split("/")[-1] in errors[0]


def test_a_camera_that_comes_back_goes_on(graph, overrides, monkeypatch):
    class Flaky:
        intrinsics = None

        def __init__(self):
            self.left = 2

        def read(self):
            self.left -= 1
            if self.left < 0:
                raise sources.SourceLostError("camera 0 no longer gives images; unplugged?")
            return np.zeros((8, 8, 3), np.uint8)

        def close(self):
            """Nothing to free."""

    opened = []

    def open_source(*_, **__):
        opened.append(Flaky())
        return opened[-1]

    monkeypatch.setattr(camera, "open_source", open_source)
    monkeypatch.setattr(camera, "RETRY_S", 0.05)
    images = graph.listen(Image, "image_raw", sensor)
    graph.start(CameraNode())
    graph.until(lambda: len(opened) >= 3 and len(images) >= 4)


def test_uncalibrated_cameras_send_an_empty_calibration(graph, overrides, red_video):
    infos = graph.listen(CameraInfo, "camera_info", sensor)
    graph.start(CameraNode(**overrides(source=red_video)))
    graph.until(lambda: infos)
    assert not infos[-1].k.any() and infos[-1].width == 64


def test_the_synthetic_operator_comes_with_its_camera():
    source = sources.open_source("synthetic", width=64, height=48, fps=1000.0, loop=True, seed=0)
    image = source.read()
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8 and image.std() > 5
    assert source.intrinsics.shape == (3, 3) and source.intrinsics[0, 0] > 30
    source.close()


def test_an_empty_source_name_is_explained():
    with pytest.raises(ValueError, match="/dev/video0"):
        sources.open_source("", width=64, height=48, fps=30.0, loop=True, seed=0)
