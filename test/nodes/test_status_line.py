"""The status line: what it says, and that it ends with the graph it listens to."""

import io

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import RendererStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from avat3r_ros.nodes import supervisor
from avat3r_ros.nodes.status_line import GraphWatch, compose


def diagnostics(node, **values):
    pairs = [KeyValue(key=key.replace("_", " "), value=value) for key, value in values.items()]
    return DiagnosticArray(status=[DiagnosticStatus(name=f"avat3r: {node}", values=pairs)])


def test_before_the_renderer_speaks_the_line_says_who_is_there():
    assert "no node yet" in compose({}, None)
    assert "camera up" in compose({"camera": {}}, None)


def test_the_line_has_state_rate_percentiles_of_all_ways_and_refusals():
    renderer = {
        "captured to published": "p50 41.2 p95 55.0 p99 63.4 max 70.0 ms, 29.0/s",
        "captured to tracked": "p50 22.0 p95 31.0 p99 40.0 max 50.0 ms, 29.0/s",
        "refused expression": "2",
    }
    values = {"avatar_renderer": renderer, "expression_tracker": {"refused image": "1"}}
    line = compose(values, RendererStatus(state=RendererStatus.HOLD, rendered_hz=58.4))
    assert line == (
        "HOLD, 58 frames/s | camera to image 41/55/63 ms (p50/p95/p99): tracked 22/31/40 | "
        "refused 3"
    )


def test_only_nodes_of_the_own_namespace_count(graph):
    watch = GraphWatch(graph.probe, "robot1")
    publisher = graph.publisher(DiagnosticArray, "/diagnostics")
    publisher.publish(diagnostics("/robot2/camera", grab="x"))
    publisher.publish(diagnostics("/robot1/expression_tracker", track="y"))
    graph.until(lambda: "expression_tracker" in watch.line())
    assert "camera" not in watch.line()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_messages_go_above_the_line_on_a_terminal_and_between_lines_in_a_file(kind):
    output = kind()
    processes = supervisor.NodeProcesses(__file__, output=output)
    processes.show("status")
    processes.say("message")
    text = output.getvalue()
    if kind is Terminal:
        assert text.endswith(f"{supervisor.CLEAR_LINE}message\nstatus")
    else:
        assert text == "status\nmessage\n"
