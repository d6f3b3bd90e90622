"""One line that tells how a running graph does: state, rates, and where the time goes.

    LIVE, 58 frames/s | captured to published 41/55/63 ms: tracked 22/31/40 + ... | refused 2

It only listens (/diagnostics and the renderer's status), so it may run beside any graph.
"""

import re
from collections.abc import Mapping

from avat3r.msg import RendererStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from avat3r_ros.nodes.presence import State
from avat3r_ros.nodes.qos import LATCHED

TOTAL = "captured to published"
WAYS = (
    "captured to tracked",
    "tracked to received",
    "received to animated",
    "animated to rendered",
    "rendered to published",
)
_PERCENTILES = re.compile(r"p50 (\S+) p95 (\S+) p99 (\S+) ")


def compose(values: Mapping[str, Mapping[str, str]], status: RendererStatus | None) -> str:
    """Write the line.

    Args:
        values: Node name -> key -> value of its newest diagnostics.
        status: Newest status of the renderer; None before the first.
    """
    if status is None:
        waiting = ", ".join(sorted(values)) or "no node yet"
        return f"waiting for the renderer ({waiting} up)"
    parts = [f"{State(status.state).name}, {status.rendered_hz:.0f} frames/s"]
    renderer = values.get("avatar_renderer", {})
    if total := _percentiles(renderer, TOTAL):
        ways = [
            f"{way.rsplit(' ', 1)[-1]} {text}"
            for way in WAYS
            if (text := _percentiles(renderer, way))
        ]
        parts.append(f"camera to image {total} ms (p50/p95/p99): " + " + ".join(ways))
    refused = sum(
        int(value)
        for node in values.values()
        for key, value in node.items()
        if key.startswith("refused ")
    )
    if refused:
        parts.append(f"refused {refused}")
    return " | ".join(parts)


def _percentiles(values: Mapping[str, str], way: str) -> str:
    found = _PERCENTILES.match(values.get(way, ""))
    return "/".join(f"{float(v):.0f}" for v in found.groups()) if found else ""


class GraphWatch:
    """Hears what the nodes of one namespace tell about themselves.

    Args:
        node: Gets the subscriptions.
        namespace: Of the graph, with or without slashes.
    """

    def __init__(self, node: Node, namespace: str = "") -> None:
        self._prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
        self._values: dict[str, dict[str, str]] = {}
        self._status: RendererStatus | None = None
        status = f"{self._prefix}avatar_renderer/status"
        node.create_subscription(RendererStatus, status, self._on_status, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def line(self) -> str:
        """How the graph does now."""
        return compose(dict(self._values), self._status)

    def median_ms(self, node: str, stage: str) -> float | None:
        """Median time of a node's stage, milliseconds; None while the node has not said any."""
        found = _PERCENTILES.match(self._values.get(node, {}).get(stage, ""))
        return float(found[1]) if found else None

    def _on_status(self, msg: RendererStatus) -> None:
        self._status = msg

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            name = status.name.removeprefix("avat3r: ")
            folder, _, node = name.rpartition("/")
            if status.name.startswith("avat3r: ") and f"{folder}/" == self._prefix:
                self._values[node] = {v.key: v.value for v in status.values}
