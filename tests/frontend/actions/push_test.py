"""What `push` copies, and the virtual environment that it makes, with a real sshd."""

import hashlib
import os
import subprocess

import pytest

import conftest
import frontend_fixtures
from frontend_fixtures import own_tmux  # noqa: F401
from local_cluster import local_fixture  # noqa: F401
from network_fixtures import sshd  # noqa: F401
from ssh_fixtures import code_fixture, opened_fixture, remote_fixture  # noqa: F401
from tiny_package import make_wheel

pytestmark = pytest.mark.slow


def write_lock(checkout, version, digest):
  """Says that requirements.txt means a version of `tiny`, in a file with this hash."""
  with open(os.path.join(checkout, 'requirements.txt'), 'rb') as file:
    source = hashlib.sha256(file.read()).hexdigest()
  with open(os.path.join(checkout, 'requirements.lock'), 'w', encoding='utf-8') as file:
    file.write(f'# of {source}\ntiny=={version} --hash=sha256:{digest}\n')
  subprocess.run(['git', '-C', checkout, 'add', 'requirements.lock'], check=True)


@pytest.fixture
def checkout(tmp_path):
  """A small checkout: the frontend, one required package, and a file that git does not track."""
  folder = frontend_fixtures.copy_code(tmp_path / 'checkout')
  with open(os.path.join(folder, 'requirements.txt'), 'w', encoding='utf-8') as file:
    file.write('tiny\n')
  subprocess.run(['git', 'init', '-q', folder], check=True)
  subprocess.run(['git', '-C', folder, 'add', '-A'], check=True)
  open(os.path.join(folder, 'scratch.py'), 'w').close()
  return folder


def test_push_copies_the_code_and_makes_a_virtual_environment(remote, sshd, checkout, tmp_path):  # noqa: F811
  make_wheel(tmp_path / 'wheels')
  target = tmp_path / 'new' / 'impala'
  rows = [f'{job},{sshd.address},{port},{sshd.port},{target}'
          for port, job in enumerate(('ps', 'learner', 'actor'), 1)]  # fmt: skip
  path = tmp_path / 'c.csv'
  path.write_text('\n'.join(['job,ip,tf_port,ssh_port,workdir', *rows]))
  words = [f'--cluster_csv_path={path}', '--action=push', f'--wheelhouse={tmp_path}/wheels']
  pushed = frontend_fixtures.frontend(words, checkout)
  assert pushed.returncode == 0, pushed.stdout + pushed.stderr
  assert f'.venv/bin/python with requirements.txt in {target}' in pushed.stdout
  assert (target / 'frontend' / 'cluster.py').exists() and not (target / 'scratch.py').exists()
  python = [target / '.venv/bin/python', '-c', 'import tiny']
  assert subprocess.run(python, check=False).returncode == 0
  # A lock is what is installed, and a file that is another than it says is not.
  digest = make_wheel(tmp_path / 'wheels', 2)
  make_wheel(tmp_path / 'wheels', 3)
  write_lock(checkout, 2, digest[::-1])
  pushed = frontend_fixtures.frontend(words, checkout)
  assert pushed.returncode == 1 and digest in pushed.stdout, pushed.stdout + pushed.stderr
  write_lock(checkout, 2, digest)
  pushed = frontend_fixtures.frontend(words, checkout)
  assert f'.venv/bin/python with requirements.lock in {target}' in pushed.stdout
  found = [target / '.venv/bin/python', '-c', 'import tiny; print(tiny.x)']
  assert subprocess.run(found, check=True, capture_output=True, text=True).stdout == '2\n'
  # What cannot be installed is said with pip's own words; the lock is of other requirements now.
  with open(os.path.join(checkout, 'requirements.txt'), 'w', encoding='utf-8') as file:
    file.write('not-there\n')
  pushed = frontend_fixtures.frontend(words, checkout)
  assert pushed.returncode == 1
  assert 'could not be made: ' in pushed.stdout and 'not-there' in pushed.stdout
  assert 'warning: requirements.txt has changed since requirements.lock was made' in pushed.stdout


def test_push_from_what_is_no_checkout(tmp_path):
  folder = frontend_fixtures.copy_code(tmp_path / 'code')
  path = os.path.join(conftest.ROOT, 'local_cluster_example.csv')
  pushed = frontend_fixtures.frontend([f'--cluster_csv_path={path}', '--action=push'], folder)
  assert pushed.returncode == 2
  assert 'is no git checkout' in pushed.stderr


def test_the_code_of_a_running_cluster_is_left_alone(local):
  subprocess.run(['git', 'init', '-q', local.code], check=True)
  subprocess.run(['git', '-C', local.code, 'add', 'frontend', 'experiment.py'], check=True)
  assert local.run('push').returncode == 0
  assert local.launch().returncode == 0
  refused = local.run('push', '--tmux_sess=other')
  assert refused.returncode == 2 and refused.stdout == ''
  assert refused.stderr == (
    'run_experiment_mm_raw.py: actor-0 of imp on localhost and 3 more would go on with other code '
    'after a restart; stop what runs first (--action=stop), or add --allow_running\n'
  )
  assert local.run('push', '--allow_running').returncode == 0
  assert local.run('stop').returncode == 0
  assert local.run('push').returncode == 0
  other = local.run('stop', '--allow_running')
  assert other.returncode == 2 and '--allow_running belongs to push, not to stop' in other.stderr
