"""The message of a failed pip: the reason without notices."""

import pytest

from frontend.connection import scripts

NOTICES = """
[notice] A new release of pip is available: 23.0.1 -> 25.3
[notice] To update, run: /srv/impala/.venv/bin/python -m pip install --upgrade pip
"""


@pytest.mark.parametrize(
  'output, said',
  [
    (
      'ERROR: Could not find a version that satisfies the requirement tensorflow==2.21.0 (from '
      'versions: none)\nERROR: No matching distribution found for tensorflow==2.21.0\n' + NOTICES,
      'ERROR: Could not find a version that satisfies the requirement tensorflow==2.21.0 (from '
      'versions: none) / ERROR: No matching distribution found for tensorflow==2.21.0',
    ),
    (
      'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n'
      + NOTICES.strip(),
      'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device',
    ),
    (
      'WARNING: Retrying (Retry(total=0)) after connection broken\n'
      'WARNING: You are using pip version 22.0.2; however, version 25.3 is available.\n'
      "You should consider upgrading via the 'pip install --upgrade pip' command.\n"
      'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE\n' + NOTICES,
      'WARNING',
    ),
    (
      'The virtual environment was not created successfully because ensurepip is not\navailable. '
      ' On Debian/Ubuntu systems, you need to install the python3-venv\npackage using the '
      'following command.\n\n    apt install python3.11-venv\n\nFailing command: /w/bin/python\n',
      'apt install python3.11-venv',
    ),
    ('/bin/sh: 1: python3: not found\n', '/bin/sh: 1: python3: not found'),
    ('', ''),
    (NOTICES, ''),
  ],
)
def test_the_reason_is_said(output, said):
  found = scripts.pip_failure(output)
  if said == 'WARNING':
    assert 'DO NOT MATCH THE HASHES' in found and said not in found
  else:
    assert said in found and bool(said) == bool(found)
  assert 'notice' not in found and len(found) <= 1000
