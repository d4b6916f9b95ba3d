"""Real servers on loopback, from pip-installed binaries, as children of the tests: no root, no Docker, no downloads.

``PostgresServer``, ``ValkeyServer`` and ``S3Server`` share the verbs of :class:`~tests.support.servers.process.Server`:
start, ``kill`` (SIGKILL), ``freeze`` and ``thaw`` (SIGSTOP, SIGCONT), ``restart`` on the same port and data, ``stop``.
``FaultProxy`` stands between a client and a server and breaks the connection in every way a network can.
"""
