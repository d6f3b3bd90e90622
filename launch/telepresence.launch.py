"""The whole graph: camera -> expression_tracker -> avatar_renderer, with avatar_builder beside it.

    ros2 launch avat3r telepresence.launch.py source:=/dev/video0 avatar:=/home/me/me.avat3r

Without `avatar` the builder watches the operator and builds one; with another `driver` than the
camera there is nobody to watch. Topics: camera/image_raw,
expression, avatar, viewer_pose, rendered/image_raw (or rendered/left/..., rendered/right/...).
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import (
    AndSubstitution,
    EnvironmentVariable,
    EqualsSubstitution,
    LaunchConfiguration,
    NotSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription


def generate_launch_description():
    """Describe the launch; arguments are shown by `ros2 launch ... --show-args`."""
    config = os.path.join(get_package_share_directory("avat3r"), "config")
    profile = os.path.join(config, "fastdds_shm.xml")

    arguments = [
        DeclareLaunchArgument(
            "source",
            default_value="synthetic",
            description="Camera (0, /dev/video0), video file, or 'synthetic'",
        ),
        DeclareLaunchArgument(
            "driver",
            default_value="camera",
            choices=["camera", "live_link_face", "osc", "face_weights", "recording", "rosbag"],
            description="Whose expressions: of the camera's image, of UDP packets, of the topic "
            "face_weights, or of recording",
        ),
        DeclareLaunchArgument(
            "recording",
            default_value="",
            description="Codes that `avat3r track` wrote; a bag for rosbag",
        ),
        DeclareLaunchArgument(
            "avatar", default_value="", description=".avat3r file; empty: build from the camera"
        ),
        DeclareLaunchArgument("size", default_value="512", description="Image side in pixels"),
        DeclareLaunchArgument(
            "stereo",
            default_value="false",
            choices=["true", "false"],
            description="Render left/ and right/ instead of one image",
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="true",
            choices=["true", "false"],
            description="Start the camera node; false if another node publishes camera/image_raw",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=["true", "false"],
            description="Nodes activate themselves; false leaves it to a lifecycle manager",
        ),
        DeclareLaunchArgument(
            "composition",
            default_value="false",
            choices=["true", "false"],
            description="All nodes in one process, which hand images over by reference",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Of all nodes"),
        DeclareLaunchArgument(
            "params_file",
            default_value=os.path.join(config, "telepresence.yaml"),
            description="ROS parameters of all nodes",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=["true", "false"], description="Start RViz"
        ),
    ]

    # Images need a large shared-memory segment. Jazzy and older read the first name, Kilted and
    # newer the second; a profile of the user's own stays.
    environment = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=profile))
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    ]

    # Several nodes share the cores: BLAS threads that wait for each other slow the fit tenfold.
    environment.append(
        SetEnvironmentVariable(
            "OPENBLAS_NUM_THREADS",
            EnvironmentVariable("OPENBLAS_NUM_THREADS", default_value="1"),
        )
    )

    params_file = LaunchConfiguration("params_file")
    autostart = {"autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool)}
    size = ParameterValue(LaunchConfiguration("size"), value_type=int)
    common = {
        "package": "avat3r",
        "namespace": LaunchConfiguration("namespace"),
        "output": "screen",
        "emulate_tty": True,
    }
    image_topics = ("image_raw", "image_raw/compressed", "camera_info")
    camera_topics = [(topic, f"camera/{topic}") for topic in image_topics]
    rendered_topics = [
        (f"{eye}{topic}", f"rendered/{eye}{topic}")
        for eye in ("", "left/", "right/")
        for topic in (*image_topics, "image_raw/video", "depth/image_raw")
    ]

    seeing = EqualsSubstitution(LaunchConfiguration("driver"), "camera")
    seen_by_us = AndSubstitution(LaunchConfiguration("camera"), seeing)
    together = LaunchConfiguration("composition")
    apart = NotSubstitution(together)
    camera_parameters = {"source": ParameterValue(LaunchConfiguration("source"), value_type=str)}
    driver_parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=str)
        for name in ("driver", "recording")
    }
    builder_parameters = {
        "avatar_path": ParameterValue(LaunchConfiguration("avatar"), value_type=str)
    }
    renderer_parameters = {
        "view.width": size,
        "view.height": size,
        "view.stereo": ParameterValue(LaunchConfiguration("stereo"), value_type=bool),
    }

    nodes = [
        Node(
            executable="camera",
            parameters=[params_file, camera_parameters, autostart],
            remappings=camera_topics,
            condition=IfCondition(AndSubstitution(apart, seen_by_us)),
            **common,
        ),
        Node(
            executable="expression_tracker",
            parameters=[params_file, autostart],
            remappings=camera_topics,
            condition=IfCondition(AndSubstitution(apart, seeing)),
            **common,
        ),
        Node(
            executable="expression_driver",
            parameters=[params_file, driver_parameters, autostart],
            condition=IfCondition(AndSubstitution(apart, NotSubstitution(seeing))),
            **common,
        ),
        Node(
            executable="avatar_builder",
            parameters=[params_file, builder_parameters, autostart],
            remappings=camera_topics,
            condition=IfCondition(apart),
            **common,
        ),
        Node(
            executable="avatar_renderer",
            parameters=[params_file, renderer_parameters, autostart],
            remappings=rendered_topics,
            condition=IfCondition(apart),
            **common,
        ),
        # One process: parameters reach all its nodes, each remapping names its node.
        Node(
            executable="telepresence",
            arguments=["--driver", LaunchConfiguration("driver"), "--camera", seen_by_us],
            parameters=[
                params_file,
                camera_parameters,
                driver_parameters,
                builder_parameters,
                renderer_parameters,
                autostart,
            ],
            remappings=[
                *(
                    (f"{node}:{topic}", target)
                    for node in ("camera", "expression_tracker", "avatar_builder")
                    for topic, target in camera_topics
                ),
                *((f"avatar_renderer:{topic}", target) for topic, target in rendered_topics),
            ],
            condition=IfCondition(together),
            **common,
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", os.path.join(config, "telepresence.rviz")],
            condition=IfCondition(LaunchConfiguration("rviz")),
            output="log",
        ),
    ]
    return LaunchDescription([*arguments, *environment, *nodes])
