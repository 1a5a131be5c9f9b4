"""Everything is in setup.cfg; pip and pybuild start a build only where this file is."""

from setuptools import setup

setup()
