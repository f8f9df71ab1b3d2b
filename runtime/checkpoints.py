"""Checkpoints: the weights, optimiser slots and counters of a run on the disk of its chief."""

import os


class Checkpoints:
  """Saves and restores the global variables of the graph, through this task, onto its own disk.

  Unsharded: sharded savers let every parameter server write to a disk that nobody else can read.

  Args:
    logdir: folder.
    device: of the task that reads and writes.
  """

  PREFIX = 'model.ckpt'

  def __init__(self, logdir, device):
    import tensorflow as tf

    self._logdir = logdir
    with tf.device(device + '/cpu:0' if device else '/cpu:0'):
      self.saver = tf.compat.v1.train.Saver(
        tf.compat.v1.global_variables(), sharded=False, max_to_keep=3, save_relative_paths=True
      )
    state = tf.train.get_checkpoint_state(logdir)
    if state:  # An earlier process's checkpoints grow old too.
      self.saver.recover_last_checkpoints(state.all_model_checkpoint_paths)

  def save(self, session, updates):
    """Writes a checkpoint named by the number of updates."""
    path = os.path.join(self._logdir, self.PREFIX)
    with session.graph.as_default():  # Graphs in force are known to one thread only.
      self.saver.save(session, path, global_step=int(updates), write_meta_graph=False)

  @staticmethod
  def exist(logdir):
    """Whether a checkpoint was ever written to `logdir`; without TensorFlow."""
    return os.path.exists(os.path.join(logdir, 'checkpoint'))

  @staticmethod
  def latest(logdir):
    """The path of the newest whole checkpoint in `logdir`, or None."""
    import tensorflow as tf

    return tf.train.latest_checkpoint(logdir)

  @staticmethod
  def shapes(path):
    """{variable name: shape list} of a checkpoint."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_variable_to_shape_map()

  @staticmethod
  def value(path, name):
    """A variable's value in a checkpoint, a numpy array."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_tensor(name)
