"""A stand-in for the parts of ROS's rosbag2_py that read, over a list of messages.

No wheel of rosbag2_py exists; with this its calls are executed where ROS is not installed.
"""

import types

EXPRESSION = "avat3r/msg/Expression"


def rosbag2_with(messages, kinds):
    """A module whose bags all hold `messages`, (topic, bytes, nanoseconds), of topics `kinds`."""

    class SequentialReader:
        def open(self, storage, converter):
            if storage.uri.endswith("damaged"):
                raise RuntimeError("No storage could be initialized from the inputs.")
            self._left = list(messages)

        def get_all_topics_and_types(self):
            return [types.SimpleNamespace(name=n, type=kind) for n, kind in kinds.items()]

        def set_filter(self, chosen):
            self._left = [m for m in self._left if m[0] in chosen.topics]

        def has_next(self):
            return bool(self._left)

        def read_next(self):
            return self._left.pop(0)

    module = types.ModuleType("rosbag2_py")
    module.SequentialReader = SequentialReader
    module.StorageOptions = lambda uri, storage_id: types.SimpleNamespace(uri=uri)
    module.ConverterOptions = lambda *formats: formats
    module.StorageFilter = lambda topics: types.SimpleNamespace(topics=topics)
    return module
