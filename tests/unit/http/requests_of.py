"""Requests and headers for the tests of the rules, written shortly."""

from storeroom.http import Headers, Request

NOW = 1_800_000_000.0
DATE = "Fri, 15 Jan 2027 08:00:00 GMT"


def request(
    *lines: str, method: str = "GET", url: str = "/page", query: str = "", host: str = "example.com"
) -> Request:
    headers = {
        name.strip().lower().encode(): value.strip().encode() for name, _, value in (x.partition(":") for x in lines)
    }
    return Request(method, "https", host.encode(), url, query, headers)


def headers(*lines: str) -> Headers:
    return [
        (name.strip().lower().encode(), value.strip().encode("latin-1"))
        for name, _, value in (x.partition(":") for x in lines)
    ]
