"""ROS parameters from dataclasses: one declaration gives type, default, range, description, check.

    fps: float = ranged(30.0, 1.0, 120.0)

The description is the field's entry in the "Attributes" section of the class's docstring, so that
it is written once. Defaults decide the types; a tuple of numbers is a list on the ROS side.
"""

import inspect
import os
import re
from dataclasses import MISSING, Field, field, fields
from typing import TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

C = TypeVar("C")


def ranged(default: float, low: float, high: float):
    """A dataclass field whose ROS parameter is limited to [low, high]."""
    return field(default=default, metadata={"range": (low, high)})


def threads(wanted: int) -> int:
    """How many threads a `num_threads` parameter asks for.

    0 takes half of the cores, but two where there are two: a face is tracked, then drawn, and what
    computes has both.
    """
    cores = len(os.sched_getaffinity(0))
    return wanted or max(cores // 2, min(cores, 2))


def descriptions(config_class: type) -> dict[str, str]:
    """Read the "Attributes" of a Google-style docstring: field name -> text on one line."""
    section = re.split(r"^Attributes:\n", inspect.getdoc(config_class) or "", flags=re.MULTILINE)
    found: dict[str, str] = {}
    for line in section[1].splitlines() if len(section) > 1 else []:
        if match := re.match(r" {4}(\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif line.startswith(" " * 8) and found:
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return found


def descriptor(item: Field, description: str) -> ParameterDescriptor:
    """Describe one field to ROS tools, with its range where it has one."""
    result = ParameterDescriptor(description=description)
    if "range" in item.metadata:
        low, high = item.metadata["range"]
        if isinstance(item.default, int):
            result.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        else:
            result.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return result


def declare_parameters(node: Node, config_class: type, prefix: str = "") -> None:
    """Declare one parameter for each field of a dataclass.

    Args:
        node: Gets the parameters.
        config_class: All its fields have plain defaults: bool, int, float, str, tuple of numbers.
        prefix: Put before each name, e.g. "smoothing.".

    Raises:
        TypeError: A field without default or description: our own mistake, found by any test.
    """
    texts = descriptions(config_class)
    for item in fields(config_class):
        if item.default is MISSING or item.name not in texts:
            raise TypeError(
                f"{config_class.__name__}.{item.name} needs a default and an entry under Attributes"
            )
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        node.declare_parameter(prefix + item.name, default, descriptor(item, texts[item.name]))


def read_parameters(node: Node, config_class: type[C], prefix: str = "") -> C:
    """Build the dataclass from the node's present parameter values.

    Raises:
        ValueError: The dataclass refuses a value; the message names it.
    """
    values = {}
    for item in fields(config_class):
        value = node.get_parameter(prefix + item.name).value
        values[item.name] = tuple(value) if isinstance(item.default, tuple) else value
    return config_class(**values)
