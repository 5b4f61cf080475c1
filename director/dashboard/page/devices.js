// The table of devices. Owner of its rows and pictures.

import { colour, coloured } from "./colours.js";
import { button, cell, follow, write } from "./rows.js";
import { Picture } from "./tracks.js";
import { count, duration, gibibytes, percent } from "./words.js";

const DENSE = 12; // devices, from which on the rows are thin

const table = document.querySelector(".devices");
const legend = document.getElementById("legend");
const pictures = new Map();
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const picture = pictures.get(entry.target.dataset.device);
    if (picture) picture.isSeen = entry.isIntersecting;
  }
}, { rootMargin: "200px" });

export function showDevices(known, showJob, showDevice) {
  const devices = known.identity.devices.map((fixed, place) => ({ ...fixed, ...known.devices[place] }));
  const dense = devices.length > DENSE;
  table.classList.toggle("dense", dense);
  table.classList.toggle("without-memory", devices.every((device) => device.total_memory == null));
  document.getElementById("lines").hidden = devices.every((device) => device.slots.length === 1);
  const make = (device) => makeRow(device, showJob, showDevice);
  follow(table.tBodies[0], devices, (device) => `${device.uuid}/${device.slots}`, make, fillRow);
  for (const device of devices) pictures.get(device.device).draw(known, dense);
  showLegend();
}

function makeRow(device, showJob, showDevice) {
  const head = cell("", "th");
  const name = button(() => showDevice(device.device));
  name.append(device.device);
  head.append(name, document.createElement("small"));
  const wide = cell("wide");
  const canvas = document.createElement("canvas");
  canvas.dataset.device = device.device;
  canvas.setAttribute("role", "img");
  wide.append(canvas);
  pictures.set(device.device, new Picture(canvas, device.slots, showJob));
  seen.observe(canvas);
  return [head, wide, cell("number"), cell("number jobs"), cell("memory")];
}

function fillRow([head, , busy, jobs, memory], device) {
  write(head.lastChild, about(device));
  head.classList.toggle("out", device.health !== "healthy");
  head.lastChild.title = about(device);
  write(busy, percent(device.share));
  busy.title = `${device.busy} of ${device.slots.length} slots busy now`;
  write(jobs, count(device.jobs));
  fillMemory(memory, device);
}

function about(device) {
  if (device.health !== "healthy") return `${device.health}: ${device.reason}`;
  const models = Object.entries(device.models).map(([model, seconds]) => (seconds ? `${model} (loaded in ${duration(seconds)})` : model));
  const knownAs = device.name === device.device ? [] : [device.name];
  return device.error ? `can't be read: ${device.error}` : [...knownAs, ...models].join(" · ") || "no model loaded";
}

function fillMemory(memory, device) {
  if (device.used_memory == null) {
    write(memory, device.total_memory == null ? "–" : gibibytes(device.total_memory));
    return;
  }
  if (!memory.querySelector("meter")) memory.replaceChildren(...["meter", "span", "span"].map((tag) => document.createElement(tag)));
  const [meter, text, warmth] = memory.children;
  Object.assign(meter, { max: device.total_memory, high: device.total_memory * 0.95, value: device.used_memory });
  meter.setAttribute("aria-label", "memory in use");
  warmth.className = "heat";
  const heat = [device.temperature == null ? "" : `${device.temperature} °C`, device.power == null ? "" : `${Math.round(device.power)} W`];
  write(text, `${(device.used_memory / 2 ** 30).toFixed(1)} of ${gibibytes(device.total_memory)}`);
  write(warmth, heat.filter(Boolean).map((each) => `, ${each}`).join(""));
}

function showLegend() {
  const marks = [...coloured().map((name) => [colour(name), name]), ["mixed", "several or other"], ["failed-mark", "failed"], ["left-mark", "caller left, call goes on"]];
  if (legend.children.length === marks.length) return;
  legend.replaceChildren(...marks.map(([mark, text]) => {
    const entry = document.createElement("li");
    const box = document.createElement("i");
    const name = document.createElement("span");
    box.className = mark;
    name.textContent = name.title = text;
    entry.append(box, name);
    return entry;
  }));
}
