"""A small Redis client for Trio: what buses need, and nothing more.

One connection for commands, pipelined; one for all subscriptions; one for each reader that blocks. Each is watched, and
the first two are opened again when they are lost. The client says when that happens (`Redis.on_health`), because what
was published meanwhile has not been received, and it repeats no command, because nobody knows whether the server has
executed it.
"""
