"""Addresses of requests and operations."""

from django.urls import path

from portal.operations import views

app_name = "operations"
urlpatterns = [
    path("", views.operations, name="list"),
    path("inbox/", views.waiting, name="inbox"),
    path("inbox/<int:pk>/", views.card, name="card"),
    path("<int:pk>/", views.operation, name="detail"),
    path("<int:pk>/comment/", views.comment, name="comment"),
    path("<int:pk>/decide/", views.decide, name="decide"),
    path("<int:pk>/cancel/", views.cancel, name="cancel"),
    path("<int:pk>/withdraw/", views.withdraw, name="withdraw"),
]
