"""Real rclpy in this process, on a DDS domain of its own."""

import os
import pathlib
import sys
import time

import pytest

# Before the first rclpy.init: other test runs on this machine must not be heard.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 200)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "0")

# Test folders are no packages; this makes node_stand_ins.py importable from the files beside it.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


class Graph:
    """Nodes of one test and a probe node that listens and speaks for the test."""

    def __init__(self):
        import rclpy
        from rclpy.executors import MultiThreadedExecutor

        self._rclpy = rclpy
        rclpy.init()
        self.executor = MultiThreadedExecutor(num_threads=3)
        self.nodes = []
        self.probe = self.add(rclpy.create_node("probe"))

    def add(self, node):
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def start(self, node):
        """Add a managed node and bring it to `active`."""
        self.add(node)
        assert node.autostart(), "the node did not start"
        return node

    def listen(self, kind, topic, qos=10):
        """A list that fills with the messages of a topic."""
        got = []
        self.probe.create_subscription(kind, topic, got.append, qos)
        return got

    def publisher(self, kind, topic, qos=10, matched=1):
        """A publisher that its subscribers here have found, too: until then best effort loses."""
        before = [
            (one, one.get_publisher_count()) for node in self.nodes for one in node.subscriptions
        ]
        made = self.probe.create_publisher(kind, topic, qos)
        self.until(lambda: made.get_subscription_count() >= matched, f"nobody reads {topic}")
        here = [(one, count) for one, count in before if one.topic_name == made.topic_name]
        self.until(
            lambda: (
                sum(one.get_publisher_count() > count for one, count in here)
                >= min(made.get_subscription_count(), len(here))
            ),
            f"nobody hears {topic}",
        )
        return made

    def until_heard(self, topic):
        """Wait until the publishers and subscriptions of a topic here have found each other."""

        def of_topic(kind):
            ends = [one for node in self.nodes for one in getattr(node, kind)]
            return [one for one in ends if one.topic_name == f"/{topic}"]

        publishers, subscriptions = of_topic("publishers"), of_topic("subscriptions")
        assert publishers and subscriptions, f"{topic} needs somebody on both ends"
        self.until(
            lambda: (
                all(one.get_subscription_count() for one in publishers)
                and all(one.get_publisher_count() for one in subscriptions)
            ),
            f"nobody hears {topic}",
        )

    def call(self, kind, name, request):
        """Call a service and return its response."""
        client = self.probe.create_client(kind, name)
        self.until(client.service_is_ready, f"no service {name}")
        future = client.call_async(request)
        self.until(future.done, f"no answer from {name}")
        return future.result()

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def until(self, condition, message="condition never came true", timeout_s=60.0):
        """Spin until the condition holds; fail after the timeout.

        It is long because machines stand still at times; a test that passes never waits for it.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, message
            self.executor.spin_once(timeout_sec=0.01)

    def close(self):
        for node in self.nodes:
            node.destroy_node()
        self.executor.shutdown()
        self._rclpy.try_shutdown()


@pytest.fixture
def graph():
    made = Graph()
    yield made
    made.close()


@pytest.fixture
def overrides():
    """Build node options that set parameters: overrides(size=3) -> parameter_overrides=[...]."""

    def build(**values):
        from rclpy.parameter import Parameter

        named = {name.replace("__", "."): value for name, value in values.items()}
        return {"parameter_overrides": [Parameter(name, value=v) for name, v in named.items()]}

    return build


@pytest.fixture(scope="session")
def small_face_avatar(tmp_path_factory):
    """File of an avatar of the synthetic operator that the real animator can animate."""
    from avat3r_ros.nodes.latency_session import operators_avatar

    return operators_avatar(tmp_path_factory.mktemp("avatar"), compiled=False)
