"""`pull` fetches a run's files from this machine and over a real sshd, whole and only once."""

import os
import socket
import threading

import pytest

import conftest
import frontend_fixtures
from frontend.actions import pull
from frontend.connection import fetching
from frontend.errors import HostError
from network_fixtures import sshd  # noqa: F401
from recorded_run import recorded_fixture  # noqa: F401
from ssh_fixtures import code_fixture, opened_fixture, remote_fixture  # noqa: F401

RECORDS = {
    'run.json', 'metrics.csv', 'episodes.csv', 'learning_curve.png', 'evaluation.json',
    'evaluations.csv',
}  # fmt: skip


def fetched(result):
  """Names that a pull said it fetched."""
  assert result.returncode == 0, result.stdout + result.stderr
  return {line.split('  ')[0] for line in result.stdout.splitlines()[:-1]}


def content(path):
  with open(path, 'rb') as file:
    return file.read()


def unfinished(folder):
  return [name for name in os.listdir(folder) if name.endswith(fetching.SUFFIX)]


def same(recorded, target, name):
  return content(os.path.join(recorded.logdir, name)) == content(os.path.join(target, name))


def test_what_changed_is_fetched_and_nothing_else(recorded, tmp_path):
  recorded.launched().checkpoint(5)
  recorded.write('secret.txt', 'stays')
  target = str(tmp_path / 'results' / 'first')
  result = recorded.run('pull', f'--to={target}')
  assert fetched(result) == RECORDS == set(os.listdir(target))
  assert all(same(recorded, target, name) for name in RECORDS)
  assert result.stdout.splitlines()[-1].startswith('6 files from ')
  again = recorded.run('pull', f'--to={target}')
  assert fetched(again) == set() and again.stdout.startswith('nothing new from ')
  recorded.write('metrics.csv', 'metrics.csv\none more row\n')
  os.utime(os.path.join(recorded.logdir, 'episodes.csv'), (1, 1))  # As long, but written anew.
  assert fetched(recorded.run('pull', f'--to={target}')) == {'metrics.csv', 'episodes.csv'}
  assert all(same(recorded, target, name) for name in RECORDS)
  assert set(os.listdir(target)) == RECORDS


def test_checkpoints_on_demand(recorded, tmp_path):
  recorded.launched()
  target = str(tmp_path / 'results')
  none = recorded.run('pull', f'--to={target}', '--checkpoints=last')
  assert none.returncode == 1 and none.stderr.endswith('has no checkpoint so far\n')
  recorded.checkpoint(5, 10)
  recorded.write('model.ckpt-15.data-00000-of-00001', 'not whole')
  found = fetched(recorded.run('pull', f'--to={target}', '--checkpoints=last'))
  assert found == {'checkpoint', 'model.ckpt-10.index', 'model.ckpt-10.data-00000-of-00001'}
  assert all(same(recorded, target, name) for name in found)
  found = fetched(recorded.run('pull', f'--to={target}', '--checkpoints=all'))
  assert found == {'model.ckpt-5.index', 'model.ckpt-5.data-00000-of-00001'}
  recorded.checkpoint(10, 20)
  found = fetched(recorded.run('pull', f'--to={target}', '--checkpoints=last'))
  assert {'checkpoint', 'model.ckpt-20.index', 'model.ckpt-20.data-00000-of-00001'} == found
  # What the host has no more is kept here.
  assert 'model.ckpt-5.index' in os.listdir(target)


