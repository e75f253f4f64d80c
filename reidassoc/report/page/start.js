"use strict";
// Everything from outside reaches the page by textContent alone.
function el(tag, attributes, ...children) {
  const svg = ["svg", "g", "rect", "path", "title", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

function select(label, options, chosen, change) {
  const box = el("select", {onchange: event => change(event.target.value)});
  for (const [value, text] of options) box.append(el("option", {value, selected: String(value) === String(chosen) ? "" : null}, text));
  return el("label", {}, label, box);
}

const named = person => person < 0 ? "unknown person" : `person ${person}`;

// One picture of a sheet; `framed` is "hit", "miss" or nothing.
function tile(chapter, sheet, place, framed) {
  const held = DATA.chapters[chapter].tiles[sheet];
  const camera = held.camera[place] >= 0 ? `, camera ${held.camera[place]}` : "";
  const said = `${framed ? framed + ": " : ""}${named(held.person[place])}${camera}, ${sheet.split("-")[1]}`;
  const node = el("span", {class: `tile sheet-${chapter}-${sheet} ${framed || ""}`, role: "img", "aria-label": said, title: said});
  node.style.backgroundPosition = `calc(var(--tw) * ${-(place % DATA.columns)}) calc(var(--tw) * var(--ratio) * ${-Math.floor(place / DATA.columns)})`;
  return node;
}

let DATA = null;
const READY = [];  // called with nothing once the data are there
addEventListener("DOMContentLoaded", async () => {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), letter => letter.charCodeAt(0));
  DATA = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  for (const start of READY) start();
  document.documentElement.dataset.ready = "yes";
});
