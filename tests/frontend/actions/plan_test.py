"""`plan` with a prediction: the command end to end, and bad input."""

import json

import pytest

import frontend_fixtures
from frontend.planning import measured

pytestmark = pytest.mark.slow

EXAMPLE = '--cluster_csv_path=local_cluster_example.csv'
CATCH = '--level_name=impala/Catch-v0'


def plan(*words, **kwargs):
  return frontend_fixtures.frontend(['--action=plan', *words], **kwargs)


WORDS = (EXAMPLE, CATCH, '--network_gbit=1', '--batch_size=50', '--unroll_length=20')
SPEEDS = ('--actor_frames_per_sec=1000', '--update_secs=0.5')


@pytest.fixture(scope='module')
def example():
  """What is planned for the example with SPEEDS."""
  return plan(*WORDS, *SPEEDS)


def test_the_example_on_one_machine_has_no_link_in_the_way(example):
  result = example
  assert result.returncode == 0, result.stderr
  commands, traffic, memory, sentence = result.stdout.split('\n\n')
  assert commands.count('experiment.py') == 8 and '--network_gbit' not in commands
  assert traffic.splitlines()[1].split() == ['localhost', *6 * ['-'], '0%', '0%']
  assert memory.splitlines()[1].split()[:2] == ['ps-0', 'localhost']
  # The second of two learners has two of five actors: 2000 frames/s for 1000 frames an update,
  # as many as computing takes.
  assert sentence.startswith(
    "the bottleneck is the learners' computing: 2 updates/s, 4,000 frames/s "
  )
  assert '; 2 actors per learner would be enough; from ' in sentence


def test_hosts_and_the_flags_of_single_tasks_count(tmp_path):
  csv = tmp_path / 'cluster.csv'
  csv.write_text(
    'job,ip,tf_port,flags\nps,10.0.0.1,8000\nps,10.0.0.2,8000\nlearner,10.0.0.1,8001\n'
    'actor,10.0.0.3,9000,--envs_per_actor=8\nactor,10.0.0.4,9000,--envs_per_actor=64\n'
  )
  result = plan(f'--cluster_csv_path={csv}', CATCH, '--network_gbit=1', '--actor_frames_per_sec=10')
  assert result.returncode == 0, result.stderr
  _, traffic, memory, sentence = result.stdout.split('\n\n')
  head, *rows = [line.split('  ') for line in traffic.splitlines()]
  names = [cell.strip() for cell in head if cell]
  hosts = {}
  for row in rows:
    cells = [cell.strip() for cell in row if cell]
    hosts[cells[0]] = dict(zip(names[1:], cells[1:], strict=True))
  assert list(hosts) == ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4']
  fetched = [float(hosts[f'10.0.0.{i}']['weights in']) for i in (3, 4)]
  assert fetched[0] > fetched[1]
  assert hosts['10.0.0.4']['gradients out'] == hosts['10.0.0.2']['gradients out'] == '-'
  first, second = (line.split()[2] for line in memory.splitlines()[1:])
  assert first == second
  assert sentence.startswith('the bottleneck is acting: 0.0312 updates/s, 20 frames/s ')


def test_learners_on_their_own_are_predicted_too(example):
  flags = CATCH, '--update_secs=0.5', '--actor_frames_per_sec=100000'
  alone = plan(EXAMPLE, *flags, '--sync_learners=false')
  assert (example.returncode, alone.returncode) == (0, 0), alone.stderr
  assert 'computing: 2 updates/s, ' in example.stdout
  assert '(an update without waiting: 0.5 s computing, ' in example.stdout
  assert 'computing: 4 updates/s, ' in alone.stdout  # Of two learners.
  assert '(an update of one learner without waiting: 0.5 s computing, ' in alone.stdout


def test_without_a_speed_nothing_is_predicted():
  result = plan(EXAMPLE, CATCH)
  assert result.returncode == 0 and 'bottleneck' not in result.stdout


