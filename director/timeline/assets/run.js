"use strict";
// The data of the page, and its texts. First of three parts of one script; times are microseconds since the
// beginning of the story.

const $ = (id) => document.getElementById(id);
const COLOURS = {
  light: ["#2f6fde", "#12917f", "#c27c0e", "#8b68d6", "#4f9a33", "#c2579b", "#4aa0cf", "#8c6d5a"],
  dark: ["#6ea2ff", "#3fbfac", "#e0a243", "#ab8df0", "#7fc363", "#e584c0", "#74c2ea", "#b99a86"],
};
const NAMED = 12;  // functions in the legend
const [FAILED, CANCELLED, RUNNING, RETRIED] = [1, 2, 3, 5];  // numbers of states
const GUTTER = 104, AXIS = 24, STRIP = 54, GAP = 16;

// ---- reading

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

function sums(deltas) {
  let total = 0;
  return Float64Array.from(deltas, (delta) => (total += delta));
}

class Run {
  constructor(data) {
    Object.assign(this, { span: Math.max(1, data.span), devices: data.devices, slots: data.slots, names: data.names, colours: data.colours });
    const jobs = data.jobs;
    this.jobs = { ...jobs, id: sums(jobs.id), submitted: sums(jobs.submitted), errors: data.errors };
    this.states = data.states;
    this.queue = { at: sums(data.queue.at), jobs: sums(data.queue.jobs) };
    this.memory = { ...data.memory, at: sums(data.memory.at) };
    this.loads = data.loads;
    this.lanes = data.slots.map(() => []);  // per slot: its jobs, in order of their beginnings
    for (let i = 0; i < jobs.slot.length; i++) if (jobs.slot[i] >= 0) this.lanes[jobs.slot[i]].push(i);
    for (const lane of this.lanes) lane.sort((a, b) => this.began(a) - this.began(b));
    this.lost = this.lanes.map((lane) => this.lostSpans(lane));
  }
  began(i) { return this.jobs.submitted[i] + this.jobs.waited[i]; }
  failed(i) { return this.jobs.state[i] === FAILED || this.jobs.state[i] === RETRIED; }
  ended(i) { return this.jobs.ran[i] < 0 ? this.span : this.began(i) + this.jobs.ran[i]; }

  // Where a lane is idle while jobs wait.
  lostSpans(lane) {
    const gaps = [];
    let free = 0;
    for (const i of lane) {
      if (this.began(i) > free) gaps.push([free, this.began(i)]);
      free = Math.max(free, this.ended(i));
    }
    if (free < this.span) gaps.push([free, this.span]);
    const { at, jobs } = this.queue, found = [];
    for (const [from, to] of gaps) {
      for (let k = Math.max(0, after(at, from) - 1); k < at.length && at[k] < to; k++) {
        const until = Math.min(to, k + 1 < at.length ? at[k + 1] : this.span);
        if (jobs[k] > 0 && until > Math.max(from, at[k])) found.push([Math.max(from, at[k]), until]);
      }
    }
    return found;
  }
}

// The first index whose value is above `wanted`.
function after(values, wanted, of = (value) => value) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(values[middle]) > wanted) high = middle; else low = middle + 1;
  }
  return low;
}

// ---- words

function duration(us) {
  if (us < 999.5) return `${Math.round(us)} µs`;
  if (us < 999.5e3) return `${three(us / 1e3)} ms`;
  if (us < 59.95e6) return `${three(us / 1e6)} s`;
  const seconds = Math.round(us / 1e6);
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`
    : `${Math.floor(seconds / 3600)} h ${pad(Math.floor(seconds / 60) % 60)} min`;
}
const three = (number) => number.toFixed(number < 9.995 ? 2 : number < 99.95 ? 1 : 0);
const pad = (number) => String(number).padStart(2, "0");
const bytes = (n) => n >= 2 ** 30 ? `${three(n / 2 ** 30)} GiB` : `${three(n / 2 ** 20)} MiB`;

// A moment, in the unit that suits the latest one beside it, with no more digits than their distance asks for.
function moment(us, step, latest) {
  if (step >= 60e6) return duration(us);
  const [unit, word] = latest >= 1e6 ? [1e6, "s"] : latest >= 1e3 ? [1e3, "ms"] : [1, "µs"];
  const digits = Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
  return `${(us / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${word}`;
}

function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= least) ?? least;
}
