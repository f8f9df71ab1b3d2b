"""The lock file: that of this checkout, and how push and check use one."""

import hashlib
import importlib.metadata
import os
import re

from conftest import ROOT
from frontend import lock_file
from frontend.host_side import host_check

LOCK = """# Made by .ci/lock of requirements.txt with SHA-256 {}
numpy==2.2.6 ; python_full_version < '3.11' \\
    --hash=sha256:00
numpy==2.5.5 ; python_full_version >= '3.11' \\
    --hash=sha256:01
typing-extensions==4.16.0 \\
    --hash=sha256:02
setuptools==84.2.1 \\
    --hash=sha256:03
"""


def write(folder, requirements):
  (folder / 'requirements.txt').write_bytes(requirements)
  digest = hashlib.sha256(requirements).hexdigest()
  (folder / 'requirements.lock').write_text(LOCK.format(digest))


def test_the_lock_of_this_checkout_is_that_of_its_requirements():
  assert lock_file.to_install(ROOT) == ('requirements.lock', '')


def test_every_version_of_this_checkouts_lock_has_hashes_and_comes_from_any_index():
  with open(os.path.join(ROOT, 'requirements.lock'), encoding='utf-8') as file:
    text = file.read()
  entries = re.split(r'^(?=[a-zA-Z0-9])', text, flags=re.M)[1:]
  assert len(entries) > 60 and all('--hash=sha256:' in entry for entry in entries)
  assert '://' not in text and '--index' not in text
  pinned = lock_file.pinned(ROOT)
  with open(os.path.join(ROOT, 'requirements.txt'), encoding='utf-8') as file:
    wanted = re.findall(r'^[a-z0-9-]+', file.read(), flags=re.M)
  assert {'tensorflow', 'ale-py', 'paramiko'} <= set(wanted) <= set(pinned)


def test_a_lock_of_other_requirements_is_not_used(tmp_path):
  write(tmp_path, b'tiny\n')
  assert lock_file.to_install(tmp_path) == ('requirements.lock', '')
  (tmp_path / 'requirements.txt').write_text('tiny\nmine\n')
  name, why = lock_file.to_install(tmp_path)
  assert name == 'requirements.txt' and '.ci/lock makes it anew' in why
  (tmp_path / 'requirements.lock').unlink()
  assert lock_file.to_install(tmp_path) == ('requirements.txt', '')


def test_what_is_installed_otherwise_than_locked(tmp_path):
  write(tmp_path, b'tiny\n')
  pinned = lock_file.pinned(tmp_path)
  assert pinned == {'numpy': {'2.2.6', '2.5.5'}, 'typing-extensions': {'4.16.0'}}
  found = {'numpy': '2.4.6', 'typing-extensions': '4.16.0', 'gym': '1', 'tiny': None}
  assert lock_file.differences(found, pinned) == ['numpy 2.4.6 (2.2.6 or 2.5.5)']


def test_a_host_looks_for_the_packages_that_it_is_asked_about():
  """Names are compared as indexes do: it is installed as PyYAML, or as ml_dtypes."""
  versions = host_check.package_versions(['pyyaml', 'ml-dtypes', 'not-there'])
  assert versions['pyyaml'] == importlib.metadata.version('PyYAML')
  assert versions['ml-dtypes'] == importlib.metadata.version('ml_dtypes')
  assert versions['not-there'] is None and versions['tensorflow']
