// Keeps the page as things stand. The server sends each block again when it
// changes; this puts it in place of the element with the same id. Without it
// the page works all the same, by reloading.
"use strict";

const live = document.getElementById("live");
const list = document.getElementById("list");
const say = document.getElementById("say");

document.documentElement.classList.add("script");

// Times are sent as UTC and shown as the reader's own.
function localTimes(root) {
  const today = new Date().toDateString();
  for (const t of root.querySelectorAll("time")) {
    const at = new Date(t.dateTime);
    t.title = t.dateTime;
    t.textContent = at.toDateString() === today
      ? at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })
      : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}
localTimes(document);

// What is spoken is kept short: at most one sentence every two seconds, the
// newest.
let speech = 0;
let next = "";
function speak(text) {
  next = text;
  if (speech) return;
  say.textContent = next;
  speech = setTimeout(() => {
    speech = 0;
    if (next !== say.textContent) speak(next);
  }, 2000);
}

function put(html) {
  const t = document.createElement("template");
  t.innerHTML = html.trim();
  const fresh = t.content.firstElementChild;
  localTimes(fresh);
  const old = document.getElementById(fresh.id);
  if (!old) {
    list.prepend(fresh);
    fresh.classList.add("fresh");
    speak(fresh.dataset.name + " was added");
  } else {
    // A reader's place survives: what was open stays open, focus stays.
    for (const d of old.querySelectorAll("details[open]")) {
      const same = d.id && fresh.querySelector("#" + CSS.escape(d.id));
      if (same) same.open = true;
    }
    const focus = old.contains(document.activeElement) && document.activeElement.id;
    if (old.dataset.stage !== fresh.dataset.stage) speak(fresh.dataset.name + " is " + fresh.dataset.stage);
    else if ("lost" in fresh.dataset && !("lost" in old.dataset)) speak(fresh.dataset.name + " lost contact with its worker");
    old.replaceWith(fresh);
    if (focus) (document.getElementById(focus) || fresh.querySelector("a, button"))?.focus();
  }
  document.getElementById("empty").hidden = list.children.length > 0;
}

if (live) {
  let heard = Date.now();
  const show = (state, text) => {
    live.dataset.state = state;
    if (live.textContent !== text) live.textContent = text;
  };
  const follow = () => {
    const stream = new EventSource(live.dataset.feed);
    stream.addEventListener("list", (e) => {
      const ids = new Set(JSON.parse(e.data).ids.map((id) => "job-" + id));
      for (const block of [...list.children]) if (!ids.has(block.id)) block.remove();
      document.getElementById("empty").hidden = list.children.length > 0;
    });
    stream.addEventListener("job", (e) => put(e.data));
    stream.addEventListener("gone", (e) => {
      document.getElementById("job-" + JSON.parse(e.data).id)?.remove();
      document.getElementById("empty").hidden = list.children.length > 0;
    });
    stream.addEventListener("live", () => {
      heard = Date.now();
      show("live", "live");
    });
    stream.addEventListener("stale", (e) => {
      heard = Date.now();
      show("stale", "stale since " + new Date(JSON.parse(e.data).since).toLocaleTimeString());
    });
    stream.addEventListener("error", () => {
      show("stale", "stale since " + new Date(heard).toLocaleTimeString());
      if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
    });
  };
  show("off", "connecting");
  follow();
  setInterval(() => {
    if (live.dataset.state === "live" && Date.now() - heard > 10000) show("stale", "stale since " + new Date(heard).toLocaleTimeString());
  }, 1000);
}

// Uploads: several at once by drag and drop, each with its measured bytes.
const form = document.getElementById("upload");
if (form) {
  const input = form.querySelector("input[type=file]");
  const sending = document.getElementById("sending");
  const waiting = [];
  let busy = 0;

  const line = (name) => {
    const li = document.createElement("li");
    const label = document.createElement("span");
    label.className = "file";
    label.textContent = name;
    const bar = document.createElement("progress");
    bar.max = 100;
    bar.value = 0;
    bar.setAttribute("aria-label", "Sending " + name);
    const text = document.createElement("span");
    text.className = "what";
    text.textContent = "waiting";
    li.append(label, bar, text);
    sending.append(li);
    return { li, bar, text };
  };
  const end = (row, text, bad) => {
    row.bar.remove();
    row.text.textContent = text;
    row.li.classList.toggle("bad", bad);
    speak(row.li.textContent);
    if (!bad) setTimeout(() => row.li.remove(), 6000);
  };
  const told = (answer) => {
    const f = answer?.files?.[0];
    const e = answer?.error || f?.error;
    if (e) return [e.reason + ". " + e.action + ".", true];
    if (f?.outcome === "duplicate") return [f.note + ".", false];
    if (f) return [f.outcome, false];
    return ["The server's answer was not understood.", true];
  };
  const send = (file, row) => {
    const x = new XMLHttpRequest();
    x.open("POST", "/api/v1/documents?filename=" + encodeURIComponent(file.name));
    x.setRequestHeader("Content-Type", "application/octet-stream");
    x.responseType = "json";
    x.upload.onprogress = (e) => {
      const percent = Math.floor((100 * e.loaded) / (e.total || 1));
      row.bar.value = percent;
      row.text.textContent = percent < 100 ? percent + " % sent" : "being written to disk";
    };
    x.onload = () => end(row, ...told(x.response));
    x.onerror = () => end(row, "The connection broke off. Send it again.", true);
    x.onloadend = () => {
      busy--;
      pump();
    };
    x.send(file);
  };
  const pump = () => {
    while (busy < 3 && waiting.length) {
      busy++;
      send(...waiting.shift());
    }
  };
  const add = (files) => {
    for (const file of files) {
      const row = line(file.name);
      if (file.size > Number(form.dataset.max)) end(row, "File too large: choose one of at most " + form.dataset.limit + ".", true);
      else waiting.push([file, row]);
    }
    pump();
  };

  form.addEventListener("submit", (e) => {
    e.preventDefault();
    add(input.files);
    form.reset();
  });
  input.addEventListener("change", () => {
    add(input.files);
    form.reset();
  });
  const hasFiles = (e) => e.dataTransfer && Array.from(e.dataTransfer.types).includes("Files");
  let depth = 0;
  document.addEventListener("dragenter", (e) => {
    if (hasFiles(e) && ++depth) form.classList.add("over");
  });
  document.addEventListener("dragleave", (e) => {
    if (hasFiles(e) && --depth <= 0) form.classList.remove("over");
  });
  document.addEventListener("dragover", (e) => {
    if (hasFiles(e)) e.preventDefault();
  });
  document.addEventListener("drop", (e) => {
    if (!hasFiles(e)) return;
    e.preventDefault();
    depth = 0;
    form.classList.remove("over");
    add(e.dataTransfer.files);
  });
}
