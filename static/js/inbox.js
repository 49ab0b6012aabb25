// The inbox by keyboard. Letters act only while a request itself has the focus, never while one types.
(() => {
  "use strict";

  const requests = () => [...document.querySelectorAll("#inbox > .request")];

  const go = (from, step) => {
    const all = requests();
    const next = all[all.indexOf(from) + step];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  };

  const open = (request) => {
    const fold = request.querySelector("details.lower");
    if (fold) fold.open = true;
    fold?.querySelector(".lower-grid input")?.focus();
  };

  const KEYS = {
    j: (request) => go(request, 1),
    k: (request) => go(request, -1),
    a: (request) => request.querySelector("button[value=approve]")?.focus(),
    r: (request) => request.querySelector("[name=reason]")?.focus(),
    l: open,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const request = event.target.closest?.("#inbox > .request");
    if (request && event.key === "Escape") request.focus();
    if (!event.target.matches?.("#inbox > .request")) return;
    const act = KEYS[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act(request);
  });

  // After a decision the focus goes on to the next request that still waits.
  document.addEventListener("htmx:afterSettle", (event) => {
    const request = event.detail.elt?.closest?.("#inbox > .request");
    if (!request) return;
    const wrong = request.querySelector(".field-error > div");
    if (wrong) {
      wrong.closest(".field-error").parentElement.querySelector("textarea, input:not([type=hidden])")?.focus();
    } else if (!request.querySelector("form")) {
      const all = requests();
      const later = all.slice(all.indexOf(request) + 1).find((other) => other.querySelector("form"));
      (later || request).focus();
    } else {
      request.focus();
    }
  });
})();
