// The dialog with everything about one job, failure or device. Owner of what it shows, and of the address's fragment.

import { parse } from "./reading.js";
import { button, write } from "./rows.js";
import { abandoned, ago, count, counted, duration, gibibytes, loadTimes, percent, reserved, takers } from "./words.js";

const dialog = document.getElementById("detail");
const title = document.getElementById("detail-title");
const place = document.getElementById("detail-body");
let shown = null; // {kind, key}

dialog.addEventListener("close", () => {
  shown = null;
  history.replaceState(null, "", location.pathname + location.search);
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
document.getElementById("close").addEventListener("click", () => dialog.close());

export const showJob = (number) => open("job", number);
export const showFailure = (number) => open("failure", number);
export const showDevice = (label) => open("device", label);

/** What an address like …#job=12 asks for. */
export function showFromAddress() {
  const [, kind, key] = location.hash.match(/^#(?=(?:job|failure)=[0-9]+$|device=)(job|failure|device)=(.+)$/) ?? [];
  if (!kind) return;
  try {
    open(kind, decodeURIComponent(key));
  } catch { /* no address of ours */ }
}

/** Keep up with what is open. */
export async function refreshDetail(known) {
  if (!shown || !dialog.open) return;
  const { kind, key } = shown;
  const found = kind === "device" ? device(known, key) : await ask(`${kind}s/${key}`);
  if (shown?.kind !== kind || shown.key !== key) return; // another was opened in the meantime
  if (found === undefined) return; // no answer this time
  write(title, titled(kind, key, found));
  render({ job: jobParts, failure: failureParts, device: deviceParts }[kind](found, known, key));
}

function open(kind, key) {
  shown = { kind, key };
  place.dataset.was = "";
  write(title, `${kind[0].toUpperCase()}${kind.slice(1)} ${key}`);
  place.replaceChildren();
  history.replaceState(null, "", `#${kind}=${encodeURIComponent(key)}`);
  if (!dialog.open) dialog.showModal();
  dispatchEvent(new Event("detail"));
}

async function ask(address) {
  try {
    const answer = await fetch(address, { cache: "no-store" });
    return answer.ok ? parse(await answer.text()) : answer.status === 404 ? null : undefined;
  } catch {
    return undefined;
  }
}

function titled(kind, key, found) {
  if (kind === "failure") return found ? `${found.error} in ${found.name}` : "Failure";
  return kind === "job" ? `Job ${key}${found ? `: ${found.name}` : ""}` : `Device ${key}`;
}

const device = (known, label) => {
  const number = known.identity.devices.findIndex((each) => each.device === label);
  return number < 0 ? null : { ...known.identity.devices[number], ...known.devices[number] };
};

function jobParts(job) {
  if (!job) return [paragraph("This job is not kept any more: of very many only the latest, the longest and the failed are.")];
  const rows = {
    State: job.call_goes_on ? `${job.state} for its caller; the call still holds its slot` : job.state,
    Device: job.device && `${job.device}${job.slot == null ? "" : `, slot ${job.slot}`}`,
    Submitted: ago(job.at - job.submitted),
    Waited: job.waited == null ? `${duration(job.at - job.submitted)} so far` : duration(job.waited),
    Ran: job.state === "running" ? `${duration(job.at - job.started)} so far` : job.ran == null ? null : duration(job.ran),
    Attempts: job.attempts > 1 ? job.attempts : null,
    Progress: job.progress,
  };
  const example = job.why?.examples.find((each) => each.job === job.job);
  return [facts(rows), ...(job.why ? [linkedFailure(job.why), ...(example ? [pre(example.traceback)] : [])] : [])];
}

function linkedFailure(failure) {
  const link = button(() => showFailure(failure.failure));
  link.append(`${failure.error} in ${failure.name}, ${counted(failure.count, "time")}`);
  const made = paragraph("");
  made.append(link);
  return made;
}

function failureParts(failure) {
  if (!failure) return [paragraph("This kind of failure is not kept any more.")];
  const devices = Object.entries(failure.devices).map(([label, times]) => `${label} ${counted(times, "time")}`);
  const rows = {
    Times: count(failure.count), Last: ago(failure.at - failure.last),
    First: ago(failure.at - failure.first), Devices: devices.join(", ") || null,
  };
  return [facts(rows), ...failure.examples.flatMap((each) => exampleParts(each, failure.at))];
}

function exampleParts(example, at) {
  const line = paragraph(`${ago(at - example.at)}${example.device ? ` on ${example.device}` : ""} `);
  if (example.job != null) {
    const link = button(() => showJob(example.job));
    link.append(`job ${example.job}`);
    line.append(link);
  }
  return [line, pre(example.traceback)];
}

function deviceParts(device, known) {
  if (!device) return [paragraph("There is no such device.")];
  const rows = {
    Name: device.name, UUID: device.uuid, Health: device.reason ? `${device.health}: ${device.reason}` : device.health,
    Busy: `${percent(device.share)} of the last ${known.identity.recent} s; ${device.busy} of ${device.slots.length} slots now${abandoned(device)}`,
    Jobs: `${count(device.jobs)} calls in ${duration(device.busy_seconds)} of slot time`,
    Memory: device.total_memory && `${device.used_memory == null ? "" : `${gibibytes(device.used_memory)} in use of `}${gibibytes(device.total_memory)}`,
    Reserved: [reserved(device.memory), ...takers(device.memory)].join(", "),
    Free: device.memory.free == null ? null : gibibytes(device.memory.free),
    Asleep: device.memory.asleep ? `${gibibytes(device.memory.asleep)} of host memory` : null,
    Temperature: device.temperature && `${device.temperature} °C`, Power: device.power && `${Math.round(device.power)} W`,
    "GPU load": device.load == null ? null : percent(device.load), Models: Object.keys(device.models).join(" · ") || "none", "Load times": loadTimes(device), Error: device.error,
  };
  const here = [...known.running, ...known.ended].filter((job) => job.device === device.device);
  return [facts(rows), ...here.map(jobLine)];
}

function jobLine(job) {
  const line = paragraph("");
  const link = button(() => showJob(job.job));
  link.append(`job ${job.job}`);
  line.append(link, ` ${job.name}, ${job.state}${job.ran == null ? "" : `, ${duration(job.ran)}`}`);
  return line;
}

/** Renders only changes, so that a reader's focus and selection are kept. */
function render(parts) {
  const now = parts.map((part) => part.textContent).join("\n");
  if (place.dataset.was === now) return;
  place.dataset.was = now;
  if (place.contains(document.activeElement) || String(getSelection()) !== "") {
    const facts = place.querySelector(".facts");
    if (facts && parts[0].className === "facts") facts.replaceWith(parts[0]);
    return;
  }
  place.replaceChildren(...parts);
}

function facts(rows) {
  const list = document.createElement("dl");
  list.className = "facts";
  for (const [name, value] of Object.entries(rows)) {
    if (value == null || value === "") continue;
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = String(value);
    list.append(term, text);
  }
  return list;
}

function paragraph(text) {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
}

function pre(text) {
  const made = document.createElement("pre");
  made.tabIndex = 0; // so that a keyboard can scroll it
  made.textContent = text;
  return made;
}
