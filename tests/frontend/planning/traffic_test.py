"""The laws of traffic: against what was measured, and against cases worked out by hand."""

import contextlib
import csv
import io
import json
import math
import os
import sys

import pytest

import experiment
from conftest import ROOT
from frontend import cluster_csv
from frontend.errors import UserError
from frontend.planning import traffic
from frontend.planning.traffic import Actor, Placement

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))

import scaling
from clusters import ShapedNetwork

TOLERANCE = 0.15
NO_LIMIT = traffic.Speeds(math.inf, math.inf, 0.0)
# 100 bytes of weights, 10 bytes an unroll of 5 frames, batches of 8 unrolls.
RUN = traffic.Run(100, 200, 10, 5, 8, 1)


# What was measured.


def measured_rows():
  """The rows of scaling.csv where the machine that was all hosts was not the limit."""
  with open(os.path.join(ROOT, 'docs/results/scaling/scaling.csv'), newline='') as file:
    return [row for row in csv.DictReader(file) if float(row['busy']) < 0.5]


def measured_placement(row):
  """The `Placement` of the tasks of a row, by the host lists of the benchmark itself."""
  learners, servers = int(row['learners']), int(row['ps'])
  network = ShapedNetwork(2 * learners + 1, float(row['gbit']))
  words = scaling.commands(network, '/folder', learners, servers, [], [])['learner-0']
  lists = dict(word[2:].split('=') for word in words if '_hosts=' in word)
  lines = ['job,ip,tf_port'] + [
    f'{job},{address.replace(":", ",")}'
    for job in ('ps', 'learner', 'actor')
    for address in lists[f'{job}_hosts'].split(',')
  ]
  cluster = cluster_csv.parse_cluster('\n'.join(lines), 'measured.csv')
  return traffic.placement_of(cluster, [(scaling.ENVS, 1)] * learners)


@pytest.fixture(scope='module')
def sizes():
  """Function of an agent's name: what `--mode=sizes` says of it, as it was measured."""
  known = {}

  def ask(agent):
    if agent not in known:
      words = [
        'experiment.py', '--mode=sizes', '--level_name=PongNoFrameskip-v4',
        f'--agent_name={agent}', f'--batch_size={scaling.BATCH_SIZE}',
        f'--envs_per_actor={scaling.ENVS}', '--num_actors=1',
      ]  # fmt: skip
      with contextlib.redirect_stdout(io.StringIO()) as said:
        assert experiment.main(words) == 0
      known[agent] = json.loads(said.getvalue())
    return known[agent]

  return ask


@pytest.mark.parametrize(
  'row',
  measured_rows(),
  ids=lambda row: f'{row["learners"]} learners, {row["ps"]} ps, {row["sync"]}',
)
def test_a_prediction_is_what_was_measured(row, sizes):
  sizes_of_run = sizes(row['agent'])
  frames = sizes_of_run['unroll_length'] * sizes_of_run['num_action_repeats']
  run = traffic.Run(
    sizes_of_run['weight_bytes'],
    sizes_of_run['slot_bytes'],
    sizes_of_run['unroll_bytes'],
    frames,
    sizes_of_run['batch_size'],
    1,
    row['sync'] == 'True',
  )
  speeds = traffic.Speeds(float(row['gbit']) * 1e9 / 8, math.inf, float(row['update_ms']) / 1000)
  predicted = traffic.predict(measured_placement(row), run, speeds)
  assert predicted.updates_per_sec == pytest.approx(float(row['updates_per_sec']), rel=TOLERANCE)

  # The benchmark adds both directions of the host whose link is busiest in one of them.
  links = [
    [sum(rates[kind][way] for kind in traffic.KINDS) for way in (0, 1)]
    for rates in predicted.bytes_per_sec.values()
  ]
  busiest = max(links, key=max)
  mbytes = sum(busiest) / predicted.updates_per_sec / 1e6
  assert mbytes == pytest.approx(float(row['mbytes_per_update']), rel=TOLERANCE)
  share = max(busiest) / speeds.link_bytes_per_sec
  assert share == pytest.approx(float(row['busiest_link']), rel=TOLERANCE)


def test_there_are_measured_rows_with_a_link_in_the_way():
  assert any(row['learners'] == '8' and row['ps'] == '1' for row in measured_rows())


