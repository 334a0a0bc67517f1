"""Puts what the library needs beside its code into the wheel: models, examples, notebooks, page.

Everything else about the project stands in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("data/models", "data/examples", "data/validity", "notebooks", "docs/index.html")


class BuildWithData(build_py):
    """Copies SHIPPED to sarlab/_shipped, where ``sarlab._engine.weights`` looks for it."""

    def run(self) -> None:
        """Build, then copy; an editable install reads the clone itself."""
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            source, target = Path(name), Path(self.build_lib, "sarlab", "_shipped", name)
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
                shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
            elif source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)


setup(cmdclass={"build_py": BuildWithData})