@pytest.mark.parametrize(
  'words, sentence',
  [
    (['--action=check', '--network_gbit=1'], '--network_gbit belongs to plan, not to check'),
    (['--action=status', '--update_secs=1'], '--update_secs belongs to plan, not to status'),
    (['--action=logs', '--actor_frames_per_sec=9'],
     '--actor_frames_per_sec belongs to plan, not to logs'),
    (['--network_gbit=0'],
     '--network_gbit=0 is not a positive number: write for example --network_gbit=10'),
    (['--actor_frames_per_sec=-4'], '--actor_frames_per_sec=-4 is not a positive number'),
    (['--update_secs=nan'], '--update_secs=nan is not a positive number'),
    (['--network_gbit=inf'], '--network_gbit=inf is not a positive number'),
    (['--update_secs=soon'], 'update_secs=soon'),
    (['--update_secs=1', '--batch_size=0'], 'batch_size=0'),
    (['--network_gbit=1', CATCH], '--update_secs is missing'),
  ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_2(words, sentence):
  result = plan(EXAMPLE, *words)
  assert result.returncode == 2, result
  assert sentence in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
  assert not [line for line in result.stdout.splitlines() if not line.startswith('warning: ')]


def test_a_learner_without_an_actor_is_bad_input(tmp_path):
  csv = tmp_path / 'cluster.csv'
  csv.write_text('job,ip,tf_port\nps,::1,1\nlearner,::1,2\nlearner,::1,3\nactor,::1,4\n')
  result = plan(f'--cluster_csv_path={csv}', CATCH, '--update_secs=1')
  assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
  assert 'every learner needs an actor of its own' in result.stderr


@pytest.mark.parametrize(
  'program, code, reason',
  [
    ('sys.exit("no room for TensorFlow")', 1, 'no room for TensorFlow'),
    ('sys.exit(7)', 1, 'exit 7'),
    ('print("hello")', 1, 'its answer is not JSON'),
    ('print("experiment.py: bad", file=sys.stderr); sys.exit(2)', 2, 'experiment.py: bad'),
  ],
)
def test_sizes_that_cannot_be_told_are_one_sentence(tmp_path, program, code, reason):
  experiment = f'import sys\nif sys.argv[-1] == "--mode=sizes":\n  {program}\n'
  copy = frontend_fixtures.copy_code(tmp_path / 'code', experiment)
  csv = tmp_path / 'cluster.csv'
  csv.write_text('job,ip,tf_port\nps,localhost,1\nlearner,localhost,2\nactor,localhost,3\n')
  result = plan(f'--cluster_csv_path={csv}', '--update_secs=1', code=copy)
  assert (result.returncode, result.stdout) == (code, '')
  assert len(result.stderr.splitlines()) == 1 and reason in result.stderr


def recorded(folder, rows, job_name=''):
  """A run in a folder with so many rows, of which the first half was slower."""
  folder.mkdir()
  (folder / 'run.json').write_text(json.dumps({'flags': {'job_name': job_name}}))
  lines = ['time,updates,frames_per_sec,learner_wait_fraction,actor_wait_fraction']
  for i in range(rows):
    late = i >= rows // 2
    lines.append(f'{10 * i},{10 * i},{600 if late else 100},0.5,0.4')
  (folder / 'metrics.csv').write_text('\n'.join(lines) + '\n10,2')
  return folder


def test_speeds_are_taken_from_a_run(example, tmp_path):
  # Ten seconds for 10 updates, half of them waiting; 600 frames/s, 40% of the time waiting.
  run = recorded(tmp_path / 'run', 16)
  assert measured.speeds(str(run)) == {
    'actor_frames_per_sec': pytest.approx(1000),
    'update_secs': pytest.approx(0.5),
  }
  taken = plan(*WORDS, f'--speeds_from={run}')
  assert taken.returncode == 0, taken.stderr
  line = f'from the run in {run}: --actor_frames_per_sec=1000 --update_secs=0.5\n'
  assert line in taken.stdout
  assert taken.stdout.split('\n\n')[-3:] == example.stdout.split('\n\n')[-3:]
  one_given = plan(*WORDS, f'--speeds_from={run}', '--update_secs=2')
  assert f'from the run in {run}: --actor_frames_per_sec=1000\n' in one_given.stdout
  assert '2 s computing' in one_given.stdout


def test_a_folder_that_tells_no_speeds_is_one_sentence(tmp_path):
  for folder, said in (
    (tmp_path / 'nowhere', 'there is no run.json'),
    (recorded(tmp_path / 'short', 6), 'has 7 rows, too few'),
    (recorded(tmp_path / 'cluster', 16, 'learner'), 'is the run of a cluster'),
  ):
    result = plan(EXAMPLE, CATCH, f'--speeds_from={folder}')
    assert (result.returncode, result.stderr.count('\n')) == (2, 1), result.stderr
    assert said in result.stderr
