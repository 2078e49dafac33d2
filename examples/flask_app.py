"""Flask: pages by endpoint, parts of templates, options in the configuration."""

import os
import time

from flask import Flask, render_template_string

from storeroom import cache
from storeroom.integrations.flask import PageCache
from storeroom.integrations.jinja2 import CacheExtension
from storeroom.pages import page

app = Flask(__name__)
app.config["STOREROOM_PAGES_CACHE_STATUS"] = "Storeroom"
app.jinja_env.add_extension(CacheExtension)
pages = PageCache(app)

TEMPLATE = """
{% cache "menu", "1h", tags=["menu"] %}<nav>menu of {{ worker }}</nav>{% endcache %}
<p>{{ item }} for {{ price }}, by {{ worker }}</p>
"""


@app.get("/items/<int:item_id>")
@page(timeout="5m", tags=lambda request: ["items"])
def item(item_id: int) -> str:
    """Show an item. Among all workers this runs once in five minutes for each."""
    price = cache.get(f"price:{item_id}", 9.99)
    return render_template_string(TEMPLATE, item=item_id, price=price, worker=os.getpid())


@app.post("/items/<int:item_id>/<price>")
def change(item_id: int, price: str) -> str:
    """Set a price. The item's page is absent at once, for all workers."""
    cache.set(f"price:{item_id}", price, timeout=None)
    pages.invalidate(view="item", item_id=item_id)
    return price


@app.get("/worker")
def worker() -> str:
    """Tell the worker that answers: without a timeout nothing is stored."""
    time.sleep(0.02)
    return str(os.getpid())
