// The way to a machine's console, and the bar around it. Not for: what a screen or a line looks like.
// `start(view)` wants { open(channel), close(), type(text), focus() }; a channel is like a WebSocket:
// it has send, close, and calls onmessage({data: ArrayBuffer}) and onclose(). Words of the page stand in data-.

const byId = (id) => document.getElementById(id);
const main = byId("main");

// Looks like an open WebSocket to noVNC. What comes before somebody listens is kept.
class Channel {
  constructor(socket) {
    this.socket = socket;
    this.binaryType = "arraybuffer";
    this.protocol = "";
    this.onopen = this.onclose = this.onerror = null;
    this.early = [];
    this.listener = null;
  }

  get readyState() { return this.socket.readyState; }
  get onmessage() { return this.listener; }
  set onmessage(listener) {
    this.listener = listener;
    if (!listener) return;
    const early = this.early;
    this.early = [];
    // Later: who sets it is in the middle of making itself.
    if (early.length) queueMicrotask(() => early.forEach((data) => listener({ data })));
  }

  take(data) {
    if (this.listener && !this.early.length) this.listener({ data });
    else this.early.push(data);
  }

  send(data) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
  }

  close() { this.socket.close(); }
}

// noVNC asks for own properties of the object or its class; accessors of the class count.
const attempt = { number: 0, socket: null };

function show(state, text) {
  main.dataset.state = state;
  byId("console-link").textContent = main.dataset[`text${state[0].toUpperCase()}${state.slice(1)}`];
  byId("console-text").textContent = text || "";
  byId("console-notice").hidden = !text;
  for (const id of ["console-paste", "console-keys"]) {
    if (byId(id)) byId(id).disabled = state !== "open";
  }
  if (state === "ended") byId("console-retry").focus();
}

async function ticket() {
  let answer;
  try {
    answer = await fetch(main.dataset.ticketUrl, {
      method: "POST",
      headers: { "X-CSRFToken": main.dataset.csrf },
      body: new URLSearchParams({ kind: main.dataset.kind }),
    });
    // Signed out meanwhile: the page itself asks to sign in and comes back.
    if (answer.redirected) return location.reload();
    const fields = await answer.json();
    return answer.ok ? fields : { reason: fields.reason || main.dataset.textFailed };
  } catch {
    return { reason: answer ? main.dataset.textFailed : main.dataset.textUnreachable };
  }
}

function listen(socket, view, mine) {
  let channel = null;
  let said = "";
  socket.addEventListener("message", (event) => {
    if (typeof event.data !== "string") return channel?.take(event.data);
    const fields = JSON.parse(event.data);
    if (fields.type === "open") {
      channel = new Channel(socket);
      show("open");
      view.open(channel);
      view.focus();
    } else if (fields.type === "ended") said = fields.text;
  });
  socket.addEventListener("close", (event) => {
    channel?.onclose?.({ code: event.code, reason: "", wasClean: event.wasClean });
    if (mine !== attempt.number) return;
    show("ended", said || (channel ? main.dataset.textFailed : main.dataset.textUnreachable));
  });
}

async function connect(view) {
  attempt.number += 1;
  const mine = attempt.number;
  attempt.socket?.close();
  view.close();
  show("opening");
  const answer = await ticket();
  if (!answer || mine !== attempt.number) return;
  if (answer.reason) return show("ended", answer.reason);
  const socket = new WebSocket(new URL(answer.url, location.href.replace(/^http/, "ws")));
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => socket.send(answer.ticket));
  attempt.socket = socket;
  listen(socket, view, mine);
}

// Tell why a view gave up by itself; a later close of the socket does not write over it.
export function refuse(text) {
  attempt.number += 1;
  attempt.socket?.close();
  show("ended", text);
}

export function start(view) {
  const dialog = byId("console-dialog");
  const words = byId("console-words");
  for (const id of ["console-again", "console-retry"]) byId(id).addEventListener("click", () => connect(view));
  byId("console-full").addEventListener("click", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else main.requestFullscreen();
    view.focus();
  });
  byId("console-paste").addEventListener("click", () => {
    words.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    words.focus();
  });
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "type" && words.value) view.type(words.value);
    words.value = "";
    view.focus();
  });
  connect(view);
}
