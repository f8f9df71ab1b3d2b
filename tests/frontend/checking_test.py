"""The checks that compare hosts."""

from frontend import checking, cluster, hosts


def test_versions_that_differ_between_hosts():
  a, b = (
    hosts.SshHost(cluster.Host(name, 2222, '', '', '', ())) for name in ('10.0.0.1', '10.0.0.2')
  )
  results = {host: {'packages': (True, '')} for host in (a, b)}
  versions = {a: {'tensorflow': '2.21.0'}, b: {'tensorflow': '2.20.0'}}
  checking.compare_versions(results, versions)
  assert results[a]['packages'][0]
  assert results[b]['packages'] == (
    False, 'tensorflow 2.20.0, but 2.21.0 on 10.0.0.1; install the same on all')  # fmt: skip
