// Send a file in chunks, from where the server says that it is. A break is tried again for as long as the page is
// open; after that the same file, chosen again, goes on where it was.
(() => {
  "use strict";

  const CHUNK = 8 * 1024 * 1024; // bytes; a proxy takes at most 16 MiB at once
  const HEAD = 4096; // bytes at the beginning, by which the server knows what kind of file it is
  const PLACES = 16; // where else it is looked at, to know it again: disks often begin alike
  const SAMPLE = 256; // bytes
  const LONGEST_PAUSE = 30; // s between two tries
  const box = document.querySelector("[data-upload]");
  if (!box) return;
  const input = box.querySelector("input[type=file]");
  const stop = document.getElementById("upload-stop");
  const bar = document.getElementById("upload-progress");
  const number = document.getElementById("upload-number");
  const words = document.getElementById("upload-words");
  let sending = false;

  const say = (text) => {
    if (words.textContent !== text) words.textContent = text;
  };
  const size = (bytes) => (bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`);
  const show = (there, all) => {
    // Not 100 before it is: the number is what people wait for.
    const percent = all ? Math.floor((100 * there) / all) : 0;
    bar.value = percent;
    number.textContent = `${percent} % (${size(there)} / ${size(all)})`;
  };
  const pause = (seconds) => new Promise((resume) => window.setTimeout(resume, seconds * 1000));

  class Refused extends Error {}

  // Post, and again while the connection or the server is away. Returns the answer's status and JSON.
  const post = async (url, body, headers = {}) => {
    for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST_PAUSE)) {
      let response = null;
      try {
        response = await fetch(url, { method: "POST", body, headers: { ...headers, "X-CSRFToken": box.dataset.csrf } });
      } catch {
        // The file may be gone, not the connection.
        if (body instanceof Blob) await body.slice(0, 1).arrayBuffer().catch(() => { throw new Refused(box.dataset.unreadable); });
      }
      if (response && ![502, 503, 504].includes(response.status)) {
        const told = response.headers.get("Content-Type")?.startsWith("application/json");
        if (!told) throw new Refused(response.redirected || response.status < 500 ? box.dataset.signedOut : `${response.status}`);
        return { status: response.status, answer: await response.json() };
      }
      if (!sending) throw new Refused(box.dataset.stopped);
      say(box.dataset.broken);
      await pause(wait);
      if (!sending) throw new Refused(box.dataset.stopped);
    }
  };

  const read = async (blob) => btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));

  // Small pieces from the whole file, its end among them.
  const samples = (file) => {
    const step = Math.max(0, file.size - SAMPLE) / PLACES;
    const begins = Array.from({ length: PLACES }, (_, place) => Math.floor((place + 1) * step));
    return new Blob(begins.map((from) => file.slice(from, from + SAMPLE)));
  };

  const begin = async (file) => {
    const told = new URLSearchParams({ name: file.name, size: file.size, modified: file.lastModified });
    try {
      told.set("head", await read(file.slice(0, HEAD)));
      told.set("samples", await read(samples(file)));
    } catch {
      throw new Refused(box.dataset.unreadable);
    }
    const { status, answer } = await post(box.dataset.start, told);
    if (status !== 200) throw new Refused(answer.reason);
    return answer.offset;
  };

  const send = async (file) => {
    let there = await begin(file);
    for (let first = true; first || there < file.size; first = false) {
      show(there, file.size);
      say(box.dataset.sending);
      const url = box.dataset.chunk.replace(/\/0\/$/, `/${there}/`);
      const headers = { "Content-Type": "application/octet-stream" };
      const { status, answer } = await post(url, file.slice(there, there + CHUNK), headers);
      if (status !== 200 && status !== 409) throw new Refused(answer.reason);
      there = answer.offset;
      if (!sending && there < file.size) throw new Refused(box.dataset.stopped);
    }
    show(there, file.size);
  };

  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (!file || sending) return;
    sending = true;
    input.disabled = true;
    stop.hidden = false;
    try {
      await send(file);
      say(box.dataset.done);
      sending = false;
      window.location.reload();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      say(error.message);
      input.value = "";
      input.disabled = false;
      input.focus();
    } finally {
      sending = false;
      stop.hidden = true;
    }
  });
  stop.addEventListener("click", () => {
    sending = false;
  });
  window.addEventListener("beforeunload", (event) => {
    if (sending) event.preventDefault();
  });
})();
