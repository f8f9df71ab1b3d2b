"""The checks that compare hosts."""

from frontend import cluster
from frontend.actions import check
from frontend.connection import hosts


def test_versions_that_differ_between_hosts():
  a, b = (
    hosts.SshHost(cluster.Host(name, 2222, '', '', '', ())) for name in ('10.0.0.1', '10.0.0.2')
  )
  results = {host: {'packages': (True, '')} for host in (a, b)}
  versions = {a: {'tensorflow': '2.21.0'}, b: {'tensorflow': '2.20.0'}}
  check.compare_versions(results, versions)
  assert results[a]['packages'][0]
  assert results[b]['packages'] == (
    False, 'tensorflow 2.20.0, but 2.21.0 on 10.0.0.1; install the same on all')  # fmt: skip


def test_hosts_of_two_pythons_may_differ_by_what_the_lock_has_for_each():
  a, b = (
    hosts.SshHost(cluster.Host(name, 2222, '', '', '', ())) for name in ('10.0.0.1', '10.0.0.2')
  )
  results = {host: {'packages': (True, '')} for host in (a, b)}
  versions = {
    a: {'numpy': '2.2.6', 'ale-py': '0.12.1', 'gym': None},
    b: {'numpy': '2.4.6', 'ale-py': '0.12.1', 'gym': '0.26.2'},
  }
  pinned = {'numpy': {'2.2.6', '2.4.6'}, 'ale-py': {'0.12.1'}, 'gym': {'0.26.2'}}
  check.compare_versions(results, versions, pinned)
  assert results[b]['packages'] == (True, '')
  versions[b]['ale-py'] = '0.12.2'
  check.compare_versions(results, versions, pinned)
  assert results[b]['packages'] == (
    False, 'ale-py 0.12.2, but 0.12.1 on 10.0.0.1; install the same on all')  # fmt: skip
