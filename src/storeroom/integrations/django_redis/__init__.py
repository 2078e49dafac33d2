"""django-redis's API and bytes on Storeroom's Redis cache: put `RedisCache` into BACKEND, and nothing else changes.

``docs/moving-from-django-redis.md`` has the table of what is the same, and of the little that is not.
"""

from storeroom.integrations.django_redis.cache import RedisCache

__all__ = ["RedisCache"]
