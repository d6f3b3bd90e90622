"""Film: pairs by stamp, real time, and what a full disk leaves behind."""

import pathlib
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import RendererStatus
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from avat3r_ros import cli
from avat3r_ros.capture.video import iter_frames
from avat3r_ros.nodes import supervisor
from avat3r_ros.nodes.film import FPS, Film
from avat3r_ros.nodes.images import msg_from_image
from avat3r_ros.nodes.qos import LATCHED

SIDE = 32


class Set:
    """A graph that is filmed: the test speaks for camera and renderer."""

    def __init__(self, graph, path, **options):
        self.graph, self.said = graph, []
        options = {"size": SIDE, "eyes": ("",), "camera": True} | options
        self.film = Film(path, say=self.said.append, **options)
        self.film.start(graph.probe, "room")
        self.camera = graph.publisher(Image, "room/camera/image_raw", sensor)
        self.rendered = graph.publisher(Image, "room/rendered/image_raw", sensor)
        self.status = graph.publisher(RendererStatus, "room/avatar_renderer/status", LATCHED)

    def show(self, publisher, stamp, grey, size=(SIDE, SIDE), noise=0):
        picture = np.full((*size, 3), grey, np.uint8)
        if noise:
            picture += np.random.default_rng(stamp).integers(0, noise, picture.shape, np.uint8)
        header = Header()
        header.stamp.sec = stamp
        publisher.publish(msg_from_image(picture, "rgb8", header))
        self.graph.spin(0.03)

    def run(self, pairs, **look):
        self.status.publish(RendererStatus(state=RendererStatus.LIVE))
        for stamp, driver, drawn in pairs:
            self.show(self.camera, stamp, driver, (24, SIDE), **look)
            self.show(self.rendered, stamp, drawn, **look)


def halves(path):
    """Grey of the driver's and of the rendered half of each frame."""
    images = [image for _, image in iter_frames(path)]
    middle = SIDE // 2
    return [(int(i[middle, middle].mean()), int(i[middle, SIDE + middle].mean())) for i in images]


@pytest.mark.realtime
def test_pictures_of_one_stamp_stand_side_by_side_in_real_time(graph, tmp_path):
    path = tmp_path / "live.mp4"
    filmed = Set(graph, path)
    filmed.show(filmed.rendered, 1, 200)
    assert filmed.film.seconds == 0, "nobody is LIVE yet"
    filmed.run([(1, 50, 160)])
    graph.until(lambda: filmed.film.seconds > 0)
    start_s = time.monotonic()
    filmed.run([(i, 40 + 10 * i, 150 + 10 * i) for i in range(2, 9)])
    filmed.show(filmed.camera, 9, 250, (24, SIDE))  # a newer image, not yet shown by the renderer
    graph.until(lambda: time.monotonic() - start_s > 1.0)
    filmed.film.close()
    took_s = time.monotonic() - start_s
    frames = halves(path)
    assert len(frames) == pytest.approx(FPS * took_s, abs=6)
    for driver, drawn in frames[3:]:
        assert abs((drawn - 150) - (driver - 40)) <= 6
    assert abs(frames[-1][0] - 120) <= 4, "the newer image has no rendered one"
    assert [p.name for p in tmp_path.iterdir()] == ["live.mp4"]
    assert "s of film" in filmed.said[0] and len(filmed.said) == 1


def test_without_a_live_operator_there_is_no_film_and_an_older_one_stays(graph, tmp_path):
    path = tmp_path / "live.mp4"
    path.write_text("older")
    filmed = Set(graph, path)
    filmed.show(filmed.rendered, 1, 200)
    filmed.film.close()
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]
    assert filmed.said == [f"{path} was not filmed: the operator was never LIVE"]


def test_a_broken_image_is_grey_and_the_film_goes_on(graph, tmp_path):
    path = tmp_path / "live.mp4"
    filmed = Set(graph, path)
    filmed.run([(1, 40, 150)])
    graph.until(lambda: filmed.film.seconds > 0)
    filmed.camera.publish(Image(encoding="rgb8", header=Header(frame_id="of size zero")))
    filmed.rendered.publish(msg_from_image(np.full((SIDE, SIDE, 3), 200, np.uint8), "rgb8",
                                           Header()))  # fmt: skip
    graph.until(lambda: filmed.film._rendered[""].header.stamp.sec == 0, "the broken image's pair")
    shown_s = filmed.film.seconds
    graph.until(lambda: filmed.film.seconds > shown_s + 2 / FPS)
    filmed.film.close()
    driver, drawn = halves(path)[-1]
    assert abs(driver - 128) < 6 and abs(drawn - 200) < 6


def test_a_full_disk_ends_the_film_with_one_message_and_leaves_nothing(graph, tmp_path, full_disk):
    path = tmp_path / "live.mp4"
    filmed = Set(graph, path, size=256)
    stamps = iter(range(1, 10_000))

    def ended():
        stamp = next(stamps)
        filmed.run([(stamp, 10, 10)], noise=200)
        filmed.show(filmed.rendered, stamp, 10, (256, 256), noise=200)
        return filmed.said

    graph.until(ended)
    filmed.film.close()
    (line,) = filmed.said
    assert "was not filmed: [Errno 27]" in line and line.endswith("; telepresence goes on")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "error"), [("live.avi", ValueError), ("no/folder/live.mp4", FileNotFoundError)]
)
def test_impossible_names_are_refused_before_anything_starts(tmp_path, name, error):
    words = ["telepresence", "--record", str(tmp_path / name)]
    with pytest.raises(error, match=pathlib.Path(name).name.replace("live.mp4", "no such folder")):
        supervisor.run_telepresence(cli.make_parser().parse_args(words))
    assert not list(tmp_path.iterdir())
    words = ["telepresence", "--record-seconds", "3"]
    with pytest.raises(ValueError, match="--record FILE"):
        supervisor.run_telepresence(cli.make_parser().parse_args(words))
