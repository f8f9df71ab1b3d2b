"""What a program says where the Python that runs it lacks the packages of requirements.txt."""

import os
import sys

# Modules of the packages in requirements.txt.
_MODULES = {
  'absl', 'ale_py', 'cv2', 'gym', 'gymnasium', 'libtmux', 'matplotlib', 'numpy', 'paramiko', 'PIL',
  'scipy', 'sonnet', 'tensorboard', 'tensorflow',
}  # fmt: skip
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_EXIT_CODE = 2


def leave(error, program):
  """Ends the process with a sentence if an exception is about a package that is missing.

  Args:
    error: an exception; any but a ModuleNotFoundError of such a package is let pass.
    program: str, the name of the program in front of the sentence.
  """
  module = (getattr(error, 'name', None) or '').partition('.')[0]
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
