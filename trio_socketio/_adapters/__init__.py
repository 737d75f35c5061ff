"""Who gets it: rooms, and the ways between servers.

An adapter sees ids, rooms, options and packets; never an engine, a socket or a frame. ``contract`` is what it
implements and what it may ask of its namespace; ``memory`` is the adapter of a single server.
"""
