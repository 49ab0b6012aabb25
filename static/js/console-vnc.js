// A machine's screen in noVNC. The guest's clipboard and name for itself are ignored.

const main = document.getElementById("main");
const [{ default: RFB }, { start, refuse }] = await Promise.all([
  import(main.dataset.rfb), import(main.dataset.link),
]);

const SHIFT = 0xffe1;
const NAMED = { "\n": 0xff0d, "\r": 0xff0d, "\t": 0xff09 };
const SHIFTED = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZ~!@#$%^&*()_+{}|:"<>?');
let screen = null;

function keysym(letter) {
  const point = letter.codePointAt(0);
  return NAMED[letter] ?? (point < 0x100 ? point : 0x01000000 + point);
}

// One key after another: a guest's keyboard holds few that wait.
async function type(text) {
  for (const letter of text.replace(/\r\n/g, "\n")) {
    const into = screen;
    if (!into) return;
    if (SHIFTED.has(letter)) into.sendKey(SHIFT, "ShiftLeft", true);
    into.sendKey(keysym(letter), null);
    if (SHIFTED.has(letter)) into.sendKey(SHIFT, "ShiftLeft", false);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

document.getElementById("console-keys").addEventListener("click", () => {
  screen?.sendCtrlAltDel();
  screen?.focus();
});

start({
  open(channel) {
    screen = new RFB(document.getElementById("console-view"), channel, { shared: true });
    screen.scaleViewport = true;
    screen.background = "#0b0e13";
    screen.addEventListener("credentialsrequired", () => refuse(main.dataset.textPassword));
    screen.addEventListener("securityfailure", () => refuse(main.dataset.textFailed));
  },
  close() {
    screen?.disconnect();
    screen = null;
    document.getElementById("console-view").replaceChildren();
  },
  type,
  focus() { screen?.focus(); },
});
