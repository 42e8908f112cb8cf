"""Keeps AI agent sessions running on machines as TOML specs in git say."""

__version__ = "0.1.0"
