"""roles.checkpointer: when the chief saves, by a real session and a real folder."""

import types

import tensorflow as tf

from roles.checkpointer import Checkpointer
from roles.observers import Update
from runtime.checkpoints import Checkpoints


def test_a_restarted_chief_saves_what_no_checkpoint_holds_with_its_first_update(tmp_path):
  seen = []
  records = types.SimpleNamespace(mean_return_100=lambda: None)
  heartbeat = types.SimpleNamespace(enter=lambda loop, phase: None)
  with tf.Graph().as_default():
    for name in ('environment_frames', 'global_step'):
      tf.compat.v1.get_variable(name, initializer=tf.constant(0, tf.int64))
    checkpointer = Checkpointer(
      Checkpoints(str(tmp_path), '', whole=None),
      600.0,
      records,
      heartbeat,
      lambda: False,
      seen.append,
    )
    with tf.compat.v1.Session() as session:
      session.run(tf.compat.v1.global_variables_initializer())

      def saved_after(updates):
        values = {'updates': updates, 'environment_frames': updates}
        checkpointer.on_update(Update(session, values, 0.0, 0.0))
        return len(list(tmp_path.glob('*.index')))

      assert saved_after(1) == 0  # A new run: the interval has just begun.
      checkpointer.save_soon()
      assert saved_after(2) == 1
      checkpointer.save_soon()  # The same process connects again; it has saved a moment ago.
      assert saved_after(3) == 1
      assert [saved.updates for saved in seen] == [2]