# By hand.


def one_each(actor_envs=4, loops=1):
  return Placement(('p',), ('l',), (Actor('a', actor_envs, loops),))


def test_bytes_of_one_learner_and_one_actor():
  # 8 unrolls are 2 rounds of 4 environments, but between two updates the weights are new once.
  assert traffic.bytes_per_update(one_each(), RUN) == {
    ('weights', 'p', 'out'): 100,
    ('weights', 'l', 'in'): 100,
    ('gradients', 'l', 'out'): 100,
    ('gradients', 'p', 'in'): 100,
    ('unrolls', 'a', 'out'): 80,
    ('unrolls', 'l', 'in'): 80,
    ('acting', 'p', 'out'): 100,
    ('acting', 'a', 'in'): 100,
  }


@pytest.mark.parametrize('envs, loops, fetched', [(16, 1, 50), (4, 2, 200), (1, 3, 300)])
def test_an_actor_fetches_weights_once_a_round_and_a_loop_once_an_update_at_most(
  envs, loops, fetched
):
  moved = traffic.bytes_per_update(one_each(envs, loops), RUN)
  assert moved['acting', 'a', 'in'] == pytest.approx(fetched)


def test_a_batch_that_is_used_again_is_sent_once():
  moved = traffic.bytes_per_update(one_each(), RUN._replace(sample_reuse=2))
  assert moved['unrolls', 'l', 'in'] == 40 and moved['weights', 'l', 'in'] == 100


def test_slices_are_even_over_parameter_servers():
  placement = Placement(('p', 'q'), ('l', 'm'), (Actor('a', 8, 1), Actor('b', 8, 1)))
  moved = traffic.bytes_per_update(placement, RUN)
  assert moved['weights', 'p', 'out'] == moved['weights', 'q', 'out'] == 100
  assert moved['gradients', 'l', 'out'] == 100
  assert traffic.ps_bytes(placement, RUN) == 150


def test_actors_are_dealt_to_learners_round_robin():
  placement = Placement(('p',), ('l', 'm'), tuple(Actor(name, 8, 1) for name in 'abc'))
  moved = traffic.bytes_per_update(placement, RUN)
  assert moved['unrolls', 'a', 'out'] == moved['unrolls', 'c', 'out'] == 40
  assert moved['unrolls', 'b', 'out'] == moved['unrolls', 'm', 'in'] == 80


def test_a_parameter_server_on_the_host_of_the_learner_costs_no_link():
  placement = Placement(('l',), ('l',), (Actor('a', 8, 1),))
  moved = traffic.bytes_per_update(placement, RUN)
  assert {kind for kind, _, _ in moved} == {'unrolls', 'acting'}
  predicted = traffic.predict(placement, RUN, traffic.Speeds(1000, math.inf, 2.0))
  assert (predicted.updates_per_sec, predicted.bottleneck) == (0.5, traffic.COMPUTING)
  assert (predicted.weights_secs, predicted.gradients_secs) == (0, 0)


def test_all_on_one_host_has_no_limit_but_computing():
  placement = Placement(('h',), ('h',), (Actor('h', 8, 1),))
  predicted = traffic.predict(placement, RUN, NO_LIMIT._replace(link_bytes_per_sec=1))
  assert math.isinf(predicted.updates_per_sec)
  assert predicted.bytes_per_sec == {'h': dict.fromkeys(traffic.KINDS, (0, 0))}


def test_weights_and_gradients_pass_the_busiest_link_one_after_the_other():
  placement = Placement(('p',), ('l', 'm'), (Actor('a', 8, 1), Actor('b', 8, 1)))
  predicted = traffic.predict(placement, RUN, traffic.Speeds(400, math.inf, 0.5))
  # The parameter server sends 2 x 100 to learners and 2 x 100 to actors, and gets 2 x 100.
  assert (predicted.weights_secs, predicted.gradients_secs) == (1.0, 0.5)
  # 0.5 s + 1 s + 0.5 s.
  assert predicted.updates_per_sec == pytest.approx(1 / 2)
  assert (predicted.bottleneck, predicted.host) == (traffic.LINK, 'p')
  assert predicted.frames_per_sec == pytest.approx(1 / 2 * 2 * 8 * 5)
  assert predicted.bytes_per_sec['p']['weights'] == pytest.approx((0, 400 / 2))
  assert predicted.bytes_per_sec['p']['gradients'] == pytest.approx((200 / 2, 0))
  assert predicted.bytes_per_sec['m']['unrolls'] == pytest.approx((80 / 2, 0))


