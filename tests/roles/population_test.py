"""Populations: each decision by numbers worked out by hand, and two members that train Catch."""

import json
import os
import random

import numpy as np
import pytest

import experiment
from reporting import lineage
from reporting.lineage import Comparison
from roles import population, resuming
from roles.population import Rounds, changed, is_copied, normalised_score
from runtime.checkpoint_folder import Saved, write_list
from runtime.checkpoints import Checkpoints, listed
from runtime.process import BadInput, RunFailed

LIMIT_SECS = 240.0
FLAGS = (
  '--level_name=impala/Catch-v0', '--population_settings=learning_rate,entropy_cost',
  '--population_returns=-1,1', '--population_frames=1000', '--total_environment_frames=10000',
)  # fmt: skip


class Drawn(random.Random):
  """Gives these numbers in turn."""

  def __init__(self, *numbers):
    super().__init__(0)
    self._numbers = list(numbers)

  def random(self):
    return self._numbers.pop(0)


# Decisions.


def test_rounds_end_at_the_burn_in_and_evenly_from_there():
  rounds = Rounds(burn_in=2500, length=1000)
  ends = [rounds.end_after(frames) for frames in (0, 2499, 2500, 2536, 3499, 3500, 9000)]
  assert ends == [2500, 2500, 3500, 3500, 3500, 4500, 9500]


def test_scores_are_normalised_by_bounds_by_people_or_by_the_run_itself():
  assert normalised_score(['impala/Catch-v0'], 0.5, [-1, 1]) == 0.75
  # Random play in Pong has -20.7, a person 14.6.
  assert normalised_score(['PongNoFrameskip-v4'], 14.6) == pytest.approx(1)
  assert normalised_score(['ALE/Pong-v5'], -20.7 + 35.3 / 4) == pytest.approx(0.25)
  assert normalised_score(['impala/Catch-v0'], 0.5) is None
  # Of several levels with references, the list of checkpoints has the mean capped score.
  several = ['PongNoFrameskip-v4', 'BreakoutNoFrameskip-v4']
  assert normalised_score(several, 0.4) == 0.4
  assert normalised_score([*several, 'impala/Catch-v0'], 0.4) is None


def test_only_who_is_better_by_more_than_the_margin_is_copied():
  assert is_copied(0.25, 0.5, margin=0.125) and not is_copied(0.25, 0.375, margin=0.125)
  # An absolute difference, not five percent of the own score.
  assert not is_copied(0.01, 0.05, margin=0.05) and is_copied(-0.5, -0.25, margin=0.05)
  assert not is_copied(None, 1.0, margin=0.05)


def test_a_third_of_the_settings_is_multiplied_or_divided_by_a_factor():
  start = dict(learning_rate=1.2, entropy_cost=1.2, epsilon=1.2)
  # Kept; then changed upwards; then changed downwards.
  new = changed(start, Drawn(0.34, 0.33, 0.49, 0.0, 0.5))
  assert new == pytest.approx(dict(learning_rate=1.2, entropy_cost=1.44, epsilon=1.0))
  assert changed(dict(discounting=0.99), Drawn(0, 0)) == dict(discounting=1.0)  # Its bound.
  seeded = [changed(start, random.Random(seed)) for seed in range(3000)]
  for name in start:
    factors = np.array([new[name] for new in seeded]) / 1.2
    shares = [np.mean(np.isclose(factors, factor)) for factor in (1, 1.2, 1 / 1.2)]
    np.testing.assert_allclose(shares, [2 / 3, 1 / 6, 1 / 6], atol=0.03)


# The command line.


def options(folder, member, *flags):
  places = [f'--logdir={folder}/{member}', f'--population_dir={folder}']
  experiment.parse_args(['experiment.py', *FLAGS, *places, *flags])
  return experiment.options()


@pytest.mark.parametrize('flags, told', [
  (['--population_settings='], 'needs --population_settings'),
  (['--deterministic_training'], '--deterministic_training is not for a member of a population'),
  (['--population_settings=batch_size'], '--population_settings=batch_size: members change'),
  (['--population_settings=optimizer'], '--population_settings=optimizer: members change'),
  (['--population_settings=nothing'], '--population_settings=nothing: members change'),
  (['--population_settings=metrics_secs'], '--population_settings=metrics_secs: members'),
  (['--population_returns='], 'no reference score is known for impala/Catch-v0'),
  (['--population_returns=1,1'], 'two numbers are needed, the smaller one first'),
  (['--population_returns=0,high'], 'two numbers are needed'),
  (['--population_returns=0,inf'], 'two numbers are needed'),
  (['--population_margin=-1'], '--population_margin=-1 is not'),
  (['--population_dir=elsewhere'], '--logdir has to be a folder in it'),
  (['--logdir='], '--logdir has to be a folder in it'),
  (['--ps_hosts=localhost:1', '--learner_hosts=localhost:2', '--actor_hosts=localhost:3',
    '--job_name=learner', '--task=0'], 'is a training in one process'),
])  # fmt: skip
def test_what_cannot_be_a_member_is_refused(tmp_path, flags, told):
  with pytest.raises(BadInput) as e:
    options(tmp_path, 'a', *flags)
  assert told in str(e.value) and os.listdir(tmp_path) == []


