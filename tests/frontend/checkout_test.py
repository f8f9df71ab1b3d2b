"""The checkout: which files are compared between hosts, and how push and check use the lock."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess

from conftest import ROOT
from frontend import checkout
from frontend.host_side import host_check

PACKAGES = {
  'acting', 'common', 'envs', 'evaluation', 'frontend', 'frontend/actions', 'frontend/connection',
  'frontend/host_side', 'frontend/planning', 'frontend/sweep', 'learning', 'reporting', 'roles',
  'runtime',
}  # fmt: skip


def test_the_sources_of_all_packages_are_compared_and_no_tests():
  names = checkout.source_files(ROOT)
  assert {name.rpartition('/')[0] for name in names} == PACKAGES | {''}
  assert 'experiment.py' in names and 'roles/role.py' in names


def test_a_folder_that_is_no_checkout_has_the_same_sources(tmp_path):
  for name in checkout.source_files(ROOT):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(f'{ROOT}/{name}', tmp_path / name)
  (tmp_path / 'tests').mkdir()
  (tmp_path / 'tests' / 'a_test.py').touch()
  assert checkout.git_files(str(tmp_path)) is None
  assert checkout.source_files(str(tmp_path)) == checkout.source_files(ROOT)


def test_what_git_does_not_track_is_not_compared(tmp_path):
  subprocess.run(['git', 'init', '-q', str(tmp_path)], check=True)
  (tmp_path / 'mine.py').touch()
  (tmp_path / 'other.py').touch()
  subprocess.run(['git', '-C', str(tmp_path), 'add', 'mine.py'], check=True)
  assert checkout.source_files(str(tmp_path)) == ['mine.py']


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
  assert checkout.requirements_file(ROOT) == ('requirements.lock', '')


def test_every_version_of_this_checkouts_lock_has_hashes_and_comes_from_any_index():
  with open(os.path.join(ROOT, 'requirements.lock'), encoding='utf-8') as file:
    text = file.read()
  entries = re.split(r'^(?=[a-zA-Z0-9])', text, flags=re.M)[1:]
  assert len(entries) > 60 and all('--hash=sha256:' in entry for entry in entries)
  assert '://' not in text and '--index' not in text
  pinned = checkout.pinned_versions(ROOT)
  with open(os.path.join(ROOT, 'requirements.txt'), encoding='utf-8') as file:
    wanted = re.findall(r'^[a-z0-9-]+', file.read(), flags=re.M)
  assert {'tensorflow', 'ale-py', 'paramiko'} <= set(wanted) <= set(pinned)


def test_a_lock_of_other_requirements_is_not_used(tmp_path):
  write(tmp_path, b'tiny\n')
  assert checkout.requirements_file(tmp_path) == ('requirements.lock', '')
  (tmp_path / 'requirements.txt').write_text('tiny\nmine\n')
  name, why = checkout.requirements_file(tmp_path)
  assert name == 'requirements.txt' and '.ci/lock makes it anew' in why
  (tmp_path / 'requirements.lock').unlink()
  assert checkout.requirements_file(tmp_path) == ('requirements.txt', '')


def test_what_is_installed_otherwise_than_locked(tmp_path):
  write(tmp_path, b'tiny\n')
  pinned = checkout.pinned_versions(tmp_path)
  assert pinned == {'numpy': {'2.2.6', '2.5.5'}, 'typing-extensions': {'4.16.0'}}
  found = {'numpy': '2.4.6', 'typing-extensions': '4.16.0', 'gym': '1', 'tiny': None}
  assert checkout.other_versions(found, pinned) == ['numpy 2.4.6 (2.2.6 or 2.5.5)']


def test_a_host_looks_for_the_packages_that_it_is_asked_about():
  """Names are compared as indexes do: it is installed as PyYAML, or as ml_dtypes."""
  versions = host_check.package_versions(['pyyaml', 'ml-dtypes', 'not-there'])
  assert versions['pyyaml'] == importlib.metadata.version('PyYAML')
  assert versions['ml-dtypes'] == importlib.metadata.version('ml_dtypes')
  assert versions['not-there'] is None and versions['tensorflow']
