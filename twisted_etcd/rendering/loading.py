"""Templates read from their files, by whatever is installed to read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.rendering.template import Template

#: What the package needs to be installed with for its templates.
EXTRA = "twisted-etcd[render]"


def load_template(path: Path, environ: Mapping[str, str]) -> Template:
    """
    Read a template from a file.

    :param environ: the environment that it may look into.
    :raises InvalidSettings: where the file cannot be read, is no template, or Jinja2 is not installed.
    """
    try:
        from twisted_etcd.rendering.jinja import JinjaTemplate  # noqa: PLC0415 - Jinja2 is an extra
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        msg = f"{path}: templates need Jinja2, which is not installed: pip install '{EXTRA}'"
        raise InvalidSettings(msg) from error
    return JinjaTemplate(path, environ)


def check_templates(paths: Iterable[Path], environ: Mapping[str, str]) -> None:
    """
    Read templates, to see whether they can be.

    :raises InvalidSettings: where one cannot, with a line for each.
    """
    wrong = [problem for path in paths if (problem := _problem(path, environ))]
    if wrong:
        raise InvalidSettings("\n".join(wrong))


def _problem(path: Path, environ: Mapping[str, str]) -> str:
    try:
        load_template(path, environ)
    except InvalidSettings as error:
        return str(error)
    return ""
