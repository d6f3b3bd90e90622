"""What all nodes share: lifecycle, parameters, worker threads, refusals, diagnostics, a clean end.

    unconfigured --configure--> inactive --activate--> active      (and back: deactivate, cleanup)

With `autostart` (the default) a node configures and activates itself, so that a plain `Node` action
or `ros2 run` is enough; without, a lifecycle manager does it.
"""

import gc
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import fields

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from avat3r_ros.nodes.diagnostics import Refusals, StageTimes, diagnostic_array
from avat3r_ros.nodes.hand_over import NOTHING, HandOver
from avat3r_ros.nodes.parameters import declare_parameters, read_parameters
from avat3r_ros.nodes.spinning import spin_quietly

EXPECTED_ERRORS = (ValueError, OSError, RuntimeError)
"""What the core raises for bad input or a missing part; its message is meant for the user."""

DIAGNOSTICS_PERIOD_S = 1.0

JOIN_S = 4.0
"""Patience with a worker that was asked to stop; less than what a launcher has with the process."""


class ManagedNode(LifecycleNode):
    """A lifecycle node; its subclass implements `configure`, `activate`, `deactivate`, `cleanup`.

    Any of the four may raise: an EXPECTED_ERRORS message is logged in one line and the state stays;
    anything else is logged with its traceback and leads to `unconfigured`.

    Args:
        name: Default node name.
        configs: Prefix -> dataclass whose fields become parameters; the prefix of the node's own
            config is "".
        local: What is handed over to other nodes of this process.
        **options: Passed to rclpy's node.

    Attributes:
        local: As given.
        times: Latency per stage.
        refusals: Refused messages.
        failed: A worker thread died of an unexpected error; the process should end with status 1.
    """

    def __init__(
        self, name: str, configs: dict[str, type], *, local: HandOver = NOTHING, **options: object
    ) -> None:
        super().__init__(name, **options)
        self.local = local
        self.times = StageTimes()
        self.refusals = Refusals()
        self.failed = False
        self._configs = configs
        self._stop = threading.Event()
        self._workers: list[threading.Thread] = []
        self._own_parameters: set[str] = set()
        self.declare_parameter(
            "autostart",
            True,
            ParameterDescriptor(description="Configure and activate without a lifecycle manager."),
        )
        for prefix, config_class in configs.items():
            declare_parameters(self, config_class, prefix)
            self._own_parameters |= {prefix + item.name for item in fields(config_class)}
        self.add_on_set_parameters_callback(self._refuse_late_parameters)
        # An invalid transition request raises out of rclpy's service callback: the node would end.
        change_state = self._service_change_state
        change_state.callback = self._tolerant_change_state(change_state.callback)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: after the system's clock was set back an hour, a timer of the node's own
        # clock would be silent for that hour.
        self._diagnostics_timer = self.create_timer(
            DIAGNOSTICS_PERIOD_S,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    # What subclasses implement

    def configure(self) -> None:
        """Read parameters and create what is needed; may raise."""

    def activate(self) -> None:
        """Start working; may raise."""

    def deactivate(self) -> None:
        """Stop working; worker threads have ended before this is called."""

    def cleanup(self) -> None:
        """Free what `configure` created."""

    def health(self) -> tuple[bytes, str]:
        """Level and sentence for /diagnostics; the default knows of workers and refusals only."""
        return DiagnosticStatus.OK, "working" if self.is_active else "not active"

    # What subclasses use

    def config(self, prefix: str = ""):
        """Present values of the parameters declared under `prefix`, as their dataclass."""
        return read_parameters(self, self._configs[prefix], prefix)

    @property
    def is_active(self) -> bool:
        """Whether the lifecycle state is `active`."""
        return self._state_machine.current_state[1] == "active"

    def refuse(self, kind: str, reason: object) -> None:
        """Count a refused message, and log it unless one of its kind was logged just before."""
        if line := self.refusals.add(kind, str(reason)):
            self.get_logger().warning(line)

    def start_worker(self, name: str, work: Callable[[threading.Event], None]) -> None:
        """Run `work(stop)` in a thread until `stop` is set; an error out of it ends the node."""
        stop = self._stop

        def guarded() -> None:
            try:
                work(stop)
            except Exception:
                if not self.context.ok():
                    return  # told to end: publishers were gone before this thread was asked to stop
                self.failed = True
                self.get_logger().fatal(f"{name} failed unexpectedly:\n{traceback.format_exc()}")
                rclpy.try_shutdown(context=self.context)

        thread = threading.Thread(target=guarded, name=f"{self.get_name()}-{name}", daemon=True)
        self._workers.append(thread)
        thread.start()

    def stop_workers(self) -> None:
        """Ask all workers to stop and wait for them."""
        self._stop.set()
        self.wake_workers()
        for thread in self._workers:
            if thread is not threading.current_thread():
                thread.join(timeout=JOIN_S)
        self._workers.clear()
        self._stop = threading.Event()

    def wake_workers(self) -> None:
        """Ring the bells that workers wait for, so that they see the stop at once."""

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Handle the transition; see `configure`."""
        return self._guarded("configure", self.configure, state, super().on_configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Handle the transition; publishers are enabled before `activate` runs."""
        result = super().on_activate(state)
        if result == TransitionCallbackReturn.SUCCESS:
            result = self._guarded("activate", self.activate, state)
            if result != TransitionCallbackReturn.SUCCESS:
                self.stop_workers()
                super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Handle the transition; see `deactivate`."""
        self.stop_workers()
        return self._guarded("deactivate", self.deactivate, state, super().on_deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Handle the transition; see `cleanup`."""
        return self._guarded("cleanup", self.cleanup, state, super().on_cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from whatever state."""
        self._end(state.label)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected error: free everything and be unconfigured."""
        self._end("active")
        return TransitionCallbackReturn.SUCCESS

    def autostart(self) -> bool:
        """Configure and activate if the parameter says so; False when that failed."""
        if not self.get_parameter("autostart").value:
            self.get_logger().info("waiting for a lifecycle manager (autostart is false)")
            return True
        ok = TransitionCallbackReturn.SUCCESS
        try:
            return self.trigger_configure() == ok and self.trigger_activate() == ok
        except Exception:
            if self.context.ok():
                raise
            return False  # told to end, or a worker failed, before the transition was through

    def destroy_node(self) -> None:
        """End workers before the publishers they use are gone."""
        self._end(self._state_machine.current_state[1])
        super().destroy_node()

    def _end(self, label: str) -> None:
        self.stop_workers()
        try:
            if label == "active":
                self.deactivate()
            if label in ("active", "inactive"):
                self.cleanup()
        except EXPECTED_ERRORS as error:
            self.get_logger().error(f"while ending: {error}")

    def _guarded(
        self,
        what: str,
        action: Callable[[], None],
        state: LifecycleState,
        then: Callable[[LifecycleState], TransitionCallbackReturn] | None = None,
    ) -> TransitionCallbackReturn:
        try:
            action()
        except EXPECTED_ERRORS as error:
            self.get_logger().error(f"cannot {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().fatal(f"{what} failed unexpectedly:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return then(state) if then is not None else TransitionCallbackReturn.SUCCESS

    def _tolerant_change_state(self, callback: Callable) -> Callable:
        def tolerant(request, response):
            try:
                return callback(request, response)
            except Exception as error:
                self.refuse("lifecycle transition", error)
                response.success = False
                return response

        return tolerant

    def _refuse_late_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        """Parameters are read by `configure`; changing one later would silently do nothing."""
        state = self._state_machine.current_state[1]
        names = [p.name for p in changed if p.name in self._own_parameters]
        if names and state != "unconfigured":
            reason = f"{', '.join(names)}: read while configuring; deactivate and clean up first"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        level, message = self.health()
        if self.failed:
            level, message = DiagnosticStatus.ERROR, "a worker thread failed, see the log"
        stamp = self.get_clock().now().to_msg()
        name = f"avat3r: {self.get_fully_qualified_name()}"
        array = diagnostic_array(stamp, name, level, message, self.times, self.refusals)
        self._diagnostics_publisher.publish(array)


def keep_for_good() -> None:
    """Tell Python's garbage collector that all there is by now stays.

    Libraries leave some 300,000 objects. To go through them takes 0.25 s, in which no thread of the
    process can work.
    """
    gc.collect()
    gc.freeze()


def run(node_class: type[ManagedNode], args: list[str] | None = None, executor=None) -> int:
    """Run one node until it is told to stop; the body of every executable's `main`.

    Args:
        node_class: Constructed without arguments.
        args: Command line, for ROS arguments.
        executor: Class of the executor; single-threaded if None, which is the fastest for images.

    Returns:
        Exit status: 1 when the node could not start or a worker failed.
    """
    rclpy.init(args=args)
    node = None
    try:
        node = node_class()
        spinner = (executor or SingleThreadedExecutor)()
        spinner.add_node(node)
        if not node.autostart():
            return 1
        keep_for_good()
        spin_quietly(spinner)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ParameterException as error:
        sys.stderr.write(f"{node_class.__name__}: {error}\n")
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return int(node.failed)
