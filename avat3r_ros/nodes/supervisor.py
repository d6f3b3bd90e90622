"""`avat3r telepresence`: the graph of telepresence.launch.py as plain processes.

For machines without `ros2 launch`. Same nodes, same parameter files, same remappings; a test
compares the two. No node is restarted in silence: one that dies is reported, and the others go on.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from avat3r_ros.nodes.driver_config import PLAYED
from avat3r_ros.nodes.film import Film
from avat3r_ros.nodes.paths import executable, node_environment, share_file
from avat3r_ros.nodes.spinning import side_node
from avat3r_ros.nodes.status_line import GraphWatch

STOP_STEPS = ((signal.SIGINT, 6.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))
"""Ever firmer requests to end, each with the time it is given."""

CAMERA_DRIVER = "camera"
"""The driver that needs no other node than camera and tracker."""

CLEAR_LINE = "\r\x1b[2K"

CAMERA_TOPICS = {
    topic: f"camera/{topic}" for topic in ("image_raw", "image_raw/compressed", "camera_info")
}
RENDERED_TOPICS = {
    f"{eye}{topic}": f"rendered/{eye}{topic}"
    for eye in ("", "left/", "right/")
    for topic in (
        *("image_raw", "image_raw/compressed", "image_raw/video"),
        *("camera_info", "depth/image_raw"),
    )
}


@dataclass(frozen=True)
class NodeCommand:
    """One node to start.

    Attributes:
        name: Executable in lib/avat3r, and the node's name.
        parameters: Override the parameter file.
        remappings: Topic -> topic.
        arguments: Of the executable.
    """

    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    remappings: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()


def telepresence_nodes(
    *,
    source: str = "synthetic",
    driver: str = CAMERA_DRIVER,
    recording: str = "",
    avatar: str = "",
    size: int = 512,
    stereo: bool = False,
    autostart: bool = True,
) -> list[NodeCommand]:
    """The nodes of the telepresence graph, with what the launch file's arguments set."""
    start = {"autostart": autostart}
    seeing = [
        NodeCommand("camera", {"source": source} | start, CAMERA_TOPICS),
        NodeCommand("expression_tracker", start, CAMERA_TOPICS),
    ]
    told = [NodeCommand("expression_driver", {"driver": driver, "recording": recording} | start)]
    return [
        *(seeing if driver == CAMERA_DRIVER else told),
        NodeCommand("avatar_builder", {"avatar_path": avatar} | start, CAMERA_TOPICS),
        NodeCommand(
            "avatar_renderer",
            {"view.width": size, "view.height": size, "view.stereo": stereo} | start,
            RENDERED_TOPICS,
        ),
    ]


def in_one_process(nodes: Sequence[NodeCommand]) -> list[NodeCommand]:
    """The same graph as a single process; see telepresence.py.

    Parameters reach every node of the process, and those that do not declare them pass them over;
    each remapping is one node's own.
    """
    names = [node.name for node in nodes]
    parameters = {key: value for node in nodes for key, value in node.parameters.items()}
    remappings = {
        f"{node.name}:{topic}": target
        for node in nodes
        for topic, target in node.remappings.items()
    }
    arguments = ["--driver", str(parameters.get("driver", CAMERA_DRIVER))]
    arguments += ["--camera", str("camera" in names).lower()]
    return [NodeCommand("telepresence", parameters, remappings, arguments)]


def command_line(
    node: NodeCommand, params_file: str | Path, namespace: str, folder: str | Path
) -> list[str]:
    """Arguments that start a node; its own parameters go into a file in `folder`."""
    words = [str(executable(node.name)), *node.arguments]
    words += ["--ros-args", "--params-file", str(params_file)]
    if node.parameters:
        own = Path(folder) / f"{node.name}.yaml"
        own.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(node.parameters)}}))
        words += ["--params-file", str(own)]
    if namespace.strip("/"):
        words += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for topic, target in node.remappings.items():
        words += ["-r", f"{topic}:={target}"]
    return words


