"""The Django app: ``"storeroom.integrations.django"`` in INSTALLED_APPS.

The cache classes need no app. It brings pages about the caches to Django's admin, and Django's command
``createcachetable`` to know Storeroom's database cache, too.
"""