def test_the_best_checkpoint_on_demand(recorded, tmp_path):
  recorded.launched().checkpoint(5, 10)
  target = str(tmp_path / 'results')
  for text in (None, '{"best": null, "checkpoints": []}'):
    if text:
      recorded.write('checkpoints.json', text)
    early = recorded.run('pull', f'--to={target}', '--checkpoints=best')
    assert early.returncode == 1
    assert early.stderr.endswith('no best checkpoint so far: none was saved after 100 games\n')
  recorded.write('checkpoints.json', '{"best": "model.ckpt-5", "checkpoints": []}')
  found = fetched(recorded.run('pull', f'--to={target}', '--checkpoints=best'))
  best = {'model.ckpt-5.index', 'model.ckpt-5.data-00000-of-00001'}
  assert found == {'checkpoint', 'checkpoints.json', *best}
  assert all(same(recorded, target, name) for name in found)


def test_two_runs_never_share_a_folder(recorded, tmp_path):
  recorded.launched()
  target = tmp_path / 'results'
  assert recorded.run('pull', f'--to={target}').returncode == 0
  recorded.starts('run 1')  # Resumed.
  assert fetched(recorded.run('pull', f'--to={target}')) == {'run.json'}
  before = content(target / 'run.json')
  os.remove(os.path.join(recorded.logdir, 'run.json'))
  recorded.starts('run 2')
  recorded.write('metrics.csv', 'of another run\n')
  refused = recorded.run('pull', f'--to={target}')
  assert refused.returncode == 2 and refused.stdout == ''
  assert refused.stderr == (
    f'run_experiment_mm_raw.py: --to={target} holds another run; give each run a folder of its '
    'own\n'
  )
  assert content(target / 'run.json') == before
  assert content(target / 'metrics.csv') == b'metrics.csv\n'
  stray = tmp_path / 'stray'
  stray.mkdir()
  (stray / 'metrics.csv').write_text('of nobody knows')
  refused = recorded.run('pull', f'--to={stray}')
  assert (
    refused.returncode == 2 and 'holds metrics.csv of a run that is not known' in refused.stderr
  )


def test_bad_input_is_one_sentence(recorded, tmp_path):
  target = tmp_path / 'results'
  unknown = recorded.run('pull', f'--to={target}')
  assert unknown.returncode == 2 and 'no run of session impala is known on ' in unknown.stderr
  recorded.launched()
  (tmp_path / 'file').write_text('x')
  for words, sentence in (
    ([], '--action=pull needs a folder to fetch to, for example --to=results/'),
    ([f'--to={tmp_path}/file'], f'--to={tmp_path}/file is a file, not a folder'),
    ([f'--to={tmp_path}/file/x'], f'--to={tmp_path}/file/x cannot be made: Not a directory'),
    ([f'--to={target}', '--checkpoints=some'], '--checkpoints=some'),
    ([f'--to={target}', '--apply'], '--apply belongs to firewall, not to pull'),
  ):
    refused = recorded.run('pull', *words)
    assert refused.returncode == 2 and sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1 and refused.stdout == ''
  other = recorded.run('status', '--to=x')
  assert other.returncode == 2 and '--to belongs to pull, not to status' in other.stderr
  os.remove(os.path.join(recorded.logdir, 'run.json'))
  early = recorded.run('pull', f'--to={target}')
  assert early.returncode == 1 and early.stderr.endswith('no run.json: the run has not begun\n')
  assert not target.exists()


def test_the_folder_of_the_run_itself_is_refused(recorded):
  recorded.launched()
  result = recorded.run('pull', f'--to={recorded.logdir}/')
  if 'localhost' in content(recorded.csv).decode():
    assert result.returncode == 2 and "is the run's own folder" in result.stderr
  else:  # Another machine's folder of the same name, as far as anybody can tell.
    assert result.returncode == 0 and result.stdout.startswith('nothing new')


def test_a_full_disk_leaves_nothing_half(recorded, tmp_path):
  recorded.launched()
  target = tmp_path / 'results'
  assert recorded.run('pull', f'--to={target}').returncode == 0
  recorded.write('metrics.csv', 1_000_000 * 'x')
  # A file that may not grow further, for a disk that has no room.
  limited = frontend_fixtures.frontend(
    recorded.words('pull', f'--to={target}'),
    prefix=['prlimit', '--fsize=100000'],
    HOME=recorded.home,
    SSH_AUTH_SOCK='',
  )
  assert limited.returncode == 1
  assert limited.stderr.endswith(f'cannot write {target}/metrics.csv: File too large\n')
  assert content(target / 'metrics.csv') == b'metrics.csv\n'
  assert set(os.listdir(target)) == RECORDS


