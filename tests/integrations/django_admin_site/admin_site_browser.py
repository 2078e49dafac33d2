"""A real browser before the admin's pages: all that a user does there, by clicks."""

import os

from admin_site_tests import SCRIPT, url, user
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.cache import caches
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

#: Seconds that a page may take.
PATIENCE = 30.0

#: Tells, in a browser, whether a page is there, and is another one than that which click() has marked.
IS_NEXT = "return !window.isBefore && document.readyState === 'complete'"


class Browsing(StaticLiveServerTestCase):
    """A browser, and what a user does with it."""

    def setUp(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = os.environ["SITE_BROWSER"]
        for flag in os.environ["SITE_BROWSER_FLAGS"].split():
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(os.environ["SITE_DRIVER"])
        self.browser = webdriver.Chrome(options, service)
        self.addCleanup(self.browser.quit)

    def open(self, address: str) -> None:
        self.browser.get(f"{self.live_server_url}{address}")

    def click(self, selector: str) -> None:
        """Click, and wait for the page that comes of it."""
        self.browser.execute_script("window.isBefore = true")
        self.browser.find_element(By.CSS_SELECTOR, selector).click()
        # Between two pages the driver refuses to answer, in more ways than one.
        waiting = WebDriverWait(self.browser, PATIENCE, ignored_exceptions=[WebDriverException])
        waiting.until(lambda browser: browser.execute_script(IS_NEXT))

    def write(self, selector: str, text: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    @property
    def text(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def log_in(self, name: str) -> None:
        self.write("#id_username", name)
        self.write("#id_password", "secret")
        self.click("[type=submit]")


class InABrowser(Browsing):
    """All pages, opened and clicked through."""

    def test_everything_by_clicks(self) -> None:
        """List, cache, family, search, entry, delete, invalidate and clear; nothing of it for others."""
        user("root", is_superuser=True)
        user("visitor", "view_cache", is_staff=False)
        pages = caches["pages"]
        pages.clear()
        pages.set("user:7", {"name": SCRIPT}, tags=["users"])
        pages.set("user:8", 8, tags=["users"])
        pages.set_many({"page:1": "html", "page:2": "html"})

        self.open(url("changelist"))
        assert "/admin/login/" in self.browser.current_url
        self.log_in("visitor")
        assert "for a staff account" in self.text
        self.browser.find_element(By.ID, "id_username").clear()
        self.log_in("root")
        assert self.browser.current_url.endswith(url("changelist"))
        self.click("a[href$='/pages/change/']")
        assert "Hit ratio" in self.text
        self.click("#storeroom-families a[href*='family=user']")
        assert "2 keys of the family user" in self.text
        self.write("#id_q", "user:7")
        self.click("#storeroom-search [type=submit]")
        assert "1 key of" in self.text
        self.click(".storeroom-keys a")
        assert self.browser.title.startswith("Entry of cache pages")
        assert SCRIPT in self.browser.find_element(By.ID, "storeroom-value").text
        assert "users, holds" in self.text
        self.click("#storeroom-delete [type=submit]")
        assert 'Deleted the entry "user:7".' in self.text
        assert pages.get("user:7") is None
        self.click("a[href$='/pages/change/']")
        self.write("#id_key", "user:8")
        self.click("#storeroom-open [type=submit]")
        self.click(".storeroom-inline [type=submit]")
        assert 'Invalidated the tag "users".' in self.text
        assert "does not hold any more" in self.text
        assert pages.get("user:8") is None
        self.click("a[href$='/pages/change/']")
        self.write("#id_tag", "others")
        self.click("#storeroom-invalidate [type=submit]")
        assert 'Invalidated the tag "others".' in self.text
        self.click(".storeroom-clear")
        assert pages.get("page:1") == "html"
        self.click("#storeroom-clear [type=submit]")
        assert "Cleared the cache." in self.text
        assert pages.get("page:1") is None
        self.click(".historylink")
        assert self.text.count("Invalidated the tag") == 2
        assert [each for each in self.browser.get_log("browser") if "favicon" not in each["message"]] == []
