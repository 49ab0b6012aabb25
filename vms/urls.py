"""Addresses of machines and of asking for them."""

from django.urls import path, re_path

from vms import power, views

app_name = "vms"
urlpatterns = [
    path("", views.machines, name="list"),
    path("catalogue/", views.catalogue, name="catalogue"),
    path("catalogue/<int:pk>/", views.ask, name="ask"),
    path("catalogue/<int:pk>/what-if/", views.what_if, name="what_if"),
    path("<int:pk>/", views.machine, name="detail"),
    path("<int:pk>/delete/", views.delete, name="delete"),
    path("<int:pk>/restore/", views.restore, name="restore"),
    re_path(rf"^(?P<pk>\d+)/(?P<verb>{'|'.join(power.VERBS)})/$", views.act, name="act"),
]
