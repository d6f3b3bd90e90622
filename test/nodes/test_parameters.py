"""Parameters come from dataclasses; the shipped YAML names only parameters that exist."""

import pathlib
import re
from dataclasses import dataclass, fields

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from rcl_interfaces.msg import ParameterType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter

from avat3r_ros.nodes.avatar_builder import AvatarBuilderNode
from avat3r_ros.nodes.avatar_renderer import AvatarRendererNode
from avat3r_ros.nodes.camera import CameraNode
from avat3r_ros.nodes.expression_driver import ExpressionDriverNode
from avat3r_ros.nodes.expression_tracker import ExpressionTrackerNode
from avat3r_ros.nodes.parameters import declare_parameters, descriptions, ranged, read_parameters

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "config" / "telepresence.yaml"
NODES = {
    "avatar_builder": AvatarBuilderNode,
    "avatar_renderer": AvatarRendererNode,
    "camera": CameraNode,
    "expression_driver": ExpressionDriverNode,
    "expression_tracker": ExpressionTrackerNode,
}


@dataclass(frozen=True)
class Sample:
    """A config.

    Attributes:
        rate_hz: How often; a text that
            goes on.
        name: Who.
        color: Which.
    """

    rate_hz: float = ranged(2.0, 1.0, 3.0)
    name: str = "me"
    color: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        if self.name == "nobody":
            raise ValueError("expected somebody")


def test_description_range_and_type_come_from_the_dataclass(graph):
    declare_parameters(graph.probe, Sample, "sample.")
    described = graph.probe.describe_parameter("sample.rate_hz")
    assert described.description == "How often; a text that goes on."
    assert described.type == ParameterType.PARAMETER_DOUBLE
    assert described.floating_point_range[0].to_value == 3.0
    assert read_parameters(graph.probe, Sample, "sample.") == Sample()
    graph.probe.set_parameters([Parameter("sample.color", value=[0.5, 0.5])])
    assert read_parameters(graph.probe, Sample, "sample.").color == (0.5, 0.5)


def test_values_outside_the_range_do_not_get_in(graph):
    declare_parameters(graph.probe, Sample)
    (result,) = graph.probe.set_parameters([Parameter("rate_hz", value=9.0)])
    assert not result.successful
    assert read_parameters(graph.probe, Sample).rate_hz == 2.0


def test_a_field_without_description_is_our_mistake(graph):
    @dataclass
    class Undocumented:
        """Nothing said."""

        x: int = 1

    assert descriptions(Undocumented) == {}
    with pytest.raises(TypeError, match="Undocumented.x"):
        declare_parameters(graph.probe, Undocumented)


@pytest.mark.parametrize("name", sorted(NODES))
def test_shipped_yaml_fits_the_node(graph, name):
    """Unknown names would be ignored in silence by ROS, wrong types end the node."""
    node = graph.add(NODES[name]())
    assert node.get_name() == name
    given = yaml.safe_load(CONFIG.read_text())[f"/**/{name}"]["ros__parameters"]
    for key, value in given.items():
        assert node.has_parameter(key), f"{key} is not a parameter of {name}"
        assert isinstance(value, (type(node.get_parameter(key).value), list))
        assert node.describe_parameter(key).description


def test_wrong_type_and_range_at_start_are_named(graph, overrides):
    with pytest.raises(InvalidParameterTypeException, match="fps"):
        CameraNode(**overrides(fps="fast"))
    with pytest.raises(InvalidParameterValueException, match="width"):
        CameraNode(**overrides(width=-1))


def test_parameters_are_fixed_once_the_node_is_configured(graph):
    node = graph.add(ExpressionTrackerNode())
    assert node.set_parameters([Parameter("smooth", value=False)])[0].successful
    node.make_tracker = lambda config, smoothing: _Closable()
    node.trigger_configure()
    (result,) = node.set_parameters([Parameter("smooth", value=True)])
    assert not result.successful and "clean up first" in result.reason


def test_a_config_that_contradicts_itself_keeps_the_node_unconfigured(graph, overrides):
    node = graph.add(AvatarRendererNode(**overrides(presence__hold_after_s=3.0)))
    assert not node.autostart()
    assert node._state_machine.current_state[1] == "unconfigured"


def test_an_unknown_animation_path_keeps_the_node_unconfigured(graph, overrides):
    node = graph.add(AvatarRendererNode(**overrides(animation_path="fast")))
    assert not node.autostart()
    assert node._state_machine.current_state[1] == "unconfigured"


class _Closable:
    def close(self):
        """The tracker's interface."""


@pytest.mark.parametrize("name", sorted(NODES))
def test_documentation_lists_every_parameter(graph, name):
    text = (CONFIG.parents[1] / "docs" / "ros.md").read_text()
    section = text.split(f"### {name}\n")[1].split("\n### ")[0]
    node = graph.add(NODES[name]())
    ours = {n for prefix, c in node._configs.items() for n in (prefix + f.name for f in fields(c))}
    listed = set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))
    assert listed == ours, f"docs/ros.md, {name}: {listed ^ ours}"
