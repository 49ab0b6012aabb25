"""Settings of the web shell: pages, static files, sign-in, mail, and the headers that keep a page safe.

GATEHOUSE_TLS          1 when people reach the portal by https: cookies are sent by https alone
GATEHOUSE_TRUST_PROXY  1 when a reverse proxy that sets X-Forwarded-Proto and -For stands in front
TRUSTED_ORIGINS        origins that may post forms and open sockets, comma separated (https://portal.example.org)
CACHE_URL              redis://... when several machines serve pages; default: files in the state folder
EMAIL_HOST             SMTP server, with EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD, EMAIL_USE_TLS;
                       without it mails are written to the folder mail/ in the state folder
DEFAULT_FROM_EMAIL     sender of mails
PUBLIC_URL             where people reach the portal, for links in mails (https://portal.example.org);
                       default: this machine alone, at PORT
"""

import os
from typing import Any

from portal.settings.paths import BASE_DIR, STATE_DIR, static_root


def listed(name: str, default: str = "") -> list[str]:
    """Return the parts of a comma-separated variable, stripped; those of `default` when it is empty."""
    return [part.strip() for part in (os.environ.get(name) or default).split(",") if part.strip()]


TLS = os.environ.get("GATEHOUSE_TLS") == "1"
TRUST_PROXY = os.environ.get("GATEHOUSE_TRUST_PROXY") == "1"

WEB_APPS = [
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "django.forms",
    "allauth",
    "allauth.account",
]
WEB_AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]

ROOT_URLCONF = "portal.urls"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "portal.core.web.middleware.page_headers",
    "portal.core.web.storage.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "portal.accounts.backends.read_once",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.core.web.middleware.ask_htmx_to_sign_in",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.core.web.middleware.reader_zone",
    "portal.core.web.middleware.DeniedMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.navigation.shell",
            ],
            "libraries": {"gatehouse": "portal.core.templatetags.gatehouse"},
            "builtins": [
                "django.templatetags.i18n",
                "django.templatetags.static",
                "portal.core.templatetags.gatehouse",
            ],
        },
    }
]
FORM_RENDERER = "portal.core.web.forms.Renderer"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# Static files: own ones, and vendors' ones that scripts/lib/assets.sh copied.
STATIC_URL = "/static/"
STATIC_ROOT = static_root(BASE_DIR, STATE_DIR)
STATIC_ROOT.mkdir(exist_ok=True)
STATICFILES_DIRS = [BASE_DIR / "static", *(path for path in [STATE_DIR / "assets"] if path.exists())]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "portal.core.web.storage.StaticStorage"},
}
# Where nothing was collected (tests), files are served from where they lie.
WHITENOISE_USE_FINDERS = not (STATIC_ROOT / "staticfiles.json").exists()

# Sign-in
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "portal.accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"login": "portal.accounts.forms.SignInForm"}
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
# Who invites a person vouches for the address; a portal without a mail server must still let people in.
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Gatehouse] "
ACCOUNT_LOGOUT_REDIRECT_URL = LOGIN_URL
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if TLS else "http"
# Sign-ins a minute from one address; wrong passwords from one address, and for one account.
ACCOUNT_RATE_LIMITS = {"login": "30/m/ip", "login_failed": "10/m/ip,5/300s/key"}
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if TRUST_PROXY else 0
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "CommonPasswordValidator", "NumericPasswordValidator")
] + [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    }
]
# Files, not memory: wrong passwords are counted across processes, and signing in needs no Redis.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "portal.core.web.cache.FileCache",
        "LOCATION": STATE_DIR / "cache",
        # Each write lists the folder (some milliseconds for so many); a failed sign-in writes six times. When
        # all of it still counts, a twentieth goes and not a third.
        "OPTIONS": {"MAX_ENTRIES": 2000, "CULL_FREQUENCY": 20},
    }
}
if os.environ.get("CACHE_URL"):
    CACHES["default"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ["CACHE_URL"],
    }

# Mail
PUBLIC_URL = os.environ.get("PUBLIC_URL") or f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
if "://" not in PUBLIC_URL:
    PUBLIC_URL = f"{'https' if TLS else 'http'}://{PUBLIC_URL}"
PUBLIC_URL = PUBLIC_URL.rstrip("/")
EMAIL_SUBJECT_PREFIX = "[Gatehouse] "
DEFAULT_FROM_EMAIL = os.environ.get("DEFAULT_FROM_EMAIL", "Gatehouse <gatehouse@localhost>")
EMAIL_HOST = os.environ.get("EMAIL_HOST", "")
EMAIL_PORT = int(os.environ.get("EMAIL_PORT", "25"))
EMAIL_HOST_USER = os.environ.get("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = os.environ.get("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = os.environ.get("EMAIL_USE_TLS") == "1"
EMAIL_TIMEOUT = 10
EMAIL_FILE_PATH = STATE_DIR / "mail"
EMAIL_BACKEND = "django.core.mail.backends." + ("smtp" if EMAIL_HOST else "filebased") + ".EmailBackend"

# What a browser may do with a page; the content security policy is in portal.core.web.middleware.
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_TRUSTED_ORIGINS = listed("TRUSTED_ORIGINS")
CSRF_FAILURE_VIEW = "portal.core.web.errors.csrf_failure"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = TLS
SECURE_HSTS_SECONDS = 31_536_000 if TLS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUST_PROXY else None

# Words
USE_I18N = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]
# Django by itself writes an error of the server's own nowhere but in mails to ADMINS, when DEBUG is off.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR", "propagate": False}},
}
