"""The Django app: ``"storeroom.integrations.django"`` in INSTALLED_APPS.

The cache classes need no app. It brings Django's command ``createcachetable`` to know Storeroom's
database cache, too.
"""
