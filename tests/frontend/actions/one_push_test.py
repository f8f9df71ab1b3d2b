"""`push` to hosts that share a folder, to folders that cannot be made, and after files left git."""

import io
import json
import os
import subprocess
import types

import pytest

from frontend import cluster
from frontend.actions import push as push_action
from frontend.connection import copying, hosts
from frontend.console import Console
from network_fixtures import sshd  # noqa: F401


@pytest.fixture(name='checkout')
def checkout_fixture(tmp_path, monkeypatch):
  """A small checkout that `push` copies."""
  folder = tmp_path / 'checkout'
  (folder / 'deep').mkdir(parents=True)
  for name in ('a.py', 'deep/b.py', 'run'):
    (folder / name).write_text(name)
  (folder / 'run').chmod(0o750)
  (folder / 'requirements.txt').write_text('')
  subprocess.run(['git', 'init', '-q', str(folder)], check=True)
  subprocess.run(['git', '-C', str(folder), 'add', '-A'], check=True)
  (folder / 'forgotten.py').write_text('not added')
  monkeypatch.setattr(hosts, 'CODE', str(folder))
  return folder


@pytest.fixture(name='push')
def push_fixture(sshd, monkeypatch, checkout):  # noqa: F811
  """Pushes to hosts given as (whether over SSH, workdir, python); returns what is printed."""
  monkeypatch.setenv('HOME', sshd.home)
  monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)
  options = types.SimpleNamespace(wheelhouse='', allow_running=True)

  def run(*places):
    rows = [
      cluster.Host(*((sshd.address, sshd.port) if remote else ('localhost', None)), '',
                   str(workdir), python, ())
      for remote, workdir, python in places
    ]  # fmt: skip
    console = Console(cluster.Cluster((), tuple(rows), ()), options, [], io.StringIO())
    made = []
    for host in console.hosts:
      monkeypatch.setattr(host, 'make_venv', lambda *a, host=host: made.append(host))
    try:
      code = push_action.run(console)
    finally:
      console.close()
    return code, console.out.getvalue().splitlines(), [console.hosts.index(host) for host in made]

  return run


def content(folder):
  return {
    os.path.relpath(os.path.join(path, name), folder)
    for path, _, names in os.walk(folder)
    for name in names
  }


def test_a_folder_that_several_hosts_see_gets_the_code_and_packages_once(push, checkout, tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  code, lines, made = push(
    (False, one, 'python3'),
    (True, one, ''),
    (True, two, ''),
    (True, one, ''),
    (True, two, 'python3'),
  )
  assert code == 0, lines
  assert lines[0] == 'not copied, because git does not track them (git add): forgotten.py'
  same = [line for line in lines if 'the same folder as on' in line]
  assert len(same) == 3 and sorted(made) == [1, 2]
  assert sum('4 files' in line for line in lines) == 2
  for folder in (one, two):
    assert content(folder) == {'a.py', 'deep/b.py', 'run', 'requirements.txt', push_action.PUSHED}
    assert os.stat(folder / 'run').st_mode & 0o777 == 0o750


def test_a_host_that_sees_the_code_itself_is_not_written_to(push, checkout):
  before = content(checkout)
  code, lines, _ = push((True, checkout, 'python3'), (False, checkout, 'python3'))
  assert code == 0 and sum('the code is here' in line for line in lines) == 2
  assert content(checkout) == before


@pytest.mark.parametrize('remote', [False, True])
def test_files_that_left_git_go_and_nothing_else(push, checkout, tmp_path, remote):
  there = tmp_path / 'there'
  assert push((remote, there, 'python3'))[0] == 0
  (there / 'mine.txt').write_text('of a person')
  (tmp_path / 'outside').write_text('precious')
  (there / 'a.py.0123abcd.push').write_text('of a push that was killed')
  os.utime(there / 'a.py.0123abcd.push', (1, 1))
  subprocess.run(['git', '-C', str(checkout), 'rm', '-q', '--cached', 'deep/b.py'], check=True)
  names = json.loads((there / push_action.PUSHED).read_text())
  strange = ['../outside', str(tmp_path / 'outside'), 'x/../../outside', '', '.', 7, None]
  (there / push_action.PUSHED).write_text(json.dumps([*names, *strange]))
  (checkout / 'a.py').write_text('new')
  code, lines, _ = push((remote, there, 'python3'))
  assert code == 0 and 'removed what git no longer tracks (deep/b.py)' in lines[-1]
  assert content(there) == {'a.py', 'run', 'requirements.txt', 'mine.txt', push_action.PUSHED}
  assert not (there / 'deep').exists() and (there / 'a.py').read_text() == 'new'
  assert (tmp_path / 'outside').read_text() == 'precious'
  (there / push_action.PUSHED).write_text('{"not": "a list"')
  assert push((remote, there, 'python3'))[0] == 0


def test_a_folder_that_cannot_be_made_is_that_hosts_sentence(push, checkout, tmp_path):
  (tmp_path / 'file').write_text('x')
  code, lines, _ = push(
    (False, tmp_path / 'file' / 'x', 'python3'), (True, tmp_path / 'good', 'python3'),
    (False, '/proc/nowhere', 'python3'),
  )  # fmt: skip
  assert code == 1
  assert any(line.endswith('file/x: Not a directory') for line in lines), lines
  assert any('localhost: cannot make the folder /proc/nowhere' in line for line in lines), lines
  assert any('4 files' in line for line in lines) and (tmp_path / 'good' / 'a.py').exists()


def test_a_file_that_runs_is_never_half(tmp_path):
  """It is another file afterwards, so whoever has the old one open reads that to its end."""
  source, target = tmp_path / 'source', tmp_path / 'target'
  source.mkdir()
  (source / 'a.py').write_text('new')
  target.mkdir()
  (target / 'a.py').write_text('old')
  (tmp_path / 'elsewhere').write_text('precious')
  (target / 'link.py').symlink_to(tmp_path / 'elsewhere')
  (source / 'link.py').write_text('new')
  with open(target / 'a.py', encoding='utf-8') as file:
    copying.LocalFolder(str(target)).put(str(source), ['a.py', 'link.py'])
    assert file.read() == 'old'
  assert (target / 'a.py').read_text() == (target / 'link.py').read_text() == 'new'
  assert (tmp_path / 'elsewhere').read_text() == 'precious'
  assert sorted(os.listdir(target)) == ['a.py', 'link.py']
