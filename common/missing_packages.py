"""The message of a program whose Python lacks the packages of requirements.txt."""

from __future__ import annotations

import os
import sys

# Modules of the packages in requirements.txt.
_MODULES = {
  'absl', 'ale_py', 'cv2', 'gym', 'gymnasium', 'libtmux', 'matplotlib', 'numpy', 'paramiko', 'PIL',
  'scipy', 'sonnet', 'tensorboard', 'tensorflow',
}  # fmt: skip
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_EXIT_CODE = 2


def leave(error: BaseException, program: str) -> None:
  """Exits with a sentence if an exception is the ModuleNotFoundError of a missing package.

  Args:
    error: any other exception is ignored.
    program: its name begins the sentence.
  """
  module = str(getattr(error, 'name', None) or '').partition('.')[0]
  if not isinstance(error, ModuleNotFoundError) or module not in _MODULES:
    return
  venv = os.path.join(_ROOT, '.venv')
  python = os.path.relpath(os.path.join(venv, 'bin', 'python'))
  if os.path.realpath(sys.prefix) == os.path.realpath(venv):
    advice = (
      f'{python} -m pip install -r {os.path.relpath(os.path.join(_ROOT, "requirements.txt"))}'
    )
  elif os.path.exists(python):
    advice = f'run it by {python}'
  else:
    advice = f'`make train` makes {python}, which has them, and trains Pong; then run it by that'
  print(
    f'{program}: {sys.executable} has no module {module}, one of the packages of requirements.txt: '
    f'{advice}',
    file=sys.stderr,
  )
  sys.exit(_EXIT_CODE)
