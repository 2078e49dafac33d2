"""The site: docs/ as pages for a browser, with a tree, a search and a reference of the API.

``python -m tests.docs_site`` (``make docs``) builds it. The pages of docs/ stay plain Markdown, as a forge shows them;
all that the site needs beyond is made here, and Sphinx builds what results. docs/index.md is the only list of pages:
the site's tree is read from it (`navigation`).
"""
