"""Addresses of the trail."""

from django.urls import path

from portal.audit import views

app_name = "audit"
urlpatterns = [
    path("", views.trail, name="trail"),
    path("verify/", views.verify, name="verify"),
    path("download/csv/", views.download_csv, name="download_csv"),
    path("download/json/", views.download_json, name="download_json"),
    path("download/pdf/", views.download_pdf, name="download_pdf"),
]
