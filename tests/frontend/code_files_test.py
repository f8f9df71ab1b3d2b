"""frontend.code_files: which files are compared between hosts."""

import shutil
import subprocess

from conftest import ROOT
from frontend import code_files

PACKAGES = {
  'acting', 'common', 'envs', 'evaluation', 'frontend', 'frontend/actions', 'frontend/connection',
  'frontend/host_side', 'frontend/planning', 'learning', 'reporting', 'roles', 'runtime',
}  # fmt: skip


def test_the_sources_of_all_packages_are_compared_and_no_tests():
  names = code_files.source_files(ROOT)
  assert {name.rpartition('/')[0] for name in names} == PACKAGES | {''}
  assert 'experiment.py' in names and 'roles/role.py' in names


def test_a_folder_that_is_no_checkout_has_the_same_sources(tmp_path):
  for name in code_files.source_files(ROOT):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(f'{ROOT}/{name}', tmp_path / name)
  (tmp_path / 'tests').mkdir()
  (tmp_path / 'tests' / 'a_test.py').touch()
  assert code_files.git_files(str(tmp_path)) is None
  assert code_files.source_files(str(tmp_path)) == code_files.source_files(ROOT)


def test_what_git_does_not_track_is_not_compared(tmp_path):
  subprocess.run(['git', 'init', '-q', str(tmp_path)], check=True)
  (tmp_path / 'mine.py').touch()
  (tmp_path / 'other.py').touch()
  subprocess.run(['git', '-C', str(tmp_path), 'add', 'mine.py'], check=True)
  assert code_files.source_files(str(tmp_path)) == ['mine.py']
