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
  const buttons = [...document.querySelectorAll("button")];
  buttons.forEach((button) => { button.disabled = true; }); // one thing at a time
  try {
    tell("");
    await action();
  } catch (error) {
    tell(error.message);
  }
  buttons.forEach((button) => { button.disabled = false; });
}

// reason is why a request was refused, in words: WebDAV's answers may have none.
const reasons = { 405: "There is something of this name already.", 412: "There is something of this name already.",
  423: "Somebody else has locked it.", 507: "The chunk servers are full." };

function reason(status, text) {
  return reasons[status] || text.trim() || `The gateway refused it with status ${status}.`;
}

async function ask(method, url, headers) {
  const response = await fetch(url, { method, headers });
  if (!response.ok) throw new Error(reason(response.status, await response.text()));
}

// inside is the URL of a name in a directory.
function inside(directory, name) {
  if (name === "." || name === ".." || name.includes("/")) throw new Error(`A name can't be “.” or “..”, or hold a slash: ${name}`);
  return directory.replace(/\/$/, "") + "/" + encodeURIComponent(name);
}

// put uploads one file; fetch could not tell the progress.
function put(url, file, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", url);
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => request.status < 300 ? done() : failed(new Error(`Upload of ${file.name}: ${reason(request.status, request.responseText)}`));
    request.onerror = () => failed(new Error(`Upload of ${file.name}: the connection was lost`));
    request.send(file);
  });
}

on("upload", async (form) => {
  const files = [...byId("files").files];
  const progress = byId("progress");
  const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
  let before = 0;
  progress.hidden = false;
  try {
    for (const [i, file] of files.entries()) {
      const now = (loaded) => {
        progress.firstElementChild.value = (before + loaded) / total;
        progress.lastElementChild.textContent = `${file.name}: file ${i + 1} of ${files.length}, ${bytes(before + loaded)} of ${bytes(total)}`;
      };
      now(0);
      await put(inside(form.dataset.directory, file.name), file, now);
      before += file.size;
    }
  } finally {
    progress.hidden = true;
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

for (const button of document.querySelectorAll("button.delete[data-href]")) {
  button.addEventListener("click", () => attempt(async () => {
    const what = button.dataset.type === "directory" ? `the directory “${button.dataset.name}” and everything in it` : `“${button.dataset.name}”`;
    if (!confirm(`Delete ${what}?`)) return;
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

// bodies says what is in the table of paths.
const bodies = { relayed: "Downloads, passed on", verified: "Downloads, verified here", uploaded: "Uploads" };

function row(labels, ...texts) {
  const made = document.createElement("tr");
  for (const text of texts) {
    const cell = made.insertCell();
    if (typeof text === "string") cell.textContent = text;
    else cell.append(text);
    if (cell.cellIndex && typeof text === "string") cell.className = "number";
    cell.dataset.label = labels[cell.cellIndex] || "";
  }
  return made;
}

// code is a name that may be broken behind an underscore.
function code(text) {
  const made = document.createElement("code");
  made.append(...text.split(/(?<=_)/).flatMap((part) => [part, document.createElement("wbr")]));
  return made;
}

const labelsOf = (body) => [...body.previousElementSibling.rows[0].cells].map((cell) => cell.textContent);

function show(status) {
  const now = performance.now() / 1000;
  const passed = (name) => last ? (status.counters[name] || 0) - (last.status.counters[name] || 0) : 0;
  const rate = (n) => last ? n / (now - last.at) : 0;
  const values = {
    connections: status.connections,
    requests: `${rate(passed("gateway_requests")).toFixed(0)} / s`,
    down: `${bytes(rate(passed("gateway_relayed_bytes") + passed("gateway_library_bytes")))}/s`,
    up: `${bytes(rate(passed("gateway_uploaded_bytes")))}/s`,
  };
  for (const [key, value] of Object.entries(values)) document.querySelector(`[data-key=${key}]`).textContent = value;
  const labels = labelsOf(byId("paths"));
  byId("paths").replaceChildren(...status.paths.map((path, i) => {
    const before = last ? last.status.paths[i].bytes : path.bytes;
    const took = path.latency;
    const copies = path.copied_bytes === undefined ? "not counted" : path.bytes ? (path.copied_bytes / path.bytes).toFixed(2) : "–";
    return row(labels, bodies[path.way], code(`${path.operation}=${path.path}`), `${bytes(rate(path.bytes - before))}/s`, bytes(path.bytes),
      took.count ? time(took.p50_seconds) : "–", took.count ? time(took.p99_seconds) : "–", copies);
  }));
  byId("counters").replaceChildren(...Object.keys(status.counters).sort().map((name) => {
    const size = name.endsWith("_bytes") ? bytes : (n) => n.toFixed(0);
    return row([], code(name), size(status.counters[name]), size(rate(passed(name))));
  }));
  last = { status, at: now };
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
