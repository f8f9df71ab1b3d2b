"""envs.without_display: variables of drawing libraries on a machine without a display."""

import os

import pytest

from envs import without_display

NAMES = ('SDL_VIDEODRIVER', 'SDL_AUDIODRIVER', 'PYGLET_HEADLESS', 'MUJOCO_GL')
OFF_SCREEN = ['dummy', 'dummy', '1']


def prepared(monkeypatch, draws, libraries=(), **variables):
  """Values of NAMES afterwards, where these variables were set and these libraries are there."""
  monkeypatch.setattr(os, 'environ', dict(variables))
  monkeypatch.setattr('ctypes.util.find_library', lambda name: name if name in libraries else None)
  without_display.prepare(draws)
  return [os.environ.get(name) for name in NAMES]


@pytest.mark.parametrize(
  'draws, libraries, mujoco',
  [
    (False, ['EGL'], None),
    (True, ['EGL', 'OSMesa'], 'egl'),
    (True, ['OSMesa'], 'osmesa'),
    (True, [], None),
  ],
)
def test_libraries_draw_off_screen(monkeypatch, draws, libraries, mujoco):
  assert prepared(monkeypatch, draws, libraries) == [*OFF_SCREEN, mujoco]


@pytest.mark.parametrize('display', ['DISPLAY', 'WAYLAND_DISPLAY'])
def test_with_a_display_nothing_is_set(monkeypatch, display):
  assert prepared(monkeypatch, True, ['EGL'], **{display: ':0'}) == [None] * 4


def test_what_the_user_has_set_stays(monkeypatch):
  own = dict(SDL_VIDEODRIVER='x11', MUJOCO_GL='glfw')
  assert prepared(monkeypatch, True, ['EGL'], **own) == ['x11', 'dummy', '1', 'glfw']