# One comparison.


def a_member(folder, frames, mean_return, history):
  """The folder of a member, with the names of a checkpoint's files and nothing in them."""
  folder.mkdir(exist_ok=True)
  saved = Saved(f'model.ckpt-{frames}', frames, frames, mean_return, False)
  for end in ('index', 'data-00000-of-00001'):
    (folder / f'{saved.name}.{end}').touch()
  write_list(str(folder), [saved], None)
  lineage.write(str(folder), history)


def begun(learning_rate, entropy_cost=0.01):
  return Comparison(0.0, 0, dict(learning_rate=learning_rate, entropy_cost=entropy_cost))


def compared(folder, *flags):
  """The plan of member `a`, with what is compared at its start."""
  own = population.with_current_settings(options(folder, 'a', *flags))
  settings = experiment.settings_lib.own_settings(own.shared)
  return population.compare(resuming.Plan(own, settings, own.logdir, []))


def test_the_first_start_writes_down_the_settings_it_began_with(tmp_path):
  (tmp_path / 'a').mkdir()
  compared(tmp_path, '--learning_rate=0.5')
  (first,) = lineage.read(str(tmp_path / 'a'))
  assert first.settings == dict(learning_rate=0.5, entropy_cost=0.01)
  assert (first.frames, first.other, first.copied) == (0, None, False)


def test_settings_change_after_a_round_and_are_kept_until_the_next(tmp_path):
  a_member(tmp_path / 'a', 1008, 0.5, [begun(0.5)])
  a_member(tmp_path / 'b', 1040, 0.55, [begun(0.25)])
  a_member(tmp_path / 'dead', 900, None, [begun(0.25)])  # It has no mean return yet.
  (tmp_path / 'no member').mkdir()
  plan = compared(tmp_path, '--learning_rate=0.5', '--seed=3')
  _, made = lineage.read(str(tmp_path / 'a'))
  # Scores .75 and .775: not better by .05.
  assert (made.frames, made.other, made.other_frames, made.copied) == (1008, 'b', 1040, False)
  assert (made.score, made.other_score) == pytest.approx((0.75, 0.775))
  assert made.settings == changed(begun(0.5).settings, _generator_after('3 a 1000', others=1))
  assert {n: getattr(plan.settings, n) for n in made.settings} == made.settings
  assert {n: plan.options.all_flags[n] for n in made.settings} == made.settings
  assert 'compared with b (0.775) and kept its own weights' in plan.notices[0]
  # The same command again, as after a crash in the round: nothing is compared or changed.
  again = compared(tmp_path, '--learning_rate=0.5', '--seed=3')
  assert again.notices == [] and len(lineage.read(str(tmp_path / 'a'))) == 2
  assert again.settings.learning_rate == made.settings['learning_rate']
  assert population.round_end(again.options, 10_000) == 2000


def is_a_change_of(before, after):
  return any(after == pytest.approx(before * factor) for factor in (1, 1.2, 1 / 1.2))


def _generator_after(seed, others):
  generator = random.Random(seed)
  generator.choice(range(others))
  return generator


def test_the_checkpoint_nearest_in_frames_is_compared_with_the_settings_that_led_to_it(tmp_path):
  names = ('learning_rate', 'entropy_cost')
  settings = [dict.fromkeys(names, value) for value in (0.1, 0.2, 0.3)]
  history = [
    Comparison(0.0, 0, settings[0]),
    Comparison(1.0, 1008, settings[1]),
    Comparison(2.0, 2016, settings[2], other='c', copied=True),
  ]
  a_member(tmp_path / 'b', 1008, -0.5, history)
  saved = [Saved('model.ckpt-1008', n, 1, n / 9000, False) for n in (1008, 2016, 3024)]
  write_list(str(tmp_path / 'b'), saved, None)
  found = [population.candidates(options(tmp_path, 'a'), n)[0] for n in (1000, 1512, 2000, 9000)]
  assert [one.checkpoint.frames for one in found] == [1008, 2016, 2016, 3024]
  # Changed after the checkpoint of its frames; but a copy took the place of that.
  assert [one.settings['learning_rate'] for one in found] == [0.1, 0.3, 0.3, 0.3]


