"""What tasks tell the first parameter server of their coming and going counts by name."""

from conftest import free_ports
from runtime import cluster as cluster_lib
from runtime import placement, sessions, shared_state


def test_who_leaves_and_comes_back_many_times_is_one_task():
  ps, learner, actor = (f'localhost:{port}' for port in free_ports(3))
  first = cluster_lib.Cluster((ps,), (learner,), (actor,), 'ps', 0)
  tasks = {job: first._replace(job=job) for job in cluster_lib.JOBS}
  servers = {
    job: sessions.start_server(task, placement.session_config(task)) for job, task in tasks.items()
  }
  with shared_state.shared_state_session(first, servers['ps'].target) as (session, state):

    def figures():
      return list(session.run([state.num_deregistered, state.num_spare_actors]))

    listed, spare = tasks['actor'], first._replace(job='actor', task=3)
    for _ in range(5):
      state.register(session, listed)
      state.register(session, spare)
      assert figures() == [0, 1]
      shared_state.deregister(listed, '')
      shared_state.deregister(spare, '')
      assert figures() == [1, 0]
    shared_state.deregister(tasks['learner'], servers['learner'].target)
    shared_state.deregister(listed, '')  # Once more, as after an answer that was lost.
    assert figures() == [2, 0]
