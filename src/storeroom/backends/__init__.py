"""The storages, one a module, named as in Django: replace ``django.core.cache.backends`` by ``storeroom.backends``."""
