// What every page does: the reader's time zone, the theme switch, copy buttons, spans that grow, doubled submits,
// failed requests.
(() => {
  "use strict";

  // The server shows times in this zone (portal.core.web.middleware).
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const secure = window.location.protocol === "https:" ? "; secure" : "";
  if (zone) document.cookie = `zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;

  const markTheme = () => {
    const chosen = document.documentElement.dataset.theme || "system";
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === chosen));
    }
  };

  const copy = async (button) => {
    const source = document.querySelector(button.dataset.copy);
    const text = "value" in source ? source.value : source.textContent;
    // The clipboard is there for https and localhost only; elsewhere the text is marked, ready for Ctrl-C.
    if (!navigator.clipboard) {
      source.focus();
      source.select?.();
      return;
    }
    await navigator.clipboard.writeText(text);
    const label = button.querySelector("span") || button;
    label.textContent = button.dataset.copied;
  };

  document.addEventListener("click", (event) => {
    const theme = event.target.closest("[data-theme-choice]");
    if (theme) {
      document.dispatchEvent(new CustomEvent("gatehouse:theme", { detail: theme.dataset.themeChoice }));
      markTheme();
    }
    const copier = event.target.closest("[data-copy]");
    if (copier) copy(copier);
  });

  // A span of time that grows: data-elapsed holds its seconds when the server drew it. Written as the server does.
  const UNITS = [
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const DAY = 86_400; // s; from there on a second is nothing to look at
  const spell = (seconds) => {
    const counts = UNITS.map(([length], index) => {
      const within = index ? seconds % UNITS[index - 1][0] : seconds;
      return Math.floor(within / length);
    });
    const first = counts.findIndex((count) => count > 0);
    if (first < 0) return "0 s";
    const shown = counts[first + 1] ? [first, first + 1] : [first];
    return shown.map((index) => `${counts[index]} ${UNITS[index][1]}`).join(" ");
  };
  const drawn = new WeakMap();
  window.setInterval(() => {
    for (const span of document.querySelectorAll("[data-elapsed]")) {
      const known = drawn.get(span);
      if (known?.elapsed === span.dataset.elapsed) {
        const seconds = Number(known.elapsed) + (performance.now() - known.at) / 1000;
        if (seconds < DAY) span.textContent = spell(seconds);
      } else {
        drawn.set(span, { elapsed: span.dataset.elapsed, at: performance.now() });
      }
    }
  }, 1000);

  // A second click while the first submit is on its way asks for the same thing twice.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches("[hx-get], [hx-post]") || form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    form.setAttribute("aria-busy", "true");
  });
  // A page that comes back from the browser's cache may be sent again.
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
      form.removeAttribute("aria-busy");
    }
  });

  const unreachable = () => {
    const messages = document.getElementById("messages");
    messages?.replaceChildren(document.getElementById("message-unreachable").content.cloneNode(true));
    messages?.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("htmx:sendError", unreachable);
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status >= 500) unreachable();
  });

  markTheme();
})();