def test_a_host_that_goes_away_leaves_nothing_half(remote, sshd, tmp_path):  # noqa: F811
  source, target = tmp_path / 'large', str(tmp_path / 'fetched')
  with open(source, 'wb') as file:
    file.truncate(2_000_000_000)
  outcome = []

  def fetch(files):
    try:
      outcome.append(fetching.fetch(files, str(source), target))
    except HostError as error:
      outcome.append(str(error))

  with remote().files() as files:
    thread = threading.Thread(target=fetch, args=[files])
    thread.start()
    conftest.eventually(lambda: unfinished(tmp_path) or outcome)
    sshd.close()
    thread.join(60)
  (said,) = outcome
  assert str(said).startswith(f'cannot read {source}: ')
  assert not os.path.exists(target) and not unfinished(tmp_path)


def test_a_lost_connection_is_not_the_end_of_a_file(remote, tmp_path):
  source = tmp_path / 'file'
  source.write_bytes(b'1234')
  with remote().files() as files:
    file, _ = files.open(str(source))
    chunks = files.chunks(file, 8, str(source))
    assert next(chunks) == b'1234'
    file.sftp.get_channel().get_transport().sock.shutdown(socket.SHUT_WR)
    with pytest.raises(HostError, match=f'cannot read {source}: '):
      next(chunks)


@pytest.mark.filterwarnings('error::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_lost_connection_is_said_once(remote, tmp_path):
  source = tmp_path / 'large'
  with open(source, 'wb') as file:
    file.truncate(2_000_000_000)
  with remote().files() as files:
    file, found = files.open(str(source))
    chunks = files.chunks(file, found.size, str(source))
    next(chunks)
    file.sftp.get_channel().get_transport().sock.shutdown(socket.SHUT_WR)
    with pytest.raises(HostError, match=f'cannot read {source}: '):
      list(chunks)


def test_a_file_that_became_shorter_is_not_taken(remote, tmp_path):
  source = tmp_path / 'file'
  source.write_bytes(b'1234')
  with remote().files() as files:
    file, _ = files.open(str(source))
    with pytest.raises(HostError, match='became shorter while it was read; try again'):
      list(files.chunks(file, 8, str(source)))


def test_the_run_that_the_chief_named_counts(recorded, tmp_path):
  """It may come from a flag file, or follow from the level."""
  recorded.launched()
  os.rename(recorded.logdir, recorded.code + '/elsewhere')
  with open(recorded.code + '/.cluster/impala/learner-0.json', 'w', encoding='utf-8') as file:
    file.write('{"logdir": "' + recorded.code + '/elsewhere"}')
  assert fetched(recorded.run('pull', f'--to={tmp_path}/results')) == RECORDS


@pytest.mark.parametrize('which, names', [('last', ['b.data-0-of-1', 'b.index']), ('all', None)])
def test_the_files_of_checkpoints(which, names):
  listing = ['a.index', 'a.data-0-of-1', 'b.index', 'b.data-0-of-1', 'b.data-0-of-1.tempstate1',
             'c.data-0-of-1', 'metrics.csv']  # fmt: skip
  index = 'model_checkpoint_path: "/old/place/b"\nall_model_checkpoint_paths: "a"\n'
  expected = names or ['a.data-0-of-1', 'a.index', 'b.data-0-of-1', 'b.index']
  assert pull.checkpoint_files(index, listing, which) == expected
  with pytest.raises(fetching.Missing):
    pull.checkpoint_files('model_checkpoint_path: "c"', listing, 'last')
