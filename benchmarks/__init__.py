"""How fast it is, next to others: ``nox -s bench``, and where the time goes: ``nox -s profile``."""
