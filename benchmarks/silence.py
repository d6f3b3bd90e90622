"""Takes the operator away in every way that happens; draws what the audience sees as a timeline.

    .venv/bin/python benchmarks/silence.py [me.avat3r] [-o out/silence]

Tracker and renderer are real processes; 70 s. Leaves silence.png (states, picture and frame
intervals over time) and silence.json (for each scenario: states with their times, reaction, return,
oldest picture).
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 200))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

from avat3r_ros.data.operator import SyntheticOperator  # noqa: E402
from avat3r_ros.nodes.latency_session import SEED, operators_avatar  # noqa: E402
from avat3r_ros.nodes.presence import PresenceConfig  # noqa: E402
from avat3r_ros.nodes.silence_session import silence_session, write_results  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", nargs="?", help=".avat3r file; the operator's own if absent")
    parser.add_argument("-o", "--output", default="out/silence", help="folder for the results")
    args = parser.parse_args()
    face = SyntheticOperator(SEED, 320, 240).frame(0.5)
    presence = PresenceConfig()
    with tempfile.TemporaryDirectory() as folder:
        avatar = args.avatar or operators_avatar(pathlib.Path(folder))
        outcomes = []
        with silence_session(avatar, face, presence) as (session, node):
            for name in session.scenarios():
                outcomes.append(session.run(name))
                print(outcomes[-1])
    write_results(outcomes, node.log, presence, pathlib.Path(args.output))
    print(f"{args.output}/silence.png")


if __name__ == "__main__":
    main()
