"""How Sphinx builds the site: `make docs`.

This file knows the tools and the addresses. The pages are Markdown, which MyST reads. What is
generated from the code, such as the command line, and what is done to docstrings, is in `_ext/`.

The pure twin is documented: both have the same docstrings, and only Python's functions say which
arguments they take.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
os.environ["FASTWS_IMPL"] = "py"
sys.path.insert(0, str(HERE / "_ext"))

with (HERE.parent / "pyproject.toml").open("rb") as file:
    ADDRESSES = tomllib.load(file)["project"]["urls"]

import fastws  # noqa: E402 - the variable chooses the twin

project = "fastws"
author = "the fastws developers"
copyright = author  # noqa: A001 - Sphinx gives the name
version = release = fastws.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "docstrings",
    "generated",
    "repository",
]
# Every name that is written as one must exist; words in backticks need not be names.
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    # Annotations name what is not public, and type variables.
    ("py:class", r"_?(Policy|Params|Message|TextMessage|SupportsSend|SessionOptions|Send|[A-Z])"),
    ("py:class", r"CompressorParameters|ProxyHeader|fastws\.(aio|_py)\..*"),
]

# Markdown. Headings have GitHub's anchors, so that links work there as well.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
# `fastws connect ws://...` is no link.
myst_url_schemes = ["http", "https", "mailto"]

# Dashes only. Quotes are often code: an argument is "close", with these quotes.
smartquotes_action = "D"

# Docstrings. A word in backticks is a name if there is one, and code otherwise.
default_role = "py:obj"
autodoc_default_options = {
    "members": True,
    "inherited-members": "Exception,tuple,int,object",
    # asyncio calls these; Python's own exceptions have the last two.
    "exclude-members": "buffer_updated,connection_lost,connection_made,data_received,eof_received,"
    "get_buffer,pause_writing,resume_writing,add_note,with_traceback",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Examples in pages and docstrings that look like a session of the interpreter.
doctest_global_setup = "import fastws"

html_theme = "furo"
html_title = f"fastws {release}"
html_baseurl = ADDRESSES["Documentation"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": ADDRESSES["Source"],
    "source_branch": "main",
    "source_directory": "docs/",
}
pygments_style = "default"
pygments_dark_style = "github-dark"