def test_without_another_member_settings_still_change(tmp_path):
  a_member(tmp_path / 'a', 1008, None, [begun(0.5)])
  plan = compared(tmp_path)
  _, made = lineage.read(str(tmp_path / 'a'))
  assert (made.other, made.score, made.copied) == (None, None, False)
  assert made.settings == changed(begun(0.5).settings, random.Random('1 a 1000'))
  assert 'there was no other member to compare with' in plan.notices[0]


def test_a_checkpoint_that_cannot_be_read_is_not_copied(tmp_path, caplog):
  a_member(tmp_path / 'a', 1008, -1.0, [begun(0.5)])
  a_member(tmp_path / 'b', 1040, 1.0, [begun(0.25)])  # Its files are empty.
  compared(tmp_path)
  _, made = lineage.read(str(tmp_path / 'a'))
  assert (made.other, made.copied) == ('b', False)
  assert 'is empty' in caplog.text
  assert is_a_change_of(0.5, made.settings['learning_rate'])


def test_a_run_at_its_last_frame_or_in_its_burn_in_compares_nothing(tmp_path):
  a_member(tmp_path / 'a', 1008, 0.5, [begun(0.5)])
  a_member(tmp_path / 'b', 1040, 0.55, [begun(0.25)])
  compared(tmp_path, '--total_environment_frames=1000')
  late = compared(tmp_path, '--population_burn_in=1500')
  assert len(lineage.read(str(tmp_path / 'a'))) == 1
  assert population.round_end(late.options, 10_000) == 1500
  assert population.round_end(late.options, 1_200) == 1200


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"time": 1}', '{"time": 1, "frames": 2, "settings": 3}']
)
def test_a_history_that_is_none_is_one_sentence(tmp_path, text):
  (tmp_path / lineage.FILE).write_text(text + '\n')
  with pytest.raises(RunFailed, match='is not the history of a member'):
    lineage.read(str(tmp_path))


# Two members on Catch.


@pytest.mark.slow
def test_a_member_goes_on_from_the_weights_slots_and_settings_of_a_better_one(tmp_path, processes):
  def start(member, learning_rate, burn_in):
    folder = tmp_path / 'population'
    run = processes.start(
      'tests/altered_experiment.py', f'recorded={tmp_path}/{member}.npz', *FLAGS,
      '--batch_size=4', '--unroll_length=9', '--optimizer=adam', '--epsilon=1e-5',
      '--num_actors=1', '--envs_per_actor=4', '--metrics_secs=1', f'--population_dir={folder}',
      f'--logdir={folder}/{member}', f'--learning_rate={learning_rate}',
      f'--population_burn_in={burn_in}',
    )  # fmt: skip
    assert run.exit_code(LIMIT_SECS) == 0, run.output()
    return run.output(), str(folder / member)

  said, good = start('good', 3e-3, 6000)
  assert 'the round of 6000 frames is done' in said
  _, bad = start('bad', 1e-9, 1500)
  (own,), (other,) = listed(bad), listed(good)
  said, _ = start('bad', 1e-9, 1500)
  _, made = lineage.read(bad)
  assert made.copied and made.other == 'good' and made.other_frames == other.frames
  assert is_a_change_of(3e-3, made.settings['learning_rate'])
  assert f'resumed at {own.frames} frames from {bad}/{own.name}-2' in said
  # Weights and slots are the other's, frames and updates its own.
  begun_with = np.load(f'{tmp_path}/bad.npz')
  values = {n.split('/', 1)[1]: begun_with[n] for n in begun_with.files if n.startswith('session/')}
  path = os.path.join(good, other.name)
  names = set(Checkpoints.shapes(path)) - {'environment_frames', 'global_step'}
  assert any('Adam' in name for name in names) and len(names) > 16
  for name in names:
    np.testing.assert_array_equal(values[name], Checkpoints.value(path, name), name)
  assert (values['environment_frames'], values['global_step']) == (own.frames, own.updates)
  # It trained a round with the settings that it goes on with, and these are on record.
  assert 2500 <= listed(bad)[-1].frames < 3000
  with open(os.path.join(bad, 'run.json')) as file:
    assert json.load(file)['settings']['learning_rate'] == made.settings['learning_rate']
