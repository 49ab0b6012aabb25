"""Addresses of the hosts pages."""

from django.urls import path

from portal.hosts import views

app_name = "hosts"
urlpatterns = [
    path("", views.host_list, name="list"),
    path("add/", views.add, name="add"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/join/", views.join, name="join"),
    path("<int:pk>/greet/", views.greet, name="greet"),
    path("<int:pk>/confirm/", views.confirm, name="confirm"),
    path("<int:pk>/maintenance/", views.maintenance, name="maintenance"),
    path("<int:pk>/prove/", views.prove, name="prove"),
    path("<int:pk>/jump/", views.jump, name="jump"),
    path("<int:pk>/remove/", views.remove, name="remove"),
    path("<int:pk>/give-up/", views.give_up, name="give-up"),
]