class NodeProcesses:
    """Starts nodes, passes their output on with their names in front, and stops them all.

    Args:
        params_file: For all nodes; share/avat3r/config/telepresence.yaml if None.
        namespace: Of all nodes.
        output: Gets the lines; standard error if None.
    """

    def __init__(
        self, params_file: str | Path | None = None, namespace: str = "", output=None
    ) -> None:
        self._params_file = params_file or share_file("config", "telepresence.yaml")
        if not Path(self._params_file).is_file():
            raise FileNotFoundError(f"{self._params_file}: no such parameter file")
        self._namespace = namespace
        self._output = output if output is not None else sys.stderr
        self._folder = tempfile.TemporaryDirectory(prefix="avat3r-")
        self._processes: dict[str, subprocess.Popen] = {}
        self._readers: list[threading.Thread] = []
        self._write_lock = threading.Lock()
        self._live_line = ""

    def start(self, node: NodeCommand) -> subprocess.Popen:
        """Start a node; one of the same name that has ended is replaced."""
        process = subprocess.Popen(
            command_line(node, self._params_file, self._namespace, self._folder.name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=node_environment(),
            # Ctrl-C in the terminal reaches us alone; we stop the nodes in order.
            start_new_session=True,
        )
        self._processes[node.name] = process
        reader = threading.Thread(target=self._pass_on, args=(node.name, process), daemon=True)
        reader.start()
        self._readers.append(reader)
        return process

    def process(self, name: str) -> subprocess.Popen:
        """The process of a node that was started.

        Raises:
            KeyError: No such node was started.
        """
        return self._processes[name]

    def running(self) -> list[str]:
        """Names of the nodes that run."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def ended(self) -> dict[str, int]:
        """Exit status of each node that has ended; negative is the signal that killed it."""
        statuses = {name: process.poll() for name, process in self._processes.items()}
        return {name: status for name, status in statuses.items() if status is not None}

    def check(self) -> None:
        """Raise RuntimeError if a node has ended."""
        if ended := self.ended():
            raise RuntimeError(f"node {', '.join(ended)} died; its last words are above")

    def stop(self) -> None:
        """End all nodes, politely first; returns when none is left."""
        for number, patience_s in STOP_STEPS:
            left = [p for p in self._processes.values() if p.poll() is None]
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
            end_s = time.monotonic() + patience_s
            while any(p.poll() is None for p in left) and time.monotonic() < end_s:
                time.sleep(0.02)
        for reader in self._readers:
            reader.join(timeout=1.0)
        self._folder.cleanup()

    def say(self, line: str) -> None:
        """Write a line of our own."""
        with self._write_lock:
            erase, again = (CLEAR_LINE, self._live_line) if self._live_line else ("", "")
            self._output.write(f"{erase}{line}\n{again}")
            self._output.flush()

    def show(self, line: str) -> None:
        """Keep a line below all others on a terminal; a plain line where the output is a file."""
        if not self._output.isatty():
            self.say(line)
            return
        with self._write_lock:
            width = shutil.get_terminal_size().columns - 1
            self._live_line = line[:width]
            self._output.write(f"{CLEAR_LINE}{self._live_line}")
            self._output.flush()

    @property
    def status_period_s(self) -> float:
        """How often a status line is worth showing."""
        return 1.0 if self._output.isatty() else 10.0

    def _pass_on(self, name: str, process: subprocess.Popen) -> None:
        for line in process.stdout:
            self.say(f"[{name}] {line.rstrip()}")


def listen_as_nodes_do() -> None:
    """Let this process's own nodes use the middleware as those it starts; before `rclpy.init`."""
    os.environ.update(node_environment())


def run_telepresence(args: argparse.Namespace) -> int:
    """Run the graph until Ctrl-C, SIGTERM, or until no node is left.

    Args:
        args: source, driver, recording, avatar, size, stereo, single_process, record,
            record_seconds, namespace, params, as `avat3r telepresence` takes them.

    Returns:
        0 when stopped by the user with all nodes alive, 1 when a node died before.

    Raises:
        ValueError: Arguments that do not fit each other.
        OSError: The film cannot be written there.
    """
    if args.driver != CAMERA_DRIVER and not args.avatar:
        raise ValueError(f"expected --avatar with --driver {args.driver}: nobody is seen")
    if (args.driver in PLAYED) != bool(args.recording):
        raise ValueError(
            f"expected --recording FILE with --driver {' or '.join(PLAYED)}, and only with them"
        )
    nodes = telepresence_nodes(
        source=args.source,
        driver=args.driver,
        recording=os.path.abspath(args.recording) if args.recording else "",
        avatar=args.avatar or "",
        size=args.size,
        stereo=args.stereo,
    )
    if args.single_process:
        nodes = in_one_process(nodes)
    processes = NodeProcesses(args.params, args.namespace or "")
    died: dict[str, int] = {}
    film = _film(args, processes.say)
    with _stop_requests() as stop:
        try:
            for node in nodes:
                processes.start(node)
            prefix = f"/{args.namespace.strip('/')}" if args.namespace else ""
            processes.say(f"telepresence is starting; images on {prefix}/rendered, Ctrl-C stops")
            listen_as_nodes_do()
            with side_node("telepresence_watch") as listener:
                watch = GraphWatch(listener, args.namespace or "")
                if film is not None:
                    film.start(listener, args.namespace or "")
                shown_s = time.monotonic()
                while processes.running() and not stop.wait(0.2):
                    _report_deaths(processes, died)
                    if film is not None and 0 < args.record_seconds <= film.seconds:
                        stop.set()
                    if time.monotonic() - shown_s >= processes.status_period_s:
                        shown_s = time.monotonic()
                        processes.show(watch.line())
            if not stop.is_set():
                _report_deaths(processes, died)
        finally:
            if film is not None:
                film.close()
            processes.stop()
    processes.say("telepresence has stopped")
    return int(bool(died))


def _film(args: argparse.Namespace, say: Callable[[str], None]) -> Film | None:
    if not args.record:
        if args.record_seconds:
            raise ValueError("expected --record FILE with --record-seconds")
        return None
    eyes = ("left/", "right/") if args.stereo else ("",)
    camera = args.driver == CAMERA_DRIVER
    return Film(args.record, size=args.size, eyes=eyes, camera=camera, say=say)


def _report_deaths(processes: NodeProcesses, died: dict[str, int]) -> None:
    for name, status in processes.ended().items():
        if name not in died:
            died[name] = status
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            others = ", ".join(processes.running()) or "no node"
            processes.say(f"node {name} died ({how}); still running: {others}")


@contextlib.contextmanager
def _stop_requests(
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[threading.Event]:
    """An event that the signals set, instead of an exception in the middle of starting a node."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