def test_actors_are_in_the_way_of_learners_that_fetch_weights_over_the_same_link_alone():
  # The learner beside the parameter server waits for no link, however much its actor fetches.
  placement, actor = Placement(('l',), ('l',), (Actor('a', 8, 1),)), Actor('b', 8, 1)
  assert traffic.predict(placement, RUN, traffic.Speeds(400, math.inf, 0.5)).weights_secs == 0
  # A second one elsewhere fetches 100, while 2 x 100 go to actors.
  placement = placement._replace(learner=('l', 'm'), actor=(*placement.actor, actor))
  assert traffic.predict(placement, RUN, traffic.Speeds(400, math.inf, 0.5)).weights_secs == 0.75
  # Nobody else is on the link of that learner.
  placement = placement._replace(actor=(Actor('l', 8, 1), Actor('l', 8, 1)))
  assert traffic.predict(placement, RUN, traffic.Speeds(400, math.inf, 0.5)).weights_secs == 0.25


EACH_ON_ITS_OWN = RUN._replace(sync_learners=False)


def test_learners_on_their_own_share_links_with_whoever_is_on_them():
  # Alone each spends 0.5 s computing and 2 x 0.1 s sending; together they would send 2 x 0.2 s. An
  # update and its actor's fetch are 0.2 s of the way out of the parameter server, and 0.1 s of the
  # way in. With one learner these are busy for a quarter and an eighth of the time, so that two
  # spend 0.2 x 1.25 and 0.1 x 1.125 s.
  placement = Placement(('p',), ('l', 'm'), (Actor('a', 8, 1), Actor('b', 8, 1)))
  predicted = traffic.predict(placement, EACH_ON_ITS_OWN, traffic.Speeds(1000, math.inf, 0.5))
  assert (predicted.weights_secs, predicted.gradients_secs) == (0.1, 0.1)
  assert predicted.updates_per_sec == pytest.approx(2 / 0.8625)
  assert predicted.bottleneck == traffic.COMPUTING
  assert predicted.frames_per_sec == pytest.approx(2 / 0.8625 * 8 * 5)
  assert predicted.bytes_per_sec['p']['gradients'] == pytest.approx((200 / 0.8625, 0))
  together = traffic.predict(placement, RUN, traffic.Speeds(1000, math.inf, 0.5))
  assert together.updates_per_sec == pytest.approx(1 / (0.5 + 0.4 + 0.2))
  # 0.8 s and 0.4 s of a link of 250 a second, beside 0.5 s of computing.
  full = traffic.predict(placement, EACH_ON_ITS_OWN, traffic.Speeds(250, math.inf, 0.5))
  assert full.updates_per_sec == pytest.approx(
    2 / (0.5 + 0.8 * (1 + 0.8 / 1.7) + 0.4 * (1 + 0.4 / 1.7))
  )
  assert (full.bottleneck, full.host) == (traffic.LINK, 'p')


def test_a_learner_beside_the_parameter_server_is_faster_on_its_own():
  placement = Placement(('l',), ('l', 'm'), (Actor('a', 8, 1), Actor('b', 8, 1)))
  predicted = traffic.predict(placement, EACH_ON_ITS_OWN, traffic.Speeds(1e6, math.inf, 1.0))
  assert 1.999 < predicted.updates_per_sec < 2
  predicted = traffic.predict(placement, EACH_ON_ITS_OWN, traffic.Speeds(1000, math.inf, 1.0))
  # 300 bytes go out of the host and 180 come in for two updates; of one alone 0.15 s and 0.09 s.
  spent = 1 + 0.15 * (1 + 0.15 / 1.24) + 0.09 * (1 + 0.09 / 1.24)
  assert predicted.updates_per_sec == pytest.approx(2 / spent)
  assert (predicted.weights_secs, predicted.gradients_secs) == (0.1, 0.1)


