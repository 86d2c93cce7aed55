"""The files that a template is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jinja2


class Texts:
    """The files of a folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: dict[str, str] = {}
        #: By the names of the files.
        self.by_file: dict[str, str] = {}

    def file(self, name: str) -> str:
        """Where the file of that name is."""
        return str(self._folder / name)

    def load(self, name: str) -> tuple[str, str, Callable[[], bool]]:
        """As Jinja2 wants it: text, file, and whether that is what is in the file still."""
        file = self.file(name)
        text = self.by_file.get(file)
        if text is None:
            path = self._path(name)
            if path is None:
                self._refuse(name, f"{name!r} is not below the folder of the template")
            try:
                text = path.read_text("utf-8")
            except OSError as error:
                self._refuse(name, f"{file}: cannot be read: {error.strerror}")
            except UnicodeDecodeError as error:
                self._refuse(name, f"{file}: is not text in UTF-8: byte {error.start + 1}")
            self.by_file[file] = text
        return text, file, lambda: True

    def why_not(self, name: str) -> str:
        """Why there is no file of that name, in words."""
        return self._problems.get(name, f"{self.file(name)}: is not there")

    def _path(self, name: str) -> Path | None:
        parts = name.split("/")
        if ".." in parts or "" in parts:
            return None
        return self._folder / name

    def _refuse(self, name: str, why: str) -> NoReturn:
        self._problems[name] = why
        raise jinja2.TemplateNotFound(name)
