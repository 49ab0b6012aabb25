"""Addresses of requests and operations."""

from django.urls import path

from portal.operations import views

app_name = "operations"
urlpatterns = [
    path("", views.operations, name="list"),
    path("inbox/", views.inbox, name="inbox"),
    path("<int:pk>/", views.operation, name="detail"),
    path("<int:pk>/decide/", views.decide, name="decide"),
    path("<int:pk>/cancel/", views.cancel, name="cancel"),
    path("<int:pk>/withdraw/", views.withdraw, name="withdraw"),
]
