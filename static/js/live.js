// Live pieces of the page: elements with data-live="<panel>:<id>" are kept as the server knows them.
//
// One socket to /live/. We send {"watch": [...]} when it opens and whenever the set of such elements changes;
// the server answers with the present state of each and later sends {"fragments": [{panel, html}], "gone": [...]},
// and {} when it had nothing to send for a while: a cable that was pulled is silent, so silence is a lost socket.
// The socket is only a bell: after each reconnect everything watched is sent again, and when the socket stays
// away the page itself is fetched now and then.
(() => {
  "use strict";

  const PATIENCE = { first: 500, longest: 10_000 }; // ms between attempts
  const POLL_AFTER = 15_000; // ms without a socket
  const POLL_EVERY = 30_000; // ms
  const SILENCE = 25_000; // ms without a word; the server sends one every 10 seconds
  const SIGNED_OUT = 4401; // close code: no session any more

  let socket = null;
  let watched = "";
  let patience = PATIENCE.first;
  let retry = 0;
  let poll = 0;
  let silence = 0;
  let leaving = false;

  const elements = (panel) => document.querySelectorAll(panel ? `[data-live="${CSS.escape(panel)}"]` : "[data-live]");
  const panels = () => [...new Set(Array.from(elements(), (element) => element.dataset.live))].sort();
  const isOpen = () => socket?.readyState === WebSocket.OPEN;

  const isTypedIn = (node) =>
    node === document.activeElement && (node.isContentEditable || node.matches("input, textarea, select"));
  // Typed and left for another field: what the server draws would wipe it.
  const wasTypedIn = (node) =>
    (node.matches("textarea, input:not([type=hidden], [type=checkbox], [type=radio])") &&
      node.value !== node.defaultValue) ||
    (node.matches("input[type=checkbox]") && node.checked !== node.defaultChecked);
  const holdsTyping = (node) => node.contains(document.activeElement) && isTypedIn(document.activeElement);

  const morph = (present, fresh) => {
    const [result] = Idiomorph.morph(present, fresh, {
      morphStyle: "outerHTML",
      ignoreActiveValue: true,
      callbacks: {
        beforeNodeMorphed: (node) => !(node instanceof Element && (isTypedIn(node) || wasTypedIn(node))),
        // What somebody folded open stays open.
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.matches("details")),
        beforeNodeRemoved: (node) => !(node instanceof Element && holdsTyping(node)),
        afterNodeAdded: (node) => {
          if (node instanceof Element) htmx.process(node);
        },
      },
    });
    if (result instanceof Element) htmx.process(result);
  };

  const show = ({ fragments = [], gone = [] }) => {
    if (!fragments.length && !gone.length) return;
    for (const { panel, html } of fragments) {
      for (const present of elements(panel)) {
        // A template, because a table row parsed anywhere else loses its tags.
        const parsed = document.createElement("template");
        parsed.innerHTML = html;
        const fresh = parsed.content.firstElementChild;
        if (fresh) morph(present, fresh);
      }
    }
    for (const panel of gone) {
      for (const present of elements(panel)) {
        if (!holdsTyping(present)) present.remove();
      }
    }
    document.dispatchEvent(
      new CustomEvent("gatehouse:live", { detail: { panels: fragments.map(({ panel }) => panel), gone } }),
    );
  };

  const watch = () => {
    const now = panels();
    if (now.length && !socket && !retry) connect();
    const asked = JSON.stringify({ watch: now });
    if (!isOpen() || asked === watched) return;
    watched = asked;
    socket.send(asked);
  };

  const fetchPage = async () => {
    let answer;
    try {
      answer = await fetch(window.location.href, { headers: { Accept: "text/html" } });
    } catch (error) {
      // Still away, as the bar says; the next poll comes.
      if (error instanceof TypeError) return;
      throw error;
    }
    // Signed out meanwhile: let the browser go where the server sends it.
    if (answer.redirected) window.location.reload();
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    if (fresh) morph(document.getElementById("main"), fresh);
  };

  const away = (yes) => {
    const bar = document.getElementById("live-status");
    if (bar) bar.hidden = !yes;
    if (yes && !poll) {
      poll = window.setTimeout(function again() {
        fetchPage();
        poll = window.setTimeout(again, POLL_EVERY);
      }, POLL_AFTER);
    } else if (!yes) {
      window.clearTimeout(poll);
      poll = 0;
    }
  };

  const connect = () => {
    window.clearTimeout(retry);
    retry = 0;
    const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${window.location.host}/live/`);
    socket.addEventListener("open", () => {
      patience = PATIENCE.first;
      watched = "";
      heard();
      watch();
    });
    socket.addEventListener("message", (event) => {
      heard();
      show(JSON.parse(event.data));
    });
    socket.addEventListener("close", closed);
  };

  const heard = () => {
    away(false);
    window.clearTimeout(silence);
    silence = window.setTimeout(lost, SILENCE);
  };

  // The browser would wait for minutes before it called the socket closed.
  const lost = () => {
    const old = socket;
    if (!old) return;
    old.removeEventListener("close", closed);
    old.close();
    closed({ code: 0 });
  };

  const closed = (event) => {
    socket = null;
    window.clearTimeout(silence);
    if (leaving) return;
    if (event.code === SIGNED_OUT) {
      window.location.reload();
      return;
    }
    away(true);
    // Jitter, so that after a restart not every page comes back in the same instant.
    retry = window.setTimeout(connect, patience * (0.5 + Math.random()));
    patience = Math.min(patience * 2, PATIENCE.longest);
  };

  const hurry = () => {
    if (retry && document.visibilityState === "visible") {
      patience = PATIENCE.first;
      connect();
    }
  };

  if (!document.body.hasAttribute("data-signed-in")) return;
  document.addEventListener("visibilitychange", hurry);
  window.addEventListener("online", hurry);
  window.addEventListener("offline", lost);
  window.addEventListener("pagehide", () => {
    leaving = true;
    socket?.close();
  });
  window.addEventListener("pageshow", (event) => {
    leaving = false;
    if (event.persisted) watch();
  });
  let asked = 0;
  new MutationObserver(() => {
    // Many changes at once ask once. Not an animation frame: a hidden page has none.
    asked ||= window.setTimeout(() => {
      asked = 0;
      watch();
    }, 0);
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-live"] });
  watch();
})();
