"""Addresses of requests and operations."""

from django.urls import path

from portal.operations import views
from portal.operations.policies import views as policies

app_name = "operations"
urlpatterns = [
    path("", views.operations, name="list"),
    path("inbox/", views.waiting, name="inbox"),
    path("inbox/<int:pk>/", views.card, name="card"),
    path("together/<uuid:batch>/", views.together, name="together"),
    path("policies/", policies.policies, name="policies"),
    path("policies/add/", policies.policy_add, name="policy_add"),
    path("policies/<int:pk>/", policies.policy, name="policy"),
    path("policies/<int:pk>/move/", policies.policy_move, name="policy_move"),
    path("policies/<int:pk>/switch/", policies.policy_switch, name="policy_switch"),
    path("policies/<int:pk>/delete/", policies.policy_delete, name="policy_delete"),
    path("delegations/", policies.deputies, name="deputies"),
    path("delegations/<int:pk>/end/", policies.deputy_end, name="deputy_end"),
    path("<int:pk>/", views.operation, name="detail"),
    path("<int:pk>/comment/", views.comment, name="comment"),
    path("<int:pk>/decide/", views.decide, name="decide"),
    path("<int:pk>/cancel/", views.cancel, name="cancel"),
    path("<int:pk>/withdraw/", views.withdraw, name="withdraw"),
]
