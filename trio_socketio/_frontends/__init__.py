"""How bytes arrive: our own listener on h11, with trio-websocket behind the fast lane; and ASGI.

A front end turns bytes into requests and WebSockets, as `trio_socketio._engine.contract` describes them, and knows
nothing else of what it serves.
"""
