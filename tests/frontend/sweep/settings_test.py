"""From --sweep to runs: every form of values, the names of folders, draws, and what is refused."""

import math
import re

import pytest

from frontend.errors import UserError
from frontend.host_side import sweep_folder
from frontend.sweep import settings


def grid(*words):
  return settings.grid(settings.parse(words))


def test_a_grid_has_every_combination_and_the_last_setting_changes_fastest():
  runs = grid('learning_rate=1e-4,3e-4', 'seed=1..3')
  assert [run.name for run in runs] == [
    f'learning_rate={rate},seed={seed}' for rate in ('1e-4', '3e-4') for seed in (1, 2, 3)
  ]
  assert runs[4].settings == {'learning_rate': '3e-4', 'seed': '2'}
  assert [run.settings['seed'] for run in grid('seed=-1..1')] == ['-1', '0', '1']


def test_names_are_folders_and_all_different():
  runs = grid('level_name=impala/Catch-v0,impala_Catch-v0,a b$(x),IMPALA/catch-v0')
  names = [run.name for run in runs]
  assert names[0] == 'level_name=impala_Catch-v0' and names[1] == names[0] + '~2'
  assert len({name.lower() for name in names}) == 4
  assert all(re.fullmatch(r'[A-Za-z0-9_=,.+~-]+', name) for name in names)
  long = grid(f'env_kwargs={"x" * 300}a,{"x" * 300}b')
  assert len(long[0].name) == 200 and long[1].name == long[0].name + '~2'


def test_draws_lie_in_their_intervals_and_follow_the_seed():
  swept = settings.parse(['entropy_cost=log:5e-5..1e-2', 'discounting=uniform:0.9..0.99',
                          'optimizer=adam,rmsprop', 'seed=1..3'])  # fmt: skip
  runs = settings.draw(swept, 200, seed=7)
  costs = [float(run.settings['entropy_cost']) for run in runs]
  assert all(5e-5 <= cost <= 1e-2 for cost in costs)
  # Evenly distributed is the logarithm: half of the draws are below the geometric mean.
  assert 70 < sum(cost < math.sqrt(5e-5 * 1e-2) for cost in costs) < 130
  assert all(0.9 <= float(run.settings['discounting']) <= 0.99 for run in runs)
  assert {run.settings['optimizer'] for run in runs} == {'adam', 'rmsprop'}
  assert {run.settings['seed'] for run in runs} == {'1', '2', '3'}
  assert len({run.name for run in runs}) == 200
  assert settings.draw(swept, 200, seed=7) == runs and settings.draw(swept, 9, seed=8) != runs[:9]
  assert settings.draw(swept, 9, seed=7) == runs[:9]  # A larger draw only adds runs.


@pytest.mark.parametrize(
  'words, said',
  [
    (['learning_rate'], 'not of the form --sweep=learning_rate=1e-4,3e-4'),
    (['learning_rate='], 'not of the form'),
    (['seed=1..3', 'seed=4'], 'seed is swept twice'),
    (['seed=1,1'], "'1' is there twice"),
    (['seed=1,,2'], 'a value is empty'),
    (['seed=5..1'], 'a range goes up'),
    (['learning_rate=1e-4..1e-2'], 'is written log:1e-4..1e-2 or uniform:1e-4..1e-2'),
    (['entropy_cost=log:0..1'], 'both above 0'),
    (['entropy_cost=uniform:2..1'], 'from a number to a larger one'),
    (['entropy_cost=log:x'], 'an interval is written 5e-5..1e-2'),
    (['logdir=a,b'], '--logdir cannot be swept'),
    (['task=1,2'], '--task cannot be swept'),
    (['entropy_cost=log:1e-3..1'], 'with --sweep_random=N'),
    (['seed=1..5000', 'sample_reuse=1..5'], '25,000 combinations'),
  ],
)
def test_bad_input_is_one_sentence(words, said):
  with pytest.raises(UserError, match=re.escape(said)) as error:
    grid(*words)
  assert '\n' not in str(error.value)


def test_members_of_a_population_begin_with_draws_and_have_seeds():
  swept = settings.parse(['learning_rate=log:1e-4..1e-2', 'epsilon=1e-1,1e-3'])
  members = settings.members(swept, 8, seed=5)
  assert [run.name for run in members] == [f'member-{i}' for i in range(1, 9)]
  assert [run.settings['seed'] for run in members] == [str(seed) for seed in range(5, 13)]
  assert {run.settings['epsilon'] for run in members} == {'1e-1', '1e-3'}
  rates = [float(run.settings['learning_rate']) for run in members]
  assert len(set(rates)) == 8 and all(1e-4 <= rate <= 1e-2 for rate in rates)
  assert settings.members(swept, 4, seed=5) == members[:4]
  with pytest.raises(UserError, match='has a seed of its own'):
    settings.members(settings.parse(['seed=1..2']), 2, seed=1)


def test_members_take_turns_and_see_their_folder(tmp_path):
  runs = settings.members(settings.parse(['learning_rate=0.1,0.2']), 3, seed=1)
  sweep = sweep_folder.Sweep(['learning_rate'], [], runs, population=3)
  folder = str(tmp_path)
  tasks = {run.name: sweep_folder.tasks_folder(folder, run.name) for run in runs}
  for name, number in (('member-1', 1), ('member-1', 2), ('member-2', 1)):
    assert sweep_folder.claim(tasks[name], number, 'here', epoch=1)
  turns = [run.name for run in sweep_folder.by_turns(folder, sweep)]
  assert turns == ['member-3', 'member-2', 'member-1']
  alone = sweep._replace(population=0)
  assert sweep_folder.by_turns(folder, alone) == runs
  places = sweep_folder.place_arguments(sweep, folder, 'member-1')
  assert places == [f'--logdir={folder}/member-1', f'--population_dir={folder}']
  assert sweep_folder.place_arguments(alone, folder, 'member-1') == places[:1]


def test_more_draws_than_combinations_are_refused():
  with pytest.raises(UserError, match='only 6 different combinations'):
    settings.draw(settings.parse(['seed=1..3', 'optimizer=adam,rmsprop']), 7, seed=1)


def test_the_list_is_written_and_read(tmp_path):
  sweep = sweep_folder.Sweep(['seed'], ['--level_name=x'], grid('seed=1..2'), epoch=3)
  sweep = sweep._replace(hosts=[sweep_folder.HostEntry('10.0.0.1', '10.0.0.1', 2, '0,1')])
  assert sweep_folder.read(str(tmp_path)) is None
  sweep_folder.write(str(tmp_path / 'new' / 'sweep'), sweep)
  assert sweep_folder.read(str(tmp_path / 'new' / 'sweep')) == sweep
  assert sweep_folder.run_arguments(sweep, sweep.runs[1]) == ['--level_name=x', '--seed=2']


@pytest.mark.parametrize('name', ['../x', '..', 'a/b', '', 3, 'seed=1'])
def test_a_list_with_names_that_are_no_folders_is_refused(name):
  value = sweep_folder.to_json(sweep_folder.Sweep(['seed'], [], grid('seed=1..2')))
  value['runs'][1]['name'] = name
  with pytest.raises(ValueError, match='names of different folders'):
    sweep_folder.from_json(value)


def test_a_list_whose_runs_have_other_settings_is_refused():
  value = sweep_folder.to_json(sweep_folder.Sweep(['seed'], [], grid('seed=1..2')))
  value['runs'][1]['settings']['observers'] = 'module:Class'
  with pytest.raises(ValueError, match='other settings than those that are swept'):
    sweep_folder.from_json(value)
