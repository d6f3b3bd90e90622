"""Nodes as processes of their own: killed and restarted while others run, and stopped together."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Expression
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import Image

from avat3r_ros import cli
from avat3r_ros.nodes import paths, supervisor

try:
    paths.package_prefix()
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)

START_S = 60.0
"""Generous: four processes import PyTorch at the same time, on a machine that may be busy."""


@pytest.fixture(scope="module")
def face_video(tmp_path_factory):
    """Half a second of a real face, 256x256."""
    import av
    from skimage import data

    path = tmp_path_factory.mktemp("video") / "face.mp4"
    portrait = np.ascontiguousarray(data.astronaut()[:256, 96:352])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 256, 256, "yuv420p", 10**6
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(portrait, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


@pytest.fixture
def processes():
    output = io.StringIO()
    made = supervisor.NodeProcesses(output=output)
    yield made
    made.stop()
    assert not made.running()


def test_a_killed_tracker_is_noticed_and_its_successor_takes_over(graph, processes, face_video):
    camera, tracker, _, renderer = supervisor.telepresence_nodes(source=face_video, size=64)
    expressions = graph.listen(Expression, "expression", sensor)
    rendered = graph.listen(Image, "rendered/image_raw", sensor)
    for node in (camera, tracker, renderer):
        processes.start(node)
    graph.until(lambda: expressions and rendered, processes._output.getvalue, START_S)
    assert expressions[-1].detected

    processes._processes["expression_tracker"].kill()
    graph.until(lambda: processes.ended() == {"expression_tracker": -signal.SIGKILL})
    graph.spin(0.3)
    expressions.clear()
    rendered.clear()
    graph.until(lambda: len(rendered) > 3, "the renderer stopped with the tracker")
    assert not expressions and set(processes.running()) == {"camera", "avatar_renderer"}

    processes.start(tracker)
    graph.until(lambda: len(expressions) > 3, processes._output.getvalue, START_S)
    stamps = [e.header.stamp.sec + 1e-9 * e.header.stamp.nanosec for e in expressions]
    assert stamps == sorted(stamps) and abs(stamps[-1] - time.time()) < 5.0

    start = time.monotonic()
    processes.stop()
    assert time.monotonic() - start < 8.0, "nodes did not end when asked"
    assert set(processes.ended().values()) == {0}, processes.ended()
    output = processes._output.getvalue()
    assert "Traceback" not in output, output


def test_telepresence_reports_a_dead_node_and_stops_all_on_sigterm(tmp_path):
    """The command as a user runs it; its nodes are found by their parent process."""
    code = (
        "import sys; from avat3r_ros.cli import main;"
        "sys.exit(main(['telepresence', '--source', '/no/such/video.mp4', '--size', '64']))"
    )
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", code], stderr=output, stdout=output)
    try:
        wait_for(log, r"\[camera\].*no such video file.*trying again")
        nodes = children(process.pid)
        assert len(nodes) == 4
        camera = next(pid for pid, line in nodes.items() if "lib/avat3r/camera" in line)
        os.kill(camera, signal.SIGKILL)
        wait_for(log, r"node camera died \(SIGKILL\); still running: expression_tracker, avatar")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15.0) == 1, "a died node is a failure"
        wait_for(log, "telepresence has stopped")
        alive = [pid for pid in nodes if os.path.exists(f"/proc/{pid}")]
        assert not alive, f"left behind: {alive}"
    finally:
        process.kill()


def test_a_missing_parameter_file_is_named_before_anything_starts():
    args = cli.make_parser().parse_args(["telepresence", "--params", "/no/such.yaml"])
    with pytest.raises(FileNotFoundError, match="/no/such.yaml"):
        supervisor.run_telepresence(args)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--driver", "face_weights"], "--avatar"),
        (["--driver", "rosbag", "--avatar", "me.avat3r"], "--recording FILE"),
        (["--driver", "osc", "--avatar", "me.avat3r", "--recording", "x"], "only with them"),
        (["--recording", "x"], "only with them"),
    ],
)
def test_arguments_that_do_not_fit_each_other_are_named(words, says):
    with pytest.raises(ValueError, match=says):
        supervisor.run_telepresence(cli.make_parser().parse_args(["telepresence", *words]))


def test_a_namespace_moves_all_topics_and_keeps_the_parameters(graph, processes, face_video):
    moved = supervisor.NodeProcesses(namespace="robot1", output=io.StringIO())
    images = graph.listen(Image, "/robot1/camera/image_raw", sensor)
    try:
        moved.start(supervisor.telepresence_nodes(source=face_video)[0])
        graph.until(lambda: images, moved._output.getvalue, START_S)
    finally:
        moved.stop()
    assert images[0].header.frame_id == "camera_optical_frame"


def wait_for(log, pattern):
    end = time.monotonic() + START_S
    while not re.search(pattern, log.read_text()):
        assert time.monotonic() < end, f"{pattern!r} never came:\n{log.read_text()[-3000:]}"
        time.sleep(0.1)


def children(parent):
    """Process id -> command line of the children of a process."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as command:
                if int(stat.read().rsplit(")", 1)[1].split()[1]) == parent:
                    found[int(pid)] = command.read().replace("\0", " ")
        except OSError:
            continue
    return found


def test_all_nodes_in_one_process(graph, processes, face_video):
    """Their topics are where those of separate processes are, and they end when asked."""
    (together,) = supervisor.in_one_process(
        supervisor.telepresence_nodes(source=face_video, size=64)
    )
    expressions = graph.listen(Expression, "expression", sensor)
    rendered = graph.listen(Image, "rendered/image_raw", sensor)
    images = graph.listen(Image, "camera/image_raw", sensor)
    processes.start(together)
    graph.until(lambda: expressions and rendered and images, processes._output.getvalue, START_S)
    assert expressions[-1].detected and rendered[0].width == 64
    processes.stop()
    output = processes._output.getvalue()
    assert processes.ended() == {"telepresence": 0}, output
    assert "Traceback" not in output, output
