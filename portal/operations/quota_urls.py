"""Addresses of quotas."""

from django.urls import path

from portal.operations import quota_views

app_name = "quotas"
urlpatterns = [
    path("", quota_views.overview, name="overview"),
    path("own/", quota_views.own, name="own"),
    path("defaults/<str:name>/", quota_views.default, name="default"),
    path("people/<int:pk>/", quota_views.person, name="person"),
    path("projects/<int:pk>/", quota_views.project, name="project"),
    path("projects/<int:pk>/each/", quota_views.each, name="each"),
    path("projects/<int:pk>/people/<str:name>/", quota_views.member, name="member"),
]
