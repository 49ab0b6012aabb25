"""Static files under names that hold their content's hash, so that browsers may keep them for ever."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticStorage(CompressedManifestStaticFilesStorage):
    """Hashed and compressed files once collected; plain names where nothing was collected (tests)."""

    # noVNC is made of modules that import each other by relative name: rewrite those names too.
    support_js_module_import_aggregation = True
    # Each pass settles one more level of modules that import modules.
    max_post_process_passes = 20

    def stored_name(self, name: str) -> str:
        """Return the hashed name of `name`, or `name` itself when there is no manifest at all."""
        return super().stored_name(name) if self.hashed_files else name


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise, whose files are answered whole: under ASGI Django would read its stream at once anyway."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        """Return the file, or what conditional and range requests ask of it."""
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file as opened:
                content = opened.read()
        response = HttpResponse(content, status=int(found.status))
        # No type of Django's own where WhiteNoise names none (304).
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response
