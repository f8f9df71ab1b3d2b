"""`--mode=sizes` says what the graph of a run really holds and sends."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import config
from acting import actor
from conftest import ROOT
from learner_fixtures import small_options
from roles import settings as settings_lib
from roles import sizes, wiring
from runtime.cluster import LOCAL

pytestmark = pytest.mark.slow

ENVS = 2
LEVELS = {
  'Atari': ('PongNoFrameskip-v4', 'SimpleConvNetAgent'),
  'images, LSTM': ('impala/Catch-v0', 'SimpleConvNetLSTMAgent'),
  'vectors': ('impala/Memory-v0', 'MLPAgent'),
}


def settings_of(level_name, agent_name, **changes):
  flags = config.RunFlags(level_name=level_name, agent_name=agent_name, unroll_length=5, **changes)
  return settings_lib.own_settings(flags)


def played_unroll(settings):
  """(weights, the arrays of one unroll that an actor sent), of a real graph and environment."""
  with tf.Graph().as_default():
    graph = wiring.Graph(settings, LOCAL)
    queue, specs = graph.unroll_queue(0)
    options = small_options(num_actors=1, envs_per_actor=ENVS)
    batches = wiring.create_environments(settings, LOCAL, options, 0)
    side = wiring.ActorSide(graph, batches, options.dynamic_batching)
    sender, first, rounds = actor.EnqueueOp(queue, specs), queue.dequeue(), []
    v1 = tf.compat.v1
    try:
      with v1.Session() as session:
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        send = sender.on(session)
        side.loops[0].run(session, send, lambda: rounds, lambda phase: None, rounds.append)
        return graph.agent.trainable_variables, session.run(first)
    finally:
      side.close()


@pytest.mark.parametrize('level_name, agent_name', LEVELS.values(), ids=LEVELS)
def test_sizes_are_those_of_the_graph_and_of_a_played_unroll(level_name, agent_name):
  settings = settings_of(level_name, agent_name)
  weights, unroll = played_unroll(settings)
  told = sizes.sizes(settings, ENVS, 1)
  assert told['weight_bytes'] == sum(np.zeros(v.shape, np.float32).nbytes for v in weights) > 0
  assert told['unroll_bytes'] == sum(np.asarray(array).nbytes for array in unroll)


@pytest.mark.parametrize('optimizer', sizes.SLOTS)
def test_slots_are_those_of_the_optimizer(optimizer):
  settings = settings_of('impala/Catch-v0', 'SimpleConvNetAgent', optimizer=optimizer)
  told = sizes.sizes(settings, ENVS, 1)
  with tf.Graph().as_default():
    graph = wiring.Graph(settings, LOCAL)
    side = wiring.LearnerSide(graph, graph.unroll_queue(0), ['/cpu:0'])
    saved = side.whole_weights().variables.values()
  held = sum(np.zeros(v.shape, v.dtype.as_numpy_dtype).nbytes for v in saved)
  assert told['weight_bytes'] + told['slot_bytes'] == held


def test_the_command_prints_one_line_and_writes_nothing(tmp_path):
  # Where it is set, as in a process that has TensorFlow, all is shown that its libraries say.
  environment = {k: v for k, v in os.environ.items() if k != 'TF_CPP_MIN_LOG_LEVEL'}
  result = subprocess.run(
      [sys.executable, os.path.join(ROOT, 'experiment.py'), '--mode=sizes',
       '--level_name=impala/Catch-v0', '--unroll_length=9', '--batch_size=3', '--optimizer=adam',
       '--envs_per_actor=5', '--num_actors=4', '--sample_reuse=2', '--sync_learners=false'],
      cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=240,
  )  # fmt: skip
  assert (result.stdout.count('\n'), result.stderr, os.listdir(tmp_path)) == (1, '', [])
  told = json.loads(result.stdout)
  assert told.pop('slot_bytes') == 2 * told.pop('weight_bytes')
  assert told.pop('unroll_bytes') > 10 * 50  # Ten observations of 10 x 5 bytes.
  assert told == dict(
    unroll_length=9, num_action_repeats=1, batch_size=3, sample_reuse=2, sync_learners=False,
    envs_per_actor=5, num_actors=4,
  )  # fmt: skip
