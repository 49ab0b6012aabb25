"""Which room answers which address."""

from django.urls import include, path

from portal.core.web import health
from portal.navigation import first_page

urlpatterns = [
    path("", first_page, name="first_page"),
    path("healthz/live", health.live, name="health_live"),
    path("healthz/ready", health.ready, name="health_ready"),
    path("accounts/", include("portal.accounts.urls")),
    path("audit/", include("portal.audit.urls")),
    path("hosts/", include("portal.hosts.urls")),
    path("networks/", include("networks.urls")),
    path("machines/", include("vms.console.urls")),
    path("machines/", include("vms.urls")),
    path("quotas/", include("portal.operations.quota_urls")),
    path("requests/", include("portal.operations.urls")),
]
