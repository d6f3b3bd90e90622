"""The demo on a network where somebody else runs avat3r. The demo itself: `make demo`."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Expression

from avat3r_ros.nodes import demo_session
from avat3r_ros.nodes.spinning import side_node


def test_a_graph_that_runs_already_is_not_joined(monkeypatch):
    monkeypatch.setattr(demo_session, "graph", lambda: pytest.fail("a second graph was started"))
    with side_node("somebody") as somebody:
        somebody.create_publisher(Expression, "expression", 1)
        with pytest.raises(RuntimeError, match="another avat3r graph.*ROS_DOMAIN_ID"):
            demo_session.record(1.0)
