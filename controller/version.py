"""This release's version, as the installed package says."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("stead")
