"""Pages: whole answers to requests, stored as bytes and answered before the framework (`storeroom.http` has the rules).

`looking` finds a page, `making` has one caller run the application, `generations` lets many pages go by one write. The
doors are in ``storeroom.integrations``: asgi and wsgi.
"""

from storeroom.pages.pages import Pages
from storeroom.pages.views import page

__all__ = ["Pages", "page"]
