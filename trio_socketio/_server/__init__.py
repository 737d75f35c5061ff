"""Socket.IO on Engine.IO sessions.

Rooms: ``server`` (options, life), ``namespace`` (its sockets, its middlewares), ``connection`` (one session and its
sockets), ``socket`` (one client in one namespace), ``events`` (a socket's handlers, in order), ``operator`` (whom a
broadcast reaches), ``acks`` (waiting for answers), ``statistics``.
"""
