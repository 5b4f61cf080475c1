// Waiting, failures, jobs: three tables. No state but their rows and which jobs are wanted.

import { button, cell, follow, write, writeClipped } from "./rows.js";
import { age, ago, count, duration, gibibytes, rate } from "./words.js";

const body = (id) => document.getElementById(id).tBodies[0];
const KINDS = { failed: "", rejected: "refused: ", retried: "tried again: ", model: "loading: " };

export function showWaiting(known) {
  write(document.getElementById("why"), known.why_waiting ?? "");
  empty("waiting", known.waiting);
  const make = () => [cell("clip", "th"), cell("number"), cell("number")];
  follow(body("waiting"), known.waiting, (each) => each.name, make, ([name, jobs, oldest], each) => {
    writeClipped(name, each.name);
    write(jobs, count(each.jobs));
    write(oldest, each.oldest == null ? "–" : duration(each.oldest));
  });
}

export function showFailures(known, show) {
  empty("failures", known.failures);
  const make = (each) => {
    const head = cell("clip", "th");
    head.append(button(() => show(each.failure)), document.createElement("small"));
    return [head, cell("wide"), cell("number"), cell("number first"), cell("number")];
  };
  follow(body("failures"), known.failures, (each) => each.failure, make, ([head, message, times, first, last], each) => {
    writeClipped(head.firstChild, `${KINDS[each.kind]}${each.error} in ${each.name}`);
    write(head.lastChild, each.message); // shown where there is no room for the next column
    writeClipped(message, each.message);
    write(times, count(each.count));
    write(first, ago(known.at - each.first));
    write(last, ago(known.at - each.last));
  });
}

export function showJobs(known, which, show) {
  const jobs = which === "ended" ? known.ended : known.running;
  empty("jobs", jobs);
  document.getElementById("jobs").dataset.which = which;
  const make = (each) => {
    const head = cell("", "th");
    head.append(button(() => show(each.job)), document.createElement("small"));
    head.firstChild.append(String(each.job));
    return [head, cell("clip"), cell("state"), cell("device"), cell("number waited"), cell("number"), cell("wide")];
  };
  follow(body("jobs"), jobs, (each) => each.job, make, (cells, each) => fillJob(cells, each, known.at));
}

function fillJob([head, name, state, device, waited, ran, progress], job, at) {
  write(head.lastChild, job.jobs > 1 ? ` +${job.jobs - 1}` : "");
  head.title = job.jobs > 1 ? `one call for ${job.jobs} jobs` : "";
  writeClipped(name, job.name);
  write(state, job.call_goes_on ? `${job.state}, call goes on` : job.state);
  state.className = `state ${{ failed: "bad", cancelled: "warn" }[job.state] ?? ""}`;
  write(device, job.device ?? "–");
  write(waited, duration(job.waited));
  write(ran, job.state === "running" ? age(at - job.started) : duration(job.ran));
  fillProgress(progress, job.progress);
}

function fillProgress(place, progress) {
  if (typeof progress !== "number" || progress < 0 || progress > 1) {
    writeClipped(place, progress == null ? "" : String(progress));
    return;
  }
  fillBar(place, progress, "progress");
}

function fillBar(place, share, name) {
  if (!place.querySelector("progress")) place.replaceChildren(document.createElement("progress"));
  place.firstChild.value = share;
  place.firstChild.setAttribute("aria-label", name);
}

/** What became of the jobs of each function, and of each tenant if there are any, in the last minute. */
export function showGroups(known) {
  empty("functions", known.functions);
  document.getElementById("by-tenant").hidden = known.tenants.length === 0;
  for (const id of ["functions", "tenants"]) {
    const make = () => [cell("clip", "th"), ...["", "", " pair", " pair"].map((kind) => cell(`number${kind}`))];
    follow(body(id), known[id], (each) => each.name, make, ([name, throughput, failed, waited, ran], each) => {
      writeClipped(name, each.name);
      write(throughput, rate(each.per_second));
      write(failed, count(each.failed));
      failed.classList.toggle("bad", each.failed > 0);
      fillPair(waited, each.waited);
      fillPair(ran, each.ran);
    });
  }
}

/** The median and the 99th percentile, one below the other where there is little room. */
function fillPair(place, found) {
  if (!place.firstChild) place.append(document.createElement("span"), document.createElement("span"));
  write(place.firstChild, duration(found?.p50));
  write(place.lastChild, duration(found?.p99));
}

/** The replicas of models: where, how large, when used last. */
export function showModels(known) {
  document.getElementById("by-model").hidden = known.models.length === 0;
  const make = () => [cell("clip", "th"), cell(), cell("state"), ...["", " measures", " measures", " loads", ""].map((kind) => cell(`number${kind}`))];
  const size = (bytes) => (bytes == null ? "–" : gibibytes(bytes));
  const nth = new Map(); // slots may have replicas of their own, and models may share a name
  const key = ({ model, device }) => {
    const name = JSON.stringify([model, device]);
    nth.set(name, (nth.get(name) ?? 0) + 1);
    return `${name}${nth.get(name)}`;
  };
  follow(body("models"), known.models, key, make, ([name, device, state, memory, declared, measured, loads, used], each) => {
    writeClipped(name, each.model);
    write(device, each.device);
    write(state, each.pinned ? `${each.state}, pinned` : each.state);
    write(memory, each.state === "asleep" ? `${size(each.bytes)} of host` : size(each.bytes));
    write(declared, size(each.declared));
    write(measured, size(each.measured));
    write(loads, each.load_seconds ? duration(each.load_seconds) : "–");
    write(used, each.used_at == null ? "–" : ago(known.at - each.used_at));
  });
}

/** How large batches were: the number of jobs in a call, in steps that double. */
export function showBatches({ batches }) {
  const hasSome = batches !== null && batches.mean > 1;
  document.getElementById("batches").hidden = !hasSome;
  if (!hasSome) return;
  const steps = new Map();
  let all = 0;
  for (const [size, calls] of Object.entries(batches.calls)) {
    const step = Math.ceil(Math.log2(Number(size)));
    const sum = steps.get(step) ?? { step, calls: 0, jobs: 0 };
    steps.set(step, { step, calls: sum.calls + calls, jobs: sum.jobs + calls * Number(size) });
    all += calls * Number(size);
  }
  const make = () => [cell("", "th"), cell("wide"), cell("number")];
  const rows = [...steps.values()].sort((one, other) => one.step - other.step);
  follow(document.querySelector("#batches tbody"), rows, (each) => each.step, make, ([sizes, share, calls], each) => {
    write(sizes, each.step < 2 ? String(2 ** each.step) : `${2 ** (each.step - 1) + 1} to ${2 ** each.step}`);
    fillBar(share, each.jobs / all, "share of the jobs");
    write(calls, count(each.calls));
  });
}

function empty(id, list) {
  document.getElementById(id).hidden = list.length === 0;
  document.getElementById(`${id}-empty`).hidden = list.length > 0;
}
