"""The users' client of a Muster server. Small: version and `Client`; the only package that users import."""

__version__ = "0.1.0"
