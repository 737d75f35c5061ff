"""Serving under hypercorn's Trio worker: `ASGIApp`, and `with_lifespan` for apps that have one mounted inside."""

from ._frontends.asgi import ASGIApp, with_lifespan

__all__ = ["ASGIApp", "with_lifespan"]
