
"use strict";
// Lines are drawn a chunk at a time, where the page is looked at; everything is written as text, never as markup.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const main = $("ladder"), CHUNK = 100, GUESS = 30;
const SAME = 0, LOST = 1, WORDS = 2, UNKNOWN = 3;
const join = text => typeof text === "string" ? text : text.join("");
const signOf = line => {
  if (Array.isArray(line[3]) || typeof line[3] === "string") return "≠";
  if (line[3] === LOST) return "✕";
  return line[4].length ? "!" : "";
};
// One flat list of what is shown: a heading for each dialogue, then its lines.
const timed = data.dialogues.some(one => one.lines.some(line => line[1] !== null));
main.classList.toggle("untimed", !timed);
let items = [], chunks = [], current = -1, hits = [], hit = -1;
const make = (tag, name, text) => {
  const one = document.createElement(tag);
  if (name) one.className = name;
  if (text !== undefined) one.textContent = text;
  return one;
};
const said = (cell, text) => {
  if (typeof text === "string") cell.append(text);
  else text.forEach((part, at) => {
    if (part) cell.append(at % 2 ? make("mark", "", part) : part);
  });
  return cell;
};
const plural = (count, word) => count.toLocaleString("en") + " " + word + (count === 1 ? "" : "s");
function heading(one) {
  const made = make("h2", "head", one.title || one.ends || "Dialogue");
  const facts = [one.title ? one.ends : "", one.when, plural(one.changes, "changed line"), one.ended];
  facts.filter(Boolean).forEach(text => made.append(make("small", "", text)));
  const columns = make("div", "row columns");
  ["seconds", "client", "", "server", "findings"].forEach((name, at) =>
    columns.append(make("span", ["time", "client", "lane", "server", "notes"][at], at || timed ? name : "")));
  const both = make("div");
  both.append(made, columns);
  return both;
}
function noteOf(number) {
  const [finding, action, reason, source, applied, doubt] = data.notes[number];
  const made = make("p");
  made.append(make("b", "", finding), ": " + (applied || action === "log" ? action : "would " + action) + "; " + reason);
  if (source) made.append(" [" + source + "]");
  if (doubt) made.append("; follows an earlier change, so it might not have happened");
  return made;
}
function row(line) {
  const [toServer, time, sent, got] = line;
  const made = make("div", "row " + (toServer ? "to-server" : "to-client"));
  const sign = signOf(line), tls = got === WORDS && sent.startsWith("TLS");
  if (got === LOST) made.classList.add("lost-row");
  if (tls) made.classList.add("tls");
  const clock = make("span", "time", time === null ? "" : (time / 1000).toFixed(3));
  clock.append(make("span", "which", toServer ? "client → server" : "client ← server"));
  const sender = said(make("span", "said " + (toServer ? "client" : "server")), sent);
  const receiver = make("span", "said " + (toServer ? "server" : "client"));
  if (got === LOST) { receiver.classList.add("lost"); receiver.append("not delivered"); }
  else if (got === WORDS) receiver.append("");
  else if (got === UNKNOWN) receiver.append("?");
  else {
    said(receiver, got === SAME ? sent : got);
    if (got === SAME) receiver.classList.add("same", "copy");
  }
  sender.querySelectorAll("mark").forEach(one => one.replaceWith(one.textContent));
  const lane = make("span", "lane");
  lane.append(make("i"));
  if (tls || sign) lane.append(make("b", "", tls ? "TLS" : sign));
  const words = {"≠": ", changed", "✕": ", not delivered", "!": ", reported"}[sign] || "";
  lane.append(make("span", "visually-hidden", (toServer ? "client to server" : "server to client") + words));
  const notes = make("span", "notes");
  line[4].forEach(number => notes.append(noteOf(number)));
  made.append(clock, ...(toServer ? [sender, lane, receiver] : [receiver, lane, sender]), notes);
  return made;
}
function draw(chunk) {
  if (chunk.drawn) return;
  const list = make("div", "");
  for (let at = chunk.first; at < chunk.last; at++) {
    const item = items[at];
    const one = item.line ? row(item.line) : heading(item.dialogue);
    one.tabIndex = -1;
    one.dataset.at = at;
    if (hits[hit] === at) one.classList.add("hit");
    list.append(one);
  }
  chunk.box.style.height = "";
  chunk.box.replaceChildren(list);
  chunk.drawn = true;
}
function clear(chunk) {
  if (!chunk.drawn || chunk.box.contains(document.activeElement)) return;
  chunk.box.style.height = chunk.box.offsetHeight + "px";
  chunk.box.replaceChildren();
  chunk.drawn = false;
}
const near = new IntersectionObserver(seen => seen.forEach(one => {
  const chunk = chunks[one.target.dataset.chunk];
  if (chunk && chunk.box === one.target) one.isIntersecting ? draw(chunk) : clear(chunk);
}), {rootMargin: "2500px 0px"});
function lay() {
  const which = $("which").value, only = $("only").checked;
  items = [];
  data.dialogues.forEach((dialogue, number) => {
    if (which !== "all" && which !== String(number)) return;
    const lines = only ? dialogue.lines.filter(line => signOf(line)) : dialogue.lines;
    if (only && !lines.length) return;
    items.push({dialogue});
    lines.forEach(line => items.push({line}));
  });
  near.disconnect();
  chunks = [];
  const boxes = [];
  for (let first = 0; first < items.length; first += CHUNK) {
    const last = Math.min(first + CHUNK, items.length), box = make("div", "chunk");
    box.dataset.chunk = chunks.length;
    box.style.height = (last - first) * GUESS + "px";
    chunks.push({first, last, box, drawn: false});
    boxes.push(box);
  }
  main.replaceChildren(...boxes);
  if (!items.length) main.append(make("p", "lead", "Nothing was changed or reported."));
  if (chunks.length) draw(chunks[0]);
  chunks.forEach(chunk => near.observe(chunk.box));
  current = -1;
  search();
}
function go(at, focus = true) {
  if (at < 0 || at >= items.length) return;
  current = at;
  const chunk = chunks[Math.floor(at / CHUNK)];
  draw(chunk);
  const one = chunk.box.querySelector(`[data-at="${at}"]`);
  if (focus) one.focus({preventScroll: true});
  one.scrollIntoView({block: focus ? "nearest" : "center"});
  const bar = document.querySelector(".bar").getBoundingClientRect(), top = one.getBoundingClientRect().top;
  if (getComputedStyle(document.querySelector(".bar")).position === "sticky" && top < bar.height) scrollBy(0, top - bar.height - 8);
}
const textOf = item => {
  if (item.text === undefined) {
    const line = item.line;
    item.text = (line ? [join(line[2]), Array.isArray(line[3]) || typeof line[3] === "string" ? join(line[3]) : "",
      ...line[4].map(number => data.notes[number].slice(0, 4).join(" "))].join("\n")
      : item.dialogue.title + " " + item.dialogue.ends).toLowerCase();
  }
  return item.text;
};
function search() {
  const wanted = $("query").value.toLowerCase();
  hits = [];
  hit = -1;
  document.querySelectorAll(".hit").forEach(one => one.classList.remove("hit"));
  if (wanted) items.forEach((item, at) => { if (textOf(item).includes(wanted)) hits.push(at); });
  $("found").textContent = wanted ? plural(hits.length, "match").replace("matchs", "matches") : "";
}
function step(by, focus) {
  const wanted = $("query").value;
  const places = wanted ? hits : items.map((item, at) => item.line && signOf(item.line) ? at : -1).filter(at => at >= 0);
  if (!places.length) return;
  const from = wanted && hit >= 0 ? hit : by > 0 ? places.findIndex(at => at > current) - 1
    : places.findLastIndex(at => at < current) + 1;
  let next = from + by;
  if (!wanted && by > 0 && places.every(at => at <= current)) next = 0;
  next = (next + places.length) % places.length;
  document.querySelectorAll(".hit").forEach(one => one.classList.remove("hit"));
  if (wanted) {
    hit = next;
    $("found").textContent = (next + 1).toLocaleString("en") + " of " + hits.length.toLocaleString("en");
  }
  go(places[next], focus);
  const shown = main.querySelector(`[data-at="${places[next]}"]`);
  if (wanted && shown) shown.classList.add("hit");
}
function dialogueStep(by) {
  const which = $("which"), next = which.selectedIndex + by;
  if (next < 0 || next >= which.options.length) return;
  which.selectedIndex = next;
  lay();
  go(0);
}
const keys = {
  j: () => go(Math.min(current + 1, items.length - 1)), k: () => go(Math.max(current - 1, 0)),
  n: () => step(1, true), p: () => step(-1, true),
  g: () => go(0), G: () => go(items.length - 1),
  "/": () => { $("query").focus(); $("query").select(); },
  c: () => { $("only").checked = !$("only").checked; lay(); },
  "[": () => dialogueStep(-1), "]": () => dialogueStep(1),
  "?": () => { if (!$("keys").open) $("keys").showModal(); },
};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const field = event.target.closest("input[type=search],select");
  if (field) {
    if (event.key === "Enter" && field === $("query")) { step(event.shiftKey ? -1 : 1, false); event.preventDefault(); }
    if (event.key === "Escape") { field.blur(); if (current >= 0) go(current); }
    return;
  }
  const act = keys[event.key];
  if (act) { event.preventDefault(); act(); }
});
main.addEventListener("focusin", event => {
  const one = event.target.closest("[data-at]");
  if (one) current = Number(one.dataset.at);
});
main.addEventListener("mousedown", event => {
  const one = event.target.closest("[data-at]");
  if (one) current = Number(one.dataset.at);
});
const which = $("which");
const total = data.dialogues.reduce((sum, one) => sum + one.lines.length, 0);
const option = (value, text) => { const one = make("option", "", text); one.value = value; which.append(one); };
option("all", "all " + data.dialogues.length.toLocaleString("en") + " (" + plural(total, "line") + ")");
data.dialogues.forEach((one, at) => option(String(at),
  (at + 1) + ". " + (one.title || one.ends || "dialogue") + " (" + one.changes + " changed)"));
which.addEventListener("change", lay);
$("only").addEventListener("change", lay);
$("query").addEventListener("input", search);
$("next").addEventListener("click", () => step(1, false));
$("previous").addEventListener("click", () => step(-1, false));
$("help").addEventListener("click", keys["?"]);
lay();
})();

