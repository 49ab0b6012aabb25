"""Addresses of sign-in (allauth's views) and of the accounts pages."""

from allauth.account import views as allauth
from django.urls import include, path, re_path

from portal.accounts import notice_views, own, views

pages = [
    path("people/", views.people, name="people"),
    path("people/invite/", views.invite, name="invite"),
    path("people/<int:pk>/", views.person, name="person"),
    path("people/<int:pk>/active/", views.person_active, name="person_active"),
    path("people/<int:pk>/roles/", views.person_grant, name="person_grant"),
    path("roles/<int:pk>/revoke/", views.role_revoke, name="role_revoke"),
    path("invitations/<int:pk>/revoke/", views.invitation_revoke, name="invitation_revoke"),
    path("projects/", views.projects, name="projects"),
    path("projects/<int:pk>/", views.project, name="project"),
    path("projects/<int:pk>/name/", views.project_rename, name="project_rename"),
    path("projects/<int:pk>/roles/", views.project_grant, name="project_grant"),
    path("projects/<int:pk>/invitations/", views.project_invite, name="project_invite"),
    path("profile/", own.profile, name="profile"),
    path("profile/keys/", own.ssh_keys, name="ssh_keys"),
    path("profile/keys/<int:pk>/remove/", own.ssh_key_remove, name="ssh_key_remove"),
    path("theme/", own.theme, name="theme"),
    path("notices/", notice_views.notice_list, name="notices"),
    path("notices/read/", notice_views.read_all, name="notices_read"),
    path("notices/mails/", notice_views.mails, name="notice_mails"),
    path("notices/<int:pk>/open/", notice_views.follow, name="notice_open"),
    path("invitation/<str:token>/", own.accept, name="accept"),
]
# Of allauth's pages only those that this portal uses: mail addresses are changed in the profile.
urlpatterns = [
    path("login/", allauth.login, name="account_login"),
    path("logout/", allauth.logout, name="account_logout"),
    path("inactive/", allauth.account_inactive, name="account_inactive"),
    path("signup/", allauth.signup, name="account_signup"),
    path("reauthenticate/", allauth.reauthenticate, name="account_reauthenticate"),
    path("password/change/", allauth.password_change, name="account_change_password"),
    path("password/set/", allauth.password_set, name="account_set_password"),
    path("password/reset/", allauth.password_reset, name="account_reset_password"),
    path("password/reset/done/", allauth.password_reset_done, name="account_reset_password_done"),
    re_path(
        r"^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        allauth.password_reset_from_key,
        name="account_reset_password_from_key",
    ),
    path(
        "password/reset/key/done/",
        allauth.password_reset_from_key_done,
        name="account_reset_password_from_key_done",
    ),
    path("", include((pages, "accounts"))),
]
