"""Several levels in one run: which loop plays which, and what travels with an unroll."""

import functools

import numpy as np
import tensorflow as tf

import config
from acting import actor
from environment_player import counting
from learner_fixtures import small_options, small_settings
from roles import presets, wiring
from roles import settings as settings_lib
from runtime.cluster import LOCAL, Cluster

LEVELS = f'{counting("Image")},{counting("DeepImage")}'
ACTORS = tuple(f'localhost:{8000 + i}' for i in range(3))


def settings_of():
  return settings_lib.own_settings(
    config.RunFlags(level_name=LEVELS, unroll_length=6, batch_size=2)
  )


def test_loops_are_counted_over_the_cluster_and_a_level_stays_with_a_loop():
  settings = small_settings(level_name='A-v0,B-v0,C-v0')
  assert ''.join(settings.level_of_loop(i).name[0] for i in range(7)) == 'ABCABCA'


def test_an_actor_task_goes_on_where_the_one_before_it_ends():
  settings, options = settings_of(), small_options(num_actors=3, envs_per_actor=1)
  cluster = Cluster(('localhost:1',), ('localhost:2',), ACTORS, 'actor', 1)
  batches = wiring.create_environments(settings, cluster, options, 0)
  for batch in batches:
    batch.close()
  names = [batch.spec.level.name for batch in batches]
  assert names == [counting('DeepImage'), counting('Image'), counting('DeepImage')]


def test_an_unroll_and_its_games_say_which_level_they_are_of():
  settings = settings_of()
  with tf.Graph().as_default():
    graph = wiring.Graph(settings, LOCAL)
    queue, specs = graph.unroll_queue(0)
    options = small_options(num_actors=2, envs_per_actor=2)
    side = wiring.ActorSide(graph, wiring.create_environments(settings, LOCAL, options, 0), 'false')
    sender, taken = actor.EnqueueOp(queue, specs), queue.dequeue_many(2)
    try:
      with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(tf.compat.v1.local_variables_initializer())
        for level_id, loop in enumerate(side.loops):
          reports = []
          loop.run(
            session,
            sender.on(session),
            functools.partial(bool, reports),
            lambda _: None,
            reports.append,
          )
          unrolls = tf.nest.pack_sequence_as(specs, session.run(taken))
          np.testing.assert_array_equal(unrolls.level_id, [level_id] * 2)
          last_channel = unrolls.env_outputs.observation[..., 2]
          assert last_channel.any() == (level_id == 1)
          name = settings.level_names[level_id]
          assert reports[0]['level_name'] == name
          assert [game['level_name'] for game in reports[0]['episodes']] == [name] * 2
    finally:
      side.close()


def test_popart_of_several_levels_with_clipped_rewards_is_told_of():
  def told(given=(), **changes):
    settings = small_settings(**{'return_normalisation': 'popart', **changes})
    return presets.hint_about_clipping(settings, given)

  (sentence,) = told(level_name='A-v0,B-v0')
  assert '--reward_clipping=none' in sentence
  assert not told(level_name='A-v0')
  assert not told(level_name='A-v0,B-v0', return_normalisation='none')
  assert not told(level_name='A-v0,B-v0', reward_clipping='none')
  assert not told(['reward_clipping'], level_name='A-v0,B-v0')
