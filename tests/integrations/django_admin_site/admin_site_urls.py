"""Two admin sites: the default one, and one of the project's own, under another name."""

from django.contrib import admin
from django.urls import path

from storeroom.integrations.django.admin import CacheAdmin
from storeroom.integrations.django.models import Cache

own = admin.AdminSite(name="own")
own.register(Cache, CacheAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("own/", own.urls)]
