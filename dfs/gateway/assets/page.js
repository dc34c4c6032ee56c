// What the pages need beyond plain HTML: requests that forms can't make.
"use strict";

const byId = (id) => document.getElementById(id);

function tell(text) {
  const message = byId("message");
  message.textContent = text;
  message.hidden = text === "";
}

// on runs an action when a form is sent, and tells what goes wrong.
function on(id, action) {
  const form = byId(id);
  if (!form) return;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(() => action(form));
  });
}

async function attempt(action) {
  try {
    tell("");
    await action();
  } catch (error) {
    tell(error.message);
  }
}

async function ask(method, url, headers) {
  const response = await fetch(url, { method, headers });
  if (!response.ok) throw new Error(`${method}: ${await response.text() || response.status}`);
}

const inside = (directory, name) => directory.replace(/\/$/, "") + "/" + encodeURIComponent(name);

// put uploads one file; fetch could not tell the progress.
function put(url, file, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", url);
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => request.status < 300 ? done() : failed(new Error(`Upload of ${file.name}: ${request.responseText || request.status}`));
    request.onerror = () => failed(new Error(`Upload of ${file.name}: the connection was lost`));
    request.send(file);
  });
}

on("upload", async (form) => {
  const files = [...byId("files").files];
  const bar = byId("progress");
  const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
  let before = 0;
  bar.hidden = false;
  for (const file of files) {
    await put(inside(form.dataset.directory, file.name), file, (loaded) => { bar.value = (before + loaded) / total; });
    before += file.size;
  }
  location.reload();
});

on("mkdir", async (form) => {
  await ask("MKCOL", inside(form.dataset.directory, byId("name").value));
  location.reload();
});

on("rename", async (form) => {
  const target = inside(form.dataset.directory, byId("name").value);
  await ask("MOVE", form.dataset.href, { Destination: new URL(target, location.href).href, Overwrite: "F" });
  location.href = target + "?info";
});

for (const button of document.querySelectorAll("button.delete")) {
  button.addEventListener("click", () => attempt(async () => {
    if (!confirm(`Delete ${button.dataset.name}?`)) return;
    await ask("DELETE", button.dataset.href);
    if (button.dataset.then) location.href = button.dataset.then;
    else location.reload();
  }));
}

// The live panel.
const units = ["B", "KiB", "MiB", "GiB", "TiB"];

function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
  return `${n.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function time(seconds) {
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(1)} ms`;
  return `${seconds.toFixed(1)} s`;
}

let last = null;

function show(status) {
  const now = performance.now() / 1000;
  const rate = (name) => last ? ((status.counters[name] || 0) - (last.counters[name] || 0)) / (now - last.at) : 0;
  const values = {
    relay: status.paths.relay, read: status.paths.read, connections: status.connections,
    requests: `${rate("gateway_requests").toFixed(0)} a second`,
    down: `${bytes(rate("gateway_relayed_bytes") + rate("gateway_library_bytes"))}/s`,
    up: `${bytes(rate("gateway_uploaded_bytes"))}/s`,
    p50: status.latency.count ? time(status.latency.p50_seconds) : "–",
    p99: status.latency.count ? time(status.latency.p99_seconds) : "–",
  };
  for (const [key, value] of Object.entries(values)) document.querySelector(`[data-key=${key}]`).textContent = value;
  const rows = Object.keys(status.counters).sort().map((name) => {
    const row = document.createElement("tr");
    const size = name.endsWith("_bytes") ? bytes : (n) => n.toFixed(0);
    for (const [i, text] of [name, size(status.counters[name]), size(rate(name))].entries()) {
      const cell = row.insertCell();
      cell.textContent = text;
      if (i) cell.className = "number";
    }
    return row;
  });
  byId("counters").replaceChildren(...rows);
  last = { counters: status.counters, at: now };
}

async function watch() {
  try {
    const response = await fetch("/-/status");
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json());
    tell("");
  } catch (error) {
    tell(`The gateway does not answer: ${error.message}`);
  }
  setTimeout(watch, 1000);
}

if (byId("live")) watch();
