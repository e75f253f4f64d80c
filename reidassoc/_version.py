"""The version of the package, where modules below its root can read it."""

__version__ = "0.1.0"