def test_actors_of_learners_on_their_own_limit_them_all_together():
  placement = Placement(('h',), ('h', 'h'), (Actor('h', 8, 1),) * 3)
  predicted = traffic.predict(placement, EACH_ON_ITS_OWN, traffic.Speeds(math.inf, 30, 0.5))
  assert (predicted.frames_per_sec, predicted.bottleneck) == (90, traffic.ACTORS)


def test_weights_change_with_every_learner_that_is_on_its_own():
  placement = Placement(('p',), ('l', 'm'), (Actor('a', 2, 1), Actor('b', 2, 1)))
  # 4 rounds of 2 environments a batch: weights are new once an update, of either learner.
  assert traffic.bytes_per_update(placement, RUN)['acting', 'a', 'in'] == 100
  assert traffic.bytes_per_update(placement, EACH_ON_ITS_OWN)['acting', 'a', 'in'] == 200


def test_a_link_that_is_full_of_unrolls_is_the_limit():
  placement = Placement(('l',), ('l',), (Actor('a', 8, 1), Actor('b', 8, 1)))
  predicted = traffic.predict(
    placement, RUN._replace(unroll_bytes=50), traffic.Speeds(100, math.inf, 0.1)
  )
  assert predicted.updates_per_sec == pytest.approx(100 / 400)
  assert (predicted.bottleneck, predicted.host) == (traffic.LINK, 'l')


def test_actors_limit_where_they_make_less_than_would_be_learned():
  # Learners would take 2 updates/s of 40 frames each; the second learner has one actor alone.
  placement = Placement(('h',), ('h', 'h'), (Actor('h', 8, 1),) * 3)
  predicted = traffic.predict(placement, RUN, traffic.Speeds(math.inf, 30, 0.5))
  assert (predicted.updates_per_sec, predicted.bottleneck) == (30 / 40, traffic.ACTORS)
  assert predicted.frames_per_sec == 60
  enough, then = traffic.enough_actors(placement, RUN, traffic.Speeds(math.inf, 30, 0.5))
  assert (enough, then.bottleneck, then.updates_per_sec) == (3, traffic.COMPUTING, 2)


def test_the_number_of_learners_at_which_a_link_becomes_the_limit():
  # L learners, all but the first elsewhere: the parameter server sends (L - 1) x 100 bytes to them,
  # L x 100 to actors and gets (L - 1) x 100, at 1000 a second: more than 1 s of computing from
  # L = 5 on.
  placement = Placement(('l',), ('l',), (Actor('a', 8, 1),))
  speeds = traffic.Speeds(1000, math.inf, 1.0)
  assert traffic.predict(placement, RUN, speeds).bottleneck == traffic.COMPUTING
  learners, then = traffic.next_bottleneck(placement, RUN, speeds)
  assert (learners, then.bottleneck, then.host) == (5, traffic.LINK, 'l')
  assert traffic.next_bottleneck(placement, RUN, speeds._replace(link_bytes_per_sec=1e9)) is None


def test_a_cluster_is_resized_with_hosts_of_their_own():
  placement = Placement(('p',), ('l',), (Actor('a', 8, 2), Actor('b', 4, 1)))
  assert traffic.resized(placement, 1, 1).actor == placement.actor[:1]
  grown = traffic.resized(placement, 3, 2)
  hosts = [*grown.learner, *(actor.host for actor in grown.actor)]
  assert len(hosts) == len(set(hosts)) == 9
  assert grown.actor[:2] == placement.actor and grown.actor[-1][1:] == (4, 1)


CSV = 'job,ip,tf_port\nps,10.0.0.1,1\nlearner,10.0.0.1,2\nlearner,10.0.0.2,2\nactor,10.0.0.3,1\n'


def test_hosts_are_those_of_the_csv():
  cluster = cluster_csv.parse_cluster(CSV + 'actor,10.0.0.2,3\n', 'cluster.csv')
  assert traffic.placement_of(cluster, [(8, 1), (4, 2)]) == Placement(
    ('10.0.0.1',), ('10.0.0.1', '10.0.0.2'), (Actor('10.0.0.3', 8, 1), Actor('10.0.0.2', 4, 2))
  )


def test_a_learner_without_an_actor_is_refused():
  with pytest.raises(UserError, match='2 learners, but only 1 actors'):
    traffic.placement_of(cluster_csv.parse_cluster(CSV, 'cluster.csv'), [(8, 1)])
