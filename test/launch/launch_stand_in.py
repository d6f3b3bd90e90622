"""STAND-IN for the part of ROS 2's `launch` and `launch_ros` that telepresence.launch.py uses.

`launch` is on no package registry, so a machine without ROS cannot import it. With this the launch
file is executed all the same and its nodes compared with `avat3r telepresence`. It does not show
that the real `ros2 launch` accepts the file; a test on a ROS machine does.
"""

import runpy
import sys
import types
from pathlib import Path

import yaml


class Context:
    """What is known while a launch file is executed."""

    def __init__(self, arguments, environment=None):
        self.arguments = arguments
        self.configurations = {}
        self.environment = dict(environment or {})
        self.nodes = []

    def resolve(self, value):
        if hasattr(value, "perform"):
            return value.perform(self)
        if isinstance(value, (list, tuple)):
            return [self.resolve(v) for v in value]
        if isinstance(value, dict):
            return {k: self.resolve(v) for k, v in value.items()}
        return value


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        if self.name not in context.configurations:
            raise RuntimeError(f"launch configuration {self.name!r} does not exist")
        return context.configurations[self.name]


class EnvironmentVariable:
    def __init__(self, name, *, default_value=None):
        self.name, self.default_value = name, default_value

    def perform(self, context):
        return context.environment.get(self.name, self.default_value)


class ParameterValue:
    def __init__(self, value, *, value_type):
        self.value, self.value_type = value, value_type

    def perform(self, context):
        text = context.resolve(self.value)
        value = text if self.value_type is str else yaml.safe_load(text)
        if type(value) is not self.value_type:
            raise ValueError(f"expected {self.value_type.__name__}, got {text!r}")
        return value


class EqualsSubstitution:
    def __init__(self, left, right):
        self.left, self.right = left, right

    def perform(self, context):
        return str(context.resolve(self.left) == context.resolve(self.right)).lower()


class AndSubstitution:
    def __init__(self, left, right):
        self.left, self.right = left, right

    def perform(self, context):
        both = [context.resolve(side).lower() == "true" for side in (self.left, self.right)]
        return str(all(both)).lower()


class NotSubstitution:
    def __init__(self, value):
        self.value = value

    def perform(self, context):
        return str(context.resolve(self.value).lower() != "true").lower()


class IfCondition:
    def __init__(self, expression):
        self.expression = expression

    def evaluate(self, context):
        return context.resolve(self.expression).lower() in ("true", "1")


class Action:
    def __init__(self, condition=None):
        self.condition = condition

    def execute(self, context):
        raise NotImplementedError


class DeclareLaunchArgument(Action):
    def __init__(self, name, *, default_value=None, description, choices=None):
        super().__init__()
        self.name, self.default_value, self.choices = name, default_value, choices
        self.description = description

    def execute(self, context):
        value = context.arguments.get(self.name, context.resolve(self.default_value))
        if value is None or (self.choices and value not in self.choices):
            raise RuntimeError(f"{self.name}:={value} is not one of {self.choices}")
        context.configurations[self.name] = value


class SetEnvironmentVariable(Action):
    def __init__(self, name, value):
        super().__init__()
        self.name, self.value = name, value

    def execute(self, context):
        context.environment[self.name] = context.resolve(self.value)


class Node(Action):
    def __init__(self, *, package, executable, condition=None, **options):
        super().__init__(condition)
        unknown = set(options) - {
            *("namespace", "parameters", "remappings", "arguments", "output", "emulate_tty")
        }
        if unknown:
            raise TypeError(f"the stand-in does not know {unknown}")
        self.package, self.executable, self.options = package, executable, options

    def execute(self, context):
        files, values = [], {}
        for item in context.resolve(self.options.get("parameters", [])):
            if isinstance(item, dict):
                values |= item
            else:
                files.append(item)
        context.nodes.append(
            types.SimpleNamespace(
                package=self.package,
                executable=self.executable,
                namespace=context.resolve(self.options.get("namespace", "")),
                parameter_files=files,
                parameters=values,
                remappings=dict(self.options.get("remappings", [])),
                arguments=context.resolve(self.options.get("arguments", [])),
            )
        )


class LaunchDescription:
    def __init__(self, entities):
        self.entities = entities


MODULES = {
    "launch": [LaunchDescription],
    "launch.actions": [DeclareLaunchArgument, SetEnvironmentVariable],
    "launch.conditions": [IfCondition],
    "launch.substitutions": [
        *(LaunchConfiguration, EnvironmentVariable),
        *(EqualsSubstitution, AndSubstitution, NotSubstitution),
    ],
    "launch_ros": [],
    "launch_ros.actions": [Node],
    "launch_ros.parameter_descriptions": [ParameterValue],
}


def execute(path: Path, arguments: dict[str, str], environment=None) -> Context:
    """Execute a launch file with the stand-in modules in place of the real ones."""
    before = {name: sys.modules.get(name) for name in MODULES}
    for name, members in MODULES.items():
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
        sys.modules[name] = module
    try:
        description = runpy.run_path(str(path))["generate_launch_description"]()
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    context = Context(arguments, environment)
    for entity in description.entities:
        if entity.condition is None or entity.condition.evaluate(context):
            entity.execute(context)
    return context
