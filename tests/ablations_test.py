"""benchmarks/ablations.py: its runs are possible, and a table has the scores of what is done."""

import csv
import os
import signal
import sys

import pytest

import experiment
from conftest import ROOT, eventually, whole_rows

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))

import ablations


@pytest.mark.parametrize('study', sorted(ablations.STUDIES))
def test_every_run_has_a_folder_of_its_own_and_flags_that_fit(study):
  jobs = ablations.jobs_of(study, list(ablations.TASKS), 2, 'out', ('--learning_rate=0.001',))
  assert len({job.folder for job in jobs}) == len(jobs) > 2 * len(ablations.TASKS)
  assert len({job.flags for job in jobs}) == len(jobs)
  for job in jobs:
    experiment.parse_args(['experiment.py', *job.flags])
    shared = experiment.shared_flags()
    assert not shared.why_no_replay(), job.flags
    assert (shared.learning_rate, shared.seed) == (0.001, job.seed)
    if shared.policy_lag >= 0:
      assert shared.new_unrolls % experiment.options().envs_per_actor == 0


def finish(job, scores):
  """Writes the records of a run with games of these returns, the first before its last tenth."""
  os.makedirs(job.folder)
  games = [dict(environment_frames=900, episode_return=99)]
  games += [dict(environment_frames=901, episode_return=score) for score in scores]
  last = dict(environment_frames=1000, updates=5, policy_lag_mean=2, replayed_lag_mean='')
  for name, rows in (('episodes.csv', games), ('metrics.csv', [last])):
    with open(os.path.join(job.folder, name), 'w', newline='') as file:
      writer = csv.DictWriter(file, rows[0])
      writer.writeheader()
      writer.writerows(rows)
  open(os.path.join(job.folder, 'ablation_done'), 'w').close()


def test_scores_tables_and_pictures_of_the_runs_that_are_done(tmp_path):
  tasks = ['Catch', 'Memory']
  jobs = ablations.jobs_of('figure_E1', tasks, 2, tmp_path, ())
  for job in jobs:
    if job.task == 'Catch' and job.variant[:2] == ('none', '10'):
      finish(job, [job.seed, job.seed + 1])
  ablations.write('figure_E1', jobs, tasks, tmp_path)
  with open(tmp_path / 'figure_E1.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [(row['seed'], row['score'], row['games']) for row in rows] == [
    ('1', '1.5', '2'), ('2', '2.5', '2'),
  ]  # fmt: skip
  lines = (tmp_path / 'figure_E1.md').read_text().splitlines()
  (line,) = [line for line in lines if '| none | 10 |' in line]
  assert '| 2 [1.5, 2.5], 2 seeds |' in line
  assert len(lines) == 2 + 10
  assert (tmp_path / 'figure_E1.png').stat().st_size > 1000


def test_a_run_that_was_ended_early_is_not_done(processes, tmp_path):
  study = processes.start(
    os.path.join(ROOT, 'benchmarks', 'ablations.py'), '--figure=replay', '--tasks=Catch',
    '--seeds=1', '--at_a_time=1', f'--out={tmp_path}', '--total_environment_frames=100000000',
  )  # fmt: skip
  metrics = tmp_path / 'runs' / 'figure_replay' / 'Catch' / 'vtrace,0' / 'seed=1' / 'metrics.csv'
  eventually(lambda: len(whole_rows(metrics)) > 2, 120, study.output)
  os.kill(study.pid, signal.SIGTERM)
  assert study.exit_code(120) == 128 + signal.SIGTERM, study.output()
  assert (metrics.parent / 'checkpoint').exists()
  assert not list(tmp_path.rglob('ablation_done'))
