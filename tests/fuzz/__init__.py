"""What strangers send, random and damaged, to every decoder and to whole servers.

An ordinary run of the tests has some examples of each; ``nox -s fuzz`` goes on until its time is up (see `sharing`).
"""
