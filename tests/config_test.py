"""config.py: every setting declared once, and what follows from the declarations."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

import config
import experiment
from conftest import ROOT
from evaluation import protocols
from reporting import flag_docs
from roles.settings import Options, Settings
from runtime.process import BadInput

ROWS = list(config.SETTINGS.values())


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.name)
def test_a_row_is_whole(row):
  assert re.fullmatch(r'\w.{5,}\.', row.help), 'the help is a noun phrase that ends in a full stop'
  assert row.group in config.GROUPS
  assert row.check(row.default) == row.default
  assert not row.choices or row.type is str


def test_the_documentation_is_that_of_the_rows():
  with open(os.path.join(ROOT, 'docs', 'flags.md'), encoding='utf-8') as file:
    assert file.read() == flag_docs.markdown(), 'python -m reporting.flag_docs > docs/flags.md'


def test_every_row_is_a_flag_a_line_of_help_and_a_field_of_one_class():
  command = [sys.executable, 'experiment.py', '--helpfull']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  names = re.findall(r'^  --(?:\[no\])?(\w+)', done.stdout, re.M)
  assert names == [row.flag for row in ROWS] and len(set(names)) == len(names)
  assert all(experiment.FLAGS[row.flag].default == row.default for row in ROWS)
  fields = [f.name for cls in (Settings, Options) for f in dataclasses.fields(cls)]
  assert len(fields) == len(set(fields))
  assert set(config.SHARED_FLAGS + config.TASK_FLAGS) <= set(fields)


def test_help_shows_what_a_person_may_want_in_the_order_of_the_documentation():
  shown = re.findall(r'^  --(?:\[no\])?(\w+)', flag_docs.help_text(), re.M)
  assert shown == [row.flag for row in ROWS if not row.expert]
  assert 35 <= len(shown) <= 45
  assert not {'state_dir', 'spare_actors', 'on_sigterm', 'watchdog_secs'} & set(shown)
  headings = re.findall(r'^(\w[^(:]*\w)', flag_docs.help_text(), re.M)
  assert headings == list(config.GROUPS)


@pytest.mark.parametrize('name, value, wanted', [
    ('batch_size', 0, 'a positive whole number'),
    ('batch_size', 1.5, 'a positive whole number'),
    ('batch_size', True, 'a positive whole number'),
    ('seed', -1, 'a non-negative whole number'),
    ('learning_rate', 0.0, 'a positive number'),
    ('learning_rate', float('inf'), 'a positive number'),
    ('discounting', 1.01, 'a number from 0 to 1'),
    ('momentum', -0.5, 'a number of at least 0'),
    ('optimizer', 'sgd', 'one of rmsprop, adam'),
    ('off_policy_correction', 'retrace', 'one of vtrace, one_step, epsilon, none'),
    ('advantage_bootstrap', 'values', 'one of vs, baseline'),
    ('clip_rho', 0.0, 'a positive number'),
    ('clip_pg_rho', -1.0, 'a positive number'),
    ('clip_c', float('nan'), 'a positive number'),
    ('replay_capacity', -1, 'a non-negative whole number'),
    ('replay_fraction', 1.5, 'a number from 0 to 1'),
    ('policy_lag', -2, 'a whole number of at least -1'),
    ('deterministic', 1, 'true or false'),
    ('level_name', None, 'a str'),
])  # fmt: skip
def test_a_value_that_is_out_of_bounds_is_refused_with_what_would_be_right(name, value, wanted):
  with pytest.raises(ValueError, match=f'^not {wanted}$'):
    config.SETTINGS[name].check(value)


def test_a_whole_number_is_good_for_a_fraction():
  checked = config.SETTINGS['metrics_secs'].check(10)
  assert (checked, type(checked)) == (10.0, float)


def test_choices_are_those_of_who_carries_them_out():
  assert config.SETTINGS['eval_protocol'].choices == tuple(protocols.PROTOCOLS)


# Earlier spellings.


@pytest.mark.parametrize('flags, value', [
    (['--advantage_normalisation'], 'advantage_rms'),
    (['--value_normalisation=true'], 'popart'),
    (['--value_normalisation', '--return_normalisation=popart'], 'popart'),
    (['--novalue_normalisation'], 'none'),
    (['--advantage_normalisation=false', '--value_normalisation=true'], 'popart'),
])  # fmt: skip
def test_an_earlier_spelling_is_read_with_a_sentence(flags, value, caplog):
  experiment.parse_args(['experiment.py', *flags])
  options = experiment.options()
  assert options.shared.return_normalisation == value
  assert options.given == {'return_normalisation'}
  assert set(options.all_flags) == set(config.SETTINGS)
  (record,) = caplog.records
  assert record.getMessage().endswith(f'is now written --return_normalisation={value}')


def test_an_earlier_spelling_in_a_flagfile_is_read(tmp_path):
  (tmp_path / 'old.flags').write_text('--value_normalisation\n')
  experiment.parse_args(['experiment.py', f'--flagfile={tmp_path}/old.flags'])
  assert experiment.options().shared.value_normalisation


def test_an_earlier_spelling_that_contradicts_is_refused():
  with pytest.raises(BadInput, match='--value_normalisation stands for .*=popart and contradicts'):
    experiment.parse_args(['x', '--value_normalisation', '--return_normalisation=none'])


@pytest.mark.parametrize('recorded, value', [
    (dict(advantage_normalisation=False, value_normalisation=False), 'none'),
    (dict(advantage_normalisation=True, value_normalisation=False), 'advantage_rms'),
    (dict(advantage_normalisation=False, value_normalisation=True), 'popart'),
    (dict(value_normalisation=False), 'none'),
    (dict(return_normalisation='popart'), 'popart'),
])  # fmt: skip
def test_a_record_of_an_earlier_version_has_the_names_of_now(recorded, value):
  assert config.up_to_date({**recorded, 'seed': 3}) == dict(return_normalisation=value, seed=3)
  assert config.up_to_date({'seed': 3}) == {'seed': 3}
