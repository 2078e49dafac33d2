"""The settings of Sphinx, which reads them by these names."""

from importlib import metadata

project = "Storeroom"
release = version = metadata.version("storeroom")
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_inline", "tasklist"]
myst_heading_anchors = 6  # as a forge makes them, to which the pages link

# Docstrings.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
add_module_names = False
python_maximum_signature_line_length = 88
python_display_short_literal_types = True

# The look: Furo's own fonts are those of the reader's system.
html_theme = "furo"
html_title = "Storeroom"
html_static_path = ["static"]
html_css_files = ["storeroom.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"  # comments have results: they are to be read
pygments_dark_style = "a11y-high-contrast-dark"
