// The page: takes frames and has the parts show them. Owner of the header, the key figures and the news.

import { showCharts, redrawCharts } from "./charts.js";
import { mindTheme, takeColours } from "./colours.js";
import { refreshDetail, showDevice, showFailure, showFromAddress, showJob } from "./detail.js";
import { showDevices } from "./devices.js";
import { Feed } from "./feed.js";
import { showBatches, showFailures, showGroups, showJobs, showModels, showWaiting } from "./lists.js";
import { write } from "./rows.js";
import { age, count, counted, duration, percent, rate, roughly } from "./words.js";

const at = (id) => document.getElementById(id);
const feed = new Feed();
const told = { state: null, link: null, failures: null, out: null };
let turn = 0;

const LINKS = { waiting: "connecting", live: "live", late: "no news", gone: "cut off", paused: "paused" };

feed.addEventListener("frame", () => {
  const known = feed.known;
  takeColours(known);
  showDevices(known, showJob, showDevice);
  if (turn++ % 2 === 0) showSlowly(known); // numbers that change four times a second can't be read
});
feed.addEventListener("link", ({ detail: { link, reason } }) => {
  at("link").dataset.link = link;
  write(at("link-text"), LINKS[link]);
  at("link").title = link === "late" ? "Nothing has been heard for some seconds: the app's event loop is blocked, or the app is gone" : "";
  at("notice").hidden = !reason;
  write(at("notice"), reason);
  if (link !== told.link && (link === "late" || told.link === "late")) announce(link === "late" ? "No news from the app" : "The app tells again");
  told.link = link;
});

function showSlowly(known) {
  showHeader(known);
  showFigures(known);
  showCharts(known);
  showWaiting(known);
  showBatches(known);
  showGroups(known);
  showModels(known);
  showFailures(known, showFailure);
  showJobs(known, document.querySelector("[name=which]:checked").value, showJob);
  announceFailures(known);
  announceDevices(known);
  if (turn % 4 === 1) refreshDetail(known);
}

function showHeader(known) {
  const { name, pid, host, version } = known.identity;
  write(at("name"), name ?? "director");
  write(at("about"), `process ${pid} on ${host}, director ${version}, open for ${age(known.open_for)}`);
  write(at("state"), known.state);
  at("state").dataset.well = known.healthy ? "yes" : known.state === "failed" ? "no" : "soon";
  if (told.state !== null && told.state !== known.state) announce(`The Director is ${known.state}`);
  told.state = known.state;
  document.title = `${name ?? "director"}: ${known.counts.queued} waiting, ${known.counts.running} running`;
}

function showFigures(known) {
  const { counts, per_second, waited, ran, batches, last_minute } = known;
  const recently = `last ${known.identity.recent} s`;
  const slots = known.identity.devices.reduce((sum, each) => sum + each.slots.length, 0);
  const share = known.devices.reduce((sum, each, place) => sum + each.share * known.identity.devices[place].slots.length, 0);
  const busy = known.devices.reduce((sum, each) => sum + each.busy, 0);
  const since = `since the start, ${age(known.open_for)} ago`;
  const others = [["failed", counts.failed], ["refused", counts.rejected], ["cancelled", counts.cancelled]].filter(([, number]) => number);
  const figures = [
    ["Waiting", count(counts.queued), counts.queued > per_second.succeeded && per_second.succeeded > 0 ? `now, ${roughly(counts.queued / per_second.succeeded)} of work` : "now"],
    ["Running", count(counts.running), `now, ${count(busy)} of ${counted(slots, "slot")}`],
    ["Slots busy", slots ? percent(share / slots) : "–", recently],
    ["Throughput", `${rate(per_second.succeeded)}/s`, `${recently}, ${count(counts.succeeded)} in all`],
    ["Wait p50", duration(waited?.p50), `p99 ${duration(waited?.p99)}, ${recently}`],
    ["Run time p50", duration(ran?.p50), `p99 ${duration(ran?.p99)}, ${recently}`],
    ...(batches && batches.mean > 1 ? [["Jobs per call", rate(batches.mean), `most ${Math.max(...Object.keys(batches.calls))}, last minute`]] : []),
    ["Failed, last minute", count(last_minute.failed), others.length ? `${others.map(([what, number]) => `${count(number)} ${what}`).join(", ")} ${since}` : `none ${since}`, last_minute.failed > 0],
    ...(known.loop_late > 0.05 ? [["Event loop late", duration(known.loop_late), "at worst", true]] : []),
  ];
  const list = at("figures");
  while (list.children.length > figures.length) list.lastChild.remove();
  while (list.children.length < figures.length) list.append(figure());
  figures.forEach((each, place) => fillFigure(list.children[place], ...each));
}

function figure() {
  const box = document.createElement("div");
  const value = document.createElement("dd");
  value.append(document.createElement("span"), document.createElement("small"));
  box.append(document.createElement("dt"), value);
  return box;
}

function fillFigure({ children: [term, value] }, name, number, more, isBad = false) {
  write(term, name);
  write(value.children[0], number);
  write(value.children[1], more);
  value.dataset.well = isBad ? "no" : "yes";
}

/** Announce new kinds of failure to screen readers. */
function announceFailures(known) {
  const numbers = new Set(known.failures.map((each) => each.failure));
  const fresh = told.failures && known.failures.find((each) => !told.failures.has(each.failure));
  if (fresh) announce(`New failure: ${fresh.error} in ${fresh.name}`);
  told.failures = numbers;
}

function announceDevices(known) {
  const out = known.devices.filter((each) => each.health !== "healthy").map((each) => each.device).join(", ");
  if (told.out !== null && told.out !== out) announce(out ? `Out of service: ${out}` : "All devices are in service");
  told.out = out;
}

function announce(text) {
  at("news").textContent = text;
}

at("pause").addEventListener("click", () => {
  feed.pause(!feed.paused);
  at("pause").setAttribute("aria-pressed", String(feed.paused));
});
at("find").addEventListener("submit", (event) => {
  event.preventDefault();
  showJob(Number(at("number").value));
});
for (const choice of document.querySelectorAll("[name=which]")) {
  choice.addEventListener("change", () => feed.known && showSlowly(feed.known));
}
addEventListener("detail", () => feed.known && refreshDetail(feed.known));
addEventListener("hashchange", showFromAddress);
mindTheme(at("theme"), () => {
  redrawCharts();
  if (feed.known) {
    showDevices(feed.known, showJob, showDevice);
    showCharts(feed.known);
  }
});
feed.addEventListener("frame", showFromAddress, { once: true });
if (location.hash.startsWith("#token=")) history.replaceState(null, "", location.pathname);
feed.open();
