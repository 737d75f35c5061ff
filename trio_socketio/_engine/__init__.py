"""Engine.IO on Trio: sessions over long-polling and WebSocket.

Rooms: ``contract`` (what a front end sees), ``config`` (the options), ``engine`` (requests in, sessions out),
``handshake`` (who may in), ``session`` (one client's life), ``sinks`` (where its messages go), ``outbox`` (what waits
for it), ``polling`` and ``websocket`` (the two ways there), ``flusher`` (one write per session and tick),
``compression``, ``cors``, ``cookies`` and ``proxies``.
"""
