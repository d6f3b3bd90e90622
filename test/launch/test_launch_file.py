"""telepresence.launch.py: the same graph as `avat3r telepresence`, argument by argument."""

import importlib.util
import pathlib
import runpy
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes import paths, supervisor

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import launch_stand_in

FILE = pathlib.Path(__file__).resolve().parents[2] / "launch" / "telepresence.launch.py"
ARGUMENTS = {
    *("source", "avatar", "size", "stereo", "camera", "autostart", "namespace", "params_file"),
    *("rviz", "driver", "recording", "composition"),
}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    try:
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(paths.package_prefix()))
    except RuntimeError as error:
        pytest.skip(str(error))


def nodes(**arguments):
    """Nodes of the launch file by executable, with the stand-in for `launch`."""
    context = launch_stand_in.execute(FILE, arguments)
    return {node.executable: node for node in context.nodes}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({}, {}),
        (
            {"source": "0", "avatar": "/tmp/1.avat3r", "size": "256", "stereo": "true"},
            {"source": "0", "avatar": "/tmp/1.avat3r", "size": 256, "stereo": True},
        ),
        ({"autostart": "false"}, {"autostart": False}),
        ({"driver": "osc"}, {"driver": "osc"}),
        (
            {"driver": "recording", "recording": "/tmp/1.jsonl"},
            {"driver": "recording", "recording": "/tmp/1.jsonl"},
        ),
    ],
)
def test_the_launch_file_and_the_supervisor_start_the_same_nodes(arguments, options):
    launched = nodes(**arguments)
    supervised = supervisor.telepresence_nodes(**options)
    assert list(launched) == [node.name for node in supervised]
    for node in supervised:
        twin = launched[node.name]
        assert twin.package == "avat3r"
        assert twin.parameters == dict(node.parameters)
        assert twin.remappings == dict(node.remappings)
        shipped = str(paths.share_file("config", "telepresence.yaml"))
        assert twin.parameter_files == [shipped]
        assert paths.executable(node.name).exists()


def test_numbers_stay_text_where_text_is_meant():
    """`source:=0` is a camera's name, not a number: a number would end the node."""
    assert nodes(source="0")["camera"].parameters["source"] == "0"


def test_namespace_and_parameter_file_reach_every_node():
    for node in nodes(namespace="robot1", params_file="/tmp/my.yaml").values():
        assert node.namespace == "robot1" and node.parameter_files == ["/tmp/my.yaml"]


def test_camera_and_rviz_are_optional():
    assert "camera" not in nodes(camera="false")
    assert "rviz2" in nodes(rviz="true") and "rviz2" not in nodes()


def test_another_driver_stands_in_for_camera_and_tracker():
    for driver in ("live_link_face", "osc", "face_weights", "recording", "rosbag"):
        started = nodes(driver=driver)
        assert "expression_driver" in started
        assert not {"camera", "expression_tracker"} & set(started)
    assert "expression_driver" not in nodes()


@pytest.mark.parametrize("driver", ["camera", "osc"])
def test_one_process_is_the_same_graph(driver):
    launched = nodes(driver=driver, size="64", composition="true")
    assert list(launched) == ["telepresence"]
    twin = launched["telepresence"]
    (node,) = supervisor.in_one_process(supervisor.telepresence_nodes(driver=driver, size=64))
    assert twin.arguments == list(node.arguments)
    assert set(node.remappings.items()) <= set(twin.remappings.items())
    assert set(node.parameters.items()) <= set(twin.parameters.items())
    if driver == "camera":
        assert twin.remappings == dict(node.remappings)
    assert nodes(camera="false", composition="true")["telepresence"].arguments[-1] == "false"


def test_wrong_choices_are_refused():
    with pytest.raises(RuntimeError, match="stereo:=maybe"):
        nodes(stereo="maybe")


@pytest.mark.parametrize(
    "name", ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"]
)
def test_images_get_a_large_shared_memory_segment_unless_the_user_has_a_profile(name, monkeypatch):
    environment = launch_stand_in.execute(FILE, {}).environment
    profile = pathlib.Path(environment[name])
    assert profile.is_file() and "<segment_size>67108864<" in profile.read_text()
    kept = launch_stand_in.execute(FILE, {}, {name: "/home/me/mine.xml"}).environment
    assert kept[name] == "/home/me/mine.xml"
    monkeypatch.delenv(name, raising=False)
    assert supervisor.node_environment()[name] == str(profile)
    monkeypatch.setenv(name, "/home/me/mine.xml")
    assert supervisor.node_environment()[name] == "/home/me/mine.xml"


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="the real launch is part of a ROS 2 installation: source one to run this",
)
def test_the_real_launch_accepts_the_file():
    from launch_ros.actions import Node

    description = runpy.run_path(str(FILE))["generate_launch_description"]()
    assert {a.name for a in description.get_launch_arguments()} == ARGUMENTS
    executables = [e.node_executable for e in description.entities if isinstance(e, Node)]
    names = [node.name for node in supervisor.telepresence_nodes()]
    assert executables == [*names[:2], "expression_driver", *names[2:], "telepresence", "rviz2"]


def test_all_arguments_are_declared():
    context = launch_stand_in.execute(FILE, {})
    assert set(context.configurations) == ARGUMENTS
