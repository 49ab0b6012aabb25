"""Addresses of machines and of asking for them."""

from django.urls import path, re_path

from vms import hostdevice_views, naming_page, power, saved_page, views
from vms import install_views as installs
from vms.adoption import views as adopted
from vms.catalogue import image_views as handed_in
from vms.catalogue import views as admin
from vms.changes import views as changes
from vms.changes.devices import views as devices
from vms.exports import views as exports

app_name = "vms"
catalogue_urls = [
    path("catalogue/admin/", admin.items, name="catalogue_admin"),
    path("catalogue/admin/items/add/", admin.item_add, name="item_add"),
    path("catalogue/admin/items/<int:pk>/", admin.item_edit, name="item_edit"),
    path("catalogue/admin/items/<int:pk>/offer/", admin.item_offer, name="item_offer"),
    path("catalogue/admin/items/<int:pk>/move/", admin.item_move, name="item_move"),
    path("catalogue/admin/items/<int:pk>/delete/", admin.item_delete, name="item_delete"),
    path("catalogue/admin/sizes/", admin.sizes, name="sizes"),
    path("catalogue/admin/sizes/<int:pk>/", admin.size_edit, name="size_edit"),
    path("catalogue/admin/sizes/<int:pk>/delete/", admin.size_delete, name="size_delete"),
    path("catalogue/admin/images/", admin.images, name="images"),
    path("catalogue/admin/images/add/", handed_in.image_add, name="image_add"),
    path("catalogue/admin/images/fetch/", handed_in.image_fetch, name="image_fetch"),
    path("catalogue/admin/images/<int:pk>/", admin.image, name="image"),
    path("catalogue/admin/images/<int:pk>/use/", admin.image_use, name="image_use"),
    path("catalogue/admin/images/<int:pk>/describe/", handed_in.image_describe, name="image_describe"),
    path("catalogue/admin/images/<int:pk>/delete/", handed_in.image_delete, name="image_delete"),
    path("catalogue/admin/uploads/<int:pk>/", handed_in.upload, name="upload"),
    path("catalogue/admin/uploads/<int:pk>/start/", handed_in.upload_start, name="upload_start"),
    path("catalogue/admin/uploads/<int:pk>/from/<int:offset>/", handed_in.upload_chunk, name="upload_chunk"),
    path("catalogue/admin/uploads/<int:pk>/retry/", handed_in.upload_retry, name="upload_retry"),
    path("catalogue/admin/uploads/<int:pk>/choose/", handed_in.upload_choose, name="upload_choose"),
    path("catalogue/admin/uploads/<int:pk>/drop/", handed_in.upload_drop, name="upload_drop"),
    path("catalogue/admin/images/<int:pk>/deprecate/", admin.image_deprecate, name="image_deprecate"),
]
urlpatterns = [
    path("", views.machines, name="list"),
    path("catalogue/", views.catalogue, name="catalogue"),
    *catalogue_urls,
    path("catalogue/templates/", installs.template_list, name="templates"),
    path("catalogue/templates/add/", installs.template_add, name="template_add"),
    path("catalogue/templates/<int:pk>/", installs.template_edit, name="template_edit"),
    path("catalogue/templates/<int:pk>/delete/", installs.template_delete, name="template_delete"),
    path("catalogue/<int:pk>/", views.ask, name="ask"),
    path("catalogue/<int:pk>/what-if/", views.what_if, name="what_if"),
    path("catalogue/requests/<int:pk>/edit/", views.edit, name="edit"),
    path("catalogue/requests/<int:pk>/copy/", views.copy, name="copy"),
    path("many/", views.many, name="many"),
    path("found/", adopted.found_list, name="found"),
    path("found/<int:pk>/", adopted.adopt, name="adopt"),
    path("<int:pk>/", views.machine, name="detail"),
    path("<int:pk>/settings/", views.settings, name="settings"),
    path("<int:pk>/autostart/", views.autostart, name="autostart"),
    path("<int:pk>/name/", naming_page.naming_page, name="name"),
    path("<int:pk>/clone/", changes.clone, name="clone"),
    path("<int:pk>/template/", changes.template, name="template"),
    path("<int:pk>/size/", changes.size, name="size"),
    path("<int:pk>/disks/add/", changes.disk_add, name="disk_add"),
    path("<int:pk>/disks/attach/", changes.disk_attach, name="disk_attach"),
    path("<int:pk>/disks/<slug:target>/", changes.disk, name="disk"),
    path("<int:pk>/disks/<slug:target>/delete/", changes.disk_delete, name="disk_delete"),
    path("<int:pk>/disks/<slug:target>/detach/", changes.disk_detach, name="disk_detach"),
    path("<int:pk>/disks/<slug:target>/move/", changes.disk_move, name="disk_move"),
    path("<int:pk>/lease/", views.lease, name="lease"),
    path("leases/requests/<int:pk>/edit/", views.lease_edit, name="lease_edit"),
    path("leases/requests/<int:pk>/copy/", views.lease_copy, name="lease_copy"),
    path("<int:pk>/disks/<slug:target>/limits/", devices.limits, name="disk_limits"),
    path("<int:pk>/cards/", devices.cards, name="cards"),
    path("<int:pk>/cards/<str:mac>/", devices.card, name="card"),
    path("<int:pk>/cards/<str:mac>/link/", devices.card_link, name="card_link"),
    path("<int:pk>/cards/<str:mac>/network/", devices.card_network, name="card_network"),
    path("<int:pk>/cards/<str:mac>/remove/", devices.card_remove, name="card_remove"),
    path("<int:pk>/host-devices/", hostdevice_views.host_devices, name="host_devices"),
    path("<int:pk>/host-devices/give/", hostdevice_views.give, name="host_device_give"),
    path("<int:pk>/host-devices/take/", hostdevice_views.take, name="host_device_take"),
    path("<int:pk>/media/", devices.media, name="media"),
    path("<int:pk>/media/add/", devices.drive_add, name="drive_add"),
    path("<int:pk>/media/<slug:target>/", devices.media_change, name="media_change"),
    path("<int:pk>/media/<slug:target>/remove/", devices.drive_remove, name="drive_remove"),
    path("<int:pk>/export/", exports.export, name="export"),
    path("exports/", exports.exports, name="exports"),
    path("exports/<int:pk>/take/", exports.take, name="export_take"),
    path("exports/<int:pk>/delete/", exports.delete, name="export_delete"),
    path("<int:pk>/discard/", saved_page.discard, name="discard"),
    path("<int:pk>/delete/", views.delete, name="delete"),
    path("<int:pk>/restore/", views.restore, name="restore"),
    path("<int:pk>/look-again/", adopted.look_again, name="look_again"),
    path("<int:pk>/release/", adopted.release, name="release"),
    re_path(rf"^(?P<pk>\d+)/(?P<verb>{'|'.join(power.VERBS)})/$", views.act, name="act"),
]
