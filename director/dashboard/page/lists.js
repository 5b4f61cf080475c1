// Waiting, failures, jobs: three tables. No state but their rows and which jobs are wanted.

import { button, cell, follow, write } from "./rows.js";
import { age, ago, count, duration } from "./words.js";

const body = (id) => document.getElementById(id).tBodies[0];
const KINDS = { failed: "", rejected: "refused: ", retried: "tried again: ", model: "loading: " };

export function showWaiting(known) {
  write(document.getElementById("why"), known.why_waiting ?? "");
  empty("waiting", known.waiting);
  const make = () => [cell("", "th"), cell("number"), cell("number")];
  follow(body("waiting"), known.waiting, (each) => each.name, make, ([name, jobs, oldest], each) => {
    write(name, each.name);
    write(jobs, count(each.jobs));
    write(oldest, each.oldest == null ? "–" : duration(each.oldest));
  });
}

export function showFailures(known, show) {
  empty("failures", known.failures);
  const make = (each) => {
    const head = cell("", "th");
    head.append(button(() => show(each.failure)));
    return [head, cell("wide"), cell("number"), cell("number")];
  };
  follow(body("failures"), known.failures, (each) => each.failure, make, ([head, message, times, last], each) => {
    write(head.firstChild, `${KINDS[each.kind]}${each.error} in ${each.name}`);
    write(message, each.message);
    message.title = each.message;
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
    return [head, cell(), cell(), cell(), cell("number"), cell("number"), cell("wide")];
  };
  follow(body("jobs"), jobs, (each) => each.job, make, (cells, each) => fillJob(cells, each, known.at));
}

function fillJob([, name, state, device, waited, ran, progress], job, at) {
  write(name, job.name);
  write(state, job.call_goes_on ? `${job.state}, call goes on` : job.state);
  state.className = { failed: "bad", cancelled: "warn" }[job.state] ?? "";
  write(device, job.device ?? "–");
  write(waited, duration(job.waited));
  write(ran, job.state === "running" ? age(at - job.started) : duration(job.ran));
  fillProgress(progress, job.progress);
}

function fillProgress(place, progress) {
  if (typeof progress !== "number" || progress < 0 || progress > 1) {
    write(place, progress == null ? "" : String(progress));
    return;
  }
  if (!place.querySelector("progress")) place.replaceChildren(document.createElement("progress"));
  place.firstChild.value = progress;
  place.firstChild.setAttribute("aria-label", "progress");
}

function empty(id, list) {
  document.getElementById(id).hidden = list.length === 0;
  document.getElementById(`${id}-empty`).hidden = list.length > 0;
}
