"""Socket.IO on Engine.IO sessions.

Rooms: ``server`` and ``config`` (options, life), ``namespace`` (its sockets, its middlewares) and ``parent``
(namespaces made on demand), ``connection`` (one session and its sockets) and ``throttled`` (with a ``rate`` limit),
``socket`` (one client in one namespace) and ``remote`` (one on another server), ``handshake`` (how it came in),
``data`` (what the application keeps with it), ``events`` (its handlers, in order) and ``queued`` (what waits for
them), ``handlers`` (those registered once), ``validation`` (of their arguments), ``catch_all`` (listeners of every
event), ``operator`` (whom a broadcast reaches), ``acks`` (answers), ``recovery`` (of a lost connection), ``parsers``
(checked), ``client_files`` (for browsers), ``statistics``.
"""
