"""What every part of a role knows of its task: its place, its options, its server, its end."""

from runtime import links, placement, sessions
from runtime.heartbeat import Heartbeat


class Task:
  """A task that trains: its place in the run, and how it hears of the end.

  Args:
    cluster: `runtime.cluster.Cluster`.
    options: `roles.settings.Options`.
    interrupts: `runtime.process.Interrupts`.

  Attributes:
    heartbeat: `runtime.heartbeat.Heartbeat`.
    config: tf.compat.v1.ConfigProto of its sessions.
    target: of its sessions: its server's, or '' in local training.
  """

  def __init__(self, cluster, options, interrupts):
    self.cluster, self.options, self.interrupts = cluster, options, interrupts
    self.heartbeat = Heartbeat(cluster, options.state_dir, options.watchdog_secs)
    self.config = placement.session_config(cluster, options.threads)
    self._server = None if cluster.is_local else sessions.start_server(cluster, self.config)
    self.target = self._server.target if self._server else ''
    if self._server:
      links.watch(cluster, self.target, self.heartbeat.silence)

  def end_if_done(self, environment_frames, total_environment_frames):
    """Asks for the end of the run if so many frames are all; whether they are."""
    if environment_frames < total_environment_frames:
      return False
    self.interrupts.set(f'all {total_environment_frames} frames are done')
    return True
