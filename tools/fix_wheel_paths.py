"""Make the ROS 2 wheels' CMake exports usable on this machine.

The exports name the header folders of the machine that built the wheels. This rewrites them to this
interpreter's Python and numpy headers. Run it after installing the wheels and after numpy changed;
running it again changes nothing.
"""

import pathlib
import re
import sys
import sysconfig

import numpy

NUMPY_HEADERS = re.compile(r'(?<=[";])[^";]*/numpy/(?:_core|core)/include')
PYTHON_HEADERS = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")


def fixed_text(text: str) -> str:
    """Return one CMake export with this interpreter's header folders."""
    text = NUMPY_HEADERS.sub(lambda _: numpy.get_include(), text)
    return PYTHON_HEADERS.sub(lambda _: sysconfig.get_paths()["include"], text)


def main() -> None:
    """Rewrite every export under this environment's prefix."""
    changed = 0
    for path in sorted(pathlib.Path(sys.prefix, "share").glob("*/cmake/*.cmake")):
        text = path.read_text()
        if (fixed := fixed_text(text)) != text:
            path.write_text(fixed)
            changed += 1
    sys.stdout.write(f"{changed} CMake exports of the ROS wheels now point at this machine\n")


if __name__ == "__main__":
    main()
