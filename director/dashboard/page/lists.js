// Waiting, failures, jobs: three tables. No state but their rows and which jobs are wanted.

import { button, cell, follow, write, writeClipped } from "./rows.js";
import { age, ago, count, duration } from "./words.js";

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
    return [head, cell("wide"), cell("number"), cell("number")];
  };
  follow(body("failures"), known.failures, (each) => each.failure, make, ([head, message, times, last], each) => {
    writeClipped(head.firstChild, `${KINDS[each.kind]}${each.error} in ${each.name}`);
    write(head.lastChild, each.message); // shown where there is no room for the next column
    writeClipped(message, each.message);
    write(times, count(each.count));
    write(last, ago(known.at - each.last));
  });
}

export function showJobs(known, which, show) {
  const jobs = which === "ended" ? known.ended : known.running;
  empty("jobs", jobs);
  const make = (each) => {
    const head = cell("", "th");
    head.append(button(() => show(each.job)));
    head.firstChild.append(String(each.job));
    return [head, cell("clip"), cell(), cell(), cell("number waited"), cell("number"), cell("wide")];
  };
  follow(body("jobs"), jobs, (each) => each.job, make, (cells, each) => fillJob(cells, each, known.at));
}

function fillJob([, name, state, device, waited, ran, progress], job, at) {
  writeClipped(name, job.name);
  write(state, job.call_goes_on ? `${job.state}, call goes on` : job.state);
  state.className = { failed: "bad", cancelled: "warn" }[job.state] ?? "";
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
