"""Real servers on loopback and clients that come and go in waves: ``nox -s soak``. After each wave nothing may be left.

`server` runs in a process of its own (two of them with ``--redis``), `visits` is what clients do, `judging` says what
has grown, and `__main__` puts them together.
"""
