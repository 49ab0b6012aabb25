"""Addresses of the hosts pages."""

from django.urls import path

from portal.hosts import views
from portal.hosts.storage import pool_views, upload_views
from portal.hosts.storage import views as storage

app_name = "hosts"
urlpatterns = [
    path("", views.host_list, name="list"),
    path("add/", views.add, name="add"),
    path("storage/", storage.pools, name="pools"),
    path("storage/<int:pk>/", storage.pool, name="pool"),
    path("storage/<int:pk>/refresh/", storage.refresh, name="pool-refresh"),
    path("storage/<int:pk>/start/", pool_views.start, name="pool-start"),
    path("storage/<int:pk>/stop/", pool_views.stop, name="pool-stop"),
    path("storage/<int:pk>/autostart/", pool_views.autostart, name="pool-autostart"),
    path("storage/<int:pk>/remove/", pool_views.remove, name="pool-remove"),
    path("storage/<int:pk>/give-back/", pool_views.give_back, name="pool-give-back"),
    path("storage/found/<int:pk>/", pool_views.take_over, name="pool-take-over"),
    path("storage/<int:pk>/volumes/", storage.add, name="volume-add"),
    path("storage/<int:pk>/uploads/", storage.begin_upload, name="upload-begin"),
    path("storage/uploads/<int:pk>/", upload_views.upload, name="upload"),
    path("storage/uploads/<int:pk>/start/", upload_views.start, name="upload-start"),
    path("storage/uploads/<int:pk>/from/<int:offset>/", upload_views.chunk, name="upload-chunk"),
    path("storage/uploads/<int:pk>/retry/", upload_views.retry, name="upload-retry"),
    path("storage/uploads/<int:pk>/choose/", upload_views.choose, name="upload-choose"),
    path("storage/uploads/<int:pk>/drop/", upload_views.drop, name="upload-drop"),
    path("storage/volumes/<int:pk>/", storage.volume, name="volume"),
    path("storage/volumes/<int:pk>/download/", storage.download, name="volume-download"),
    path("storage/volumes/<int:pk>/take/", storage.take, name="volume-take"),
    path("storage/volumes/<int:pk>/grow/", storage.grow, name="volume-grow"),
    path("storage/volumes/<int:pk>/clone/", storage.clone, name="volume-clone"),
    path("storage/volumes/<int:pk>/to-pool/", storage.to_pool, name="volume-to-pool"),
    path("storage/volumes/<int:pk>/delete/", storage.delete, name="volume-delete"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/pools/add/", pool_views.add, name="pool-add"),
    path("<int:pk>/join/", views.join, name="join"),
    path("<int:pk>/greet/", views.greet, name="greet"),
    path("<int:pk>/confirm/", views.confirm, name="confirm"),
    path("<int:pk>/maintenance/", views.maintenance, name="maintenance"),
    path("<int:pk>/prove/", views.prove, name="prove"),
    path("<int:pk>/jump/", views.jump, name="jump"),
    path("<int:pk>/remove/", views.remove, name="remove"),
    path("<int:pk>/give-up/", views.give_up, name="give-up"),
]
