// The table of devices. Owner of its rows and pictures.

import { colour, coloured } from "./colours.js";
import { button, cell, follow, write } from "./rows.js";
import { Picture } from "./tracks.js";
import { abandoned, count, gibibytes, loadTimes, percent, reserved, takers } from "./words.js";

const DENSE = 12; // devices, from which on the rows are thin
const NAMED = 12; // functions in the legend

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
  table.classList.toggle("without-memory", devices.every((device) => device.total_memory == null && device.memory.budget == null));
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
  head.lastChild.title = [about(device), loadTimes(device)].filter(Boolean).join("\n");
  write(busy, percent(device.share));
  busy.title = `${device.busy} of ${device.slots.length} slots busy now${abandoned(device)}`;
  write(jobs, count(device.jobs));
  fillMemory(memory, device);
}

/** What is below the name of a device: names alone, for there is room for little. */
function about(device) {
  if (device.health !== "healthy") return `${device.health}: ${device.reason}`;
  const knownAs = device.name === device.device ? [] : [device.name];
  return device.error ? `can't be read: ${device.error}` : [...knownAs, ...Object.keys(device.models)].join(" · ") || "no model loaded";
}

/** A bar of what is reserved of the budget, by what takes it, with a mark at what is in use, and both in words. */
function fillMemory(place, device) {
  const { memory, total_memory: total, used_memory: used } = device;
  const whole = Math.max(memory.budget ?? 0, total ?? 0);
  if (!whole) {
    write(place, memory.reserved ? gibibytes(memory.reserved) : "–");
    return;
  }
  if (!place.querySelector(".bar")) place.replaceChildren(...["span", "span", "span"].map((tag) => document.createElement(tag)));
  const [bar, text, warmth] = place.children;
  const inUse = used == null ? [] : [`${gibibytes(used)} in use by all processes`];
  fillBar(bar, [...Object.entries(memory.by), ...(used == null ? [] : [["used", used]])], whole);
  bar.setAttribute("aria-label", [`reserved ${reserved(memory)}`, ...takers(memory), ...inUse].join(", "));
  place.title = bar.getAttribute("aria-label");
  warmth.className = "heat";
  const heat = [device.temperature == null ? "" : `${device.temperature} °C`, device.power == null ? "" : `${Math.round(device.power)} W`];
  write(text, memory.budget == null ? gibibytes(total) : reserved(memory));
  write(warmth, heat.filter(Boolean).map((each) => `, ${each}`).join(""));
}

function fillBar(bar, parts, whole) {
  bar.className = "bar";
  bar.setAttribute("role", "img");
  while (bar.children.length > parts.length) bar.lastChild.remove();
  while (bar.children.length < parts.length) bar.append(document.createElement("i"));
  parts.forEach(([kind, bytes], place) => {
    const part = bar.children[place];
    part.className = kind;
    part.style[kind === "used" ? "left" : "width"] = `${Math.min(100, (100 * bytes) / whole)}%`;
  });
}

function showLegend() {
  const names = coloured();
  const more = names.length > NAMED ? `, ${names.length - NAMED} more by their colours` : "";
  const functions = names.slice(0, NAMED).map((name) => [colour(name), name]);
  const marks = [...functions, ["mixed", `several${more}`], ["failed-mark", "failed"], ["left-mark", "caller left, call goes on"]];
  const said = JSON.stringify(marks);
  if (legend.dataset.said === said) return;
  legend.dataset.said = said;
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
