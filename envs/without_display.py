"""Lets the libraries of environments draw on a machine that has no display, such as a server."""

import ctypes.util
import os

_OFF_SCREEN = {'SDL_VIDEODRIVER': 'dummy', 'SDL_AUDIODRIVER': 'dummy', 'PYGLET_HEADLESS': '1'}
_MUJOCO_GL = {'EGL': 'egl', 'OSMesa': 'osmesa'}  # System library -> value of MUJOCO_GL.


def prepare(draws: bool) -> None:
  """Sets variables of pygame, pyglet and MuJoCo that the user did not set, if there is no display.

  Call it before the libraries are imported.

  Args:
    draws: whether pictures are wanted; only then is MuJoCo told where to draw, since its import
      fails where that is impossible.
  """
  if os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY'):
    return
  for name, value in _OFF_SCREEN.items():
    os.environ.setdefault(name, value)
  if draws and 'MUJOCO_GL' not in os.environ:
    there = [value for name, value in _MUJOCO_GL.items() if ctypes.util.find_library(name)]
    if there:
      os.environ['MUJOCO_GL'] = there[0]
