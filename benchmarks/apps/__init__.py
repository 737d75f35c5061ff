"""One little application, for each server that is measured: a room with everybody in it, an echo, an answer."""
