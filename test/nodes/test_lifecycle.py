"""Every node walks its lifecycle, forwards and backwards, and survives wrong requests."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_stand_ins import FakeTracker

from avat3r_ros.nodes.avatar_builder import AvatarBuilderNode
from avat3r_ros.nodes.avatar_renderer import AvatarRendererNode
from avat3r_ros.nodes.camera import CameraNode
from avat3r_ros.nodes.expression_tracker import ExpressionTrackerNode
from avat3r_ros.nodes.managed import ManagedNode


class Tracker(ExpressionTrackerNode):
    def make_tracker(self, config, smoothing):
        return FakeTracker()


class Camera(CameraNode):
    def __init__(self, **options):
        super().__init__(**options)

    def activate(self):
        """Opening a source is tested elsewhere."""


@pytest.mark.parametrize("make", [AvatarBuilderNode, AvatarRendererNode, Camera, Tracker])
def test_walk_through_all_states_twice(graph, make):
    node = graph.add(make())
    name = node.get_name()

    def change(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return graph.call(ChangeState, f"{name}/change_state", request).success

    def state():
        return graph.call(GetState, f"{name}/get_state", GetState.Request()).current_state.label

    for _ in range(2):
        assert not change(Transition.TRANSITION_ACTIVATE), "unconfigured cannot activate"
        assert change(Transition.TRANSITION_CONFIGURE) and state() == "inactive"
        assert change(Transition.TRANSITION_ACTIVATE) and state() == "active"
        assert not change(Transition.TRANSITION_ACTIVATE)
        assert change(Transition.TRANSITION_DEACTIVATE) and state() == "inactive"
        assert not change(Transition.TRANSITION_DEACTIVATE), "twice is refused, not fatal"
        assert change(Transition.TRANSITION_CLEANUP) and state() == "unconfigured"
    assert node.refusals.counts["lifecycle transition"] == 6


def test_autostart_can_be_left_to_a_lifecycle_manager(graph, overrides):
    node = graph.add(AvatarBuilderNode(**overrides(autostart=False)))
    assert node.autostart()
    assert not node.is_active


class Troubled(ManagedNode):
    """Fails as told."""

    def __init__(self, error=None, worker_error=None):
        super().__init__("troubled", {})
        self.error, self.worker_error = error, worker_error

    def configure(self):
        if self.error is not None:
            raise self.error

    def activate(self):
        def work(stop):
            stop.wait(None if self.worker_error is None else 0.2)
            if self.worker_error is not None:
                raise self.worker_error

        self.start_worker("work", work)


def test_an_expected_error_leaves_the_state_and_says_why(graph, capfd):
    node = graph.add(Troubled(ValueError("no such model file")))
    assert not node.autostart()
    assert node._state_machine.current_state[1] == "unconfigured"
    assert "cannot configure: no such model file" in capfd.readouterr().err
    node.error = None
    assert node.autostart() and node.is_active


def test_an_unexpected_error_is_shown_with_its_place(graph, capfd):
    node = graph.add(Troubled(KeyError("bug")))
    assert not node.autostart()
    assert node._state_machine.current_state[1] == "unconfigured"
    assert "in configure" in capfd.readouterr().err


def test_a_worker_that_fails_is_loud_and_ends_the_process(graph, capfd):
    node = graph.start(Troubled(worker_error=KeyError("bug")))
    for thread in list(node._workers):
        thread.join(5.0)
    assert node.failed
    assert "KeyError" in capfd.readouterr().err
    assert not node.context.ok(), "the node must not live on without its worker"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize("module", ["avat3r_ros.nodes.avatar_renderer", "threading"])
def test_threads_of_a_node_share_one_memory_arena(module):
    """Where each has its own, a late image grows another one."""
    script = f"""
import ctypes, threading, {module}
libc = ctypes.CDLL(None)
together = threading.Barrier(4)
def work():
    together.wait()
    libc.malloc(5000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    is_node = module.startswith("avat3r_ros")
    assert (ended.stderr.count("Arena ") == 1) == is_node
