// The last minute of each device as a picture: one line for each slot. Owner of the canvases.

import { colour, paint } from "./colours.js";
import { age, counted, duration, percent } from "./words.js";

// Columns of a stretch, as docs/reference/dashboard.md has them.
const [BEGIN, END, ITEMS, BUSY, FAILED, LEFT, JOB, NAME] = [0, 1, 2, 3, 4, 5, 6, 7];

const GAP = 1;
const tip = document.getElementById("tip");

export class Picture {
  /** @param {(job: number) => void} show called with the number of a job that was clicked */
  constructor(canvas, slots, show) {
    this.canvas = canvas;
    this.slots = slots;
    this.lines = []; // the rows drawn last, by slot
    this.at = 0;
    this.window = 60;
    this.isSeen = true;
    canvas.addEventListener("pointermove", (event) => this.#point(event));
    canvas.addEventListener("pointerleave", () => (tip.hidden = true));
    canvas.addEventListener("click", (event) => {
      const found = this.#find(event);
      if (found) show(found[JOB]);
    });
  }

  /** Draw what the slots did until `known.at`; `dense` makes the lines thin. */
  draw(known, dense) {
    this.at = known.at;
    this.window = known.identity.window;
    this.lines = this.slots.map((slot) => [...(known.tracks.get(String(slot))?.rows ?? []), ...running(known.calls[slot])]);
    if (!this.isSeen) return;
    const height = this.#resize(dense);
    const context = this.canvas.getContext("2d");
    const scale = this.canvas.width / this.window;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.lines.forEach((rows, line) => drawLine(context, rows, this.at, this.window, scale, line * (height + GAP), height));
    this.canvas.setAttribute("aria-label", this.#tell());
  }

  #resize(dense) {
    const ratio = window.devicePixelRatio || 1;
    const thin = dense || this.slots.length > 4;
    const line = Math.round((this.slots.length === 1 ? (dense ? 13 : 22) : thin ? 6 : 11) * ratio);
    const height = this.slots.length * (line + GAP) - GAP;
    const width = Math.round(this.canvas.clientWidth * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.canvas.style.height = `${height / ratio}px`;
    }
    return line;
  }

  /** The text of the picture, for screen readers. */
  #tell() {
    const since = this.at - this.window;
    let busy = 0, jobs = 0, failed = 0;
    for (const row of this.lines.flat()) {
      const end = row[END] ?? this.at;
      if (end <= since) continue;
      busy += (row[END] === null ? end - Math.max(row[BEGIN], since) : row[BUSY]);
      jobs += row[ITEMS];
      failed += row[FAILED];
    }
    const share = Math.min(1, busy / (this.window * this.slots.length));
    return `In the last minute busy for ${percent(share)} of the time, with ${counted(jobs, "job")}, of which ${failed} failed`;
  }

  #find(event) {
    const box = this.canvas.getBoundingClientRect();
    const line = Math.floor(((event.clientY - box.top) / box.height) * this.slots.length);
    const moment = this.at - this.window + ((event.clientX - box.left) / box.width) * this.window;
    const slack = (3 / box.width) * this.window; // three pixels
    return this.lines[line]?.findLast((row) => row[BEGIN] - slack <= moment && moment <= (row[END] ?? this.at) + slack);
  }

  #point(event) {
    const found = this.#find(event);
    tip.hidden = !found;
    this.canvas.style.cursor = found ? "pointer" : "";
    if (!found) return;
    tip.textContent = describe(found, this.at);
    const width = tip.offsetWidth;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
    tip.style.top = `${event.clientY + 16}px`;
  }
}

/** The call that runs on a slot, as a stretch without an end. */
const running = (call) => (call ? [[call[0], null, call[1], 0, 0, false, call[2], call[3]]] : []);

function drawLine(context, rows, at, window, scale, top, height) {
  const since = at - window;
  for (const row of rows) {
    const end = row[END] ?? at;
    if (end <= since) continue;
    const left = (Math.max(row[BEGIN], since) - since) * scale;
    const width = Math.max(1, (end - since) * scale - left - 0.5);
    const density = row[END] === null || end <= row[BEGIN] ? 1 : row[BUSY] / (end - row[BEGIN]);
    context.globalAlpha = 0.2 + 0.8 * Math.min(1, density);
    context.fillStyle = row[LEFT] ? hatched(context, colour(row[NAME])) : paint(colour(row[NAME]));
    context.fillRect(left, top, width, height);
    context.globalAlpha = 1;
    if (row[FAILED]) drawFailure(context, left, width, top, height);
  }
}

/** A foot in another colour and wider than thin: failures show in a crowd, and not by colour alone. */
function drawFailure(context, left, width, top, height) {
  const foot = Math.max(2, Math.round(height * 0.36));
  context.fillStyle = paint("bad");
  context.fillRect(left, top + height - foot, Math.max(width, 3), foot);
}

const patterns = new Map();

function hatched(context, name) {
  const ink = paint(name);
  if (!patterns.has(ink)) {
    const tile = new OffscreenCanvas(6, 6);
    const pen = tile.getContext("2d");
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.stroke(new Path2D("M-2 8L8 -2M-2 2L2 -2M4 8L8 4"));
    patterns.set(ink, context.createPattern(tile, "repeat"));
  }
  return patterns.get(ink);
}

function describe(row, at) {
  const end = row[END] ?? at;
  const name = row[NAME] ?? "several functions";
  const when = row[END] === null ? `running for ${duration(end - row[BEGIN])}` : `${duration(end - row[BEGIN])}, ${age(at - end)} ago`;
  const lines = row[ITEMS] === 1
    ? [`${name} (job ${row[JOB]})`, when]
    : [`${counted(row[ITEMS], "job")} of ${name}`, `${when}, ${percent(Math.min(1, row[END] === null ? 1 : row[BUSY] / (end - row[BEGIN] || 1)))} busy`];
  if (row[FAILED]) lines.push(row[ITEMS] === 1 ? "failed" : `${row[FAILED]} failed`);
  if (row[LEFT]) lines.push("over for its caller before the call had ended");
  return lines.join("\n");
}
