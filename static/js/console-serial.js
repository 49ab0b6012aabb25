// A machine's serial line in xterm.js. What the guest prints is hostile: it opens no link, writes no
// clipboard and names no window.

const main = document.getElementById("main");
const nonce = document.querySelector('meta[name="style-nonce"]').content;

// xterm.js makes <style> elements; the policy wants the page's nonce on each.
const make = document.createElement.bind(document);
document.createElement = (name, options) => {
  const element = make(name, options);
  if (String(name).toLowerCase() === "style") element.nonce = nonce;
  return element;
};

const [{ Terminal }, { FitAddon }, { start }] = await Promise.all([
  import(main.dataset.xterm), import(main.dataset.fit), import(main.dataset.link),
]);

const terminal = new Terminal({
  cursorBlink: true,
  scrollback: 5000,
  screenReaderMode: false,
  // What a guest prints wrongly is not for the browser's console.
  logLevel: "off",
  fontFamily: 'ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace',
  fontSize: 14,
  theme: { background: "#0b0e13", foreground: "#dde4ee" },
  windowOptions: {},
  linkHandler: { activate() {}, allowNonHttpProtocols: false },
});
// Titles (0, 1, 2), links (8), notifications (9, 777), the clipboard (52) and files (1337): swallowed.
for (const order of [0, 1, 2, 8, 9, 52, 777, 1337]) terminal.parser.registerOscHandler(order, () => true);

const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("console-view"));
new ResizeObserver(() => fit.fit()).observe(document.getElementById("console-view"));

// A guest that waits at its prompt prints nothing to who comes later: a black page looks broken.
const PATIENCE = 1500; // ms
const state = document.getElementById("console-link");
let quiet = 0;
const hush = () => {
  window.clearTimeout(quiet);
  quiet = 0;
};

let line = null;
const encoder = new TextEncoder();
const send = (bytes) => line?.send(bytes);
terminal.onData((text) => send(encoder.encode(text)));
terminal.onBinary((text) => send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
// Reached by tests and by nobody else: what stands on the terminal now.
main.terminal = terminal;

start({
  open(channel) {
    terminal.reset();
    line = channel;
    quiet = window.setTimeout(() => { state.textContent = main.dataset.textQuiet; }, PATIENCE);
    channel.onmessage = ({ data }) => {
      if (quiet) state.textContent = main.dataset.textOpen;
      hush();
      terminal.write(new Uint8Array(data));
    };
    channel.onclose = hush;
  },
  close() {
    hush();
    line = null;
  },
  type(text) { send(encoder.encode(text.replace(/\r?\n/g, "\r"))); },
  focus() { terminal.focus(); },
});
