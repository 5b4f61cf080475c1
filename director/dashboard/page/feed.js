// The stream of frames, and the state built from it. Owner of `known`; other modules only read it.

import { parse } from "./reading.js";

const PATIENCE = 3000; // milliseconds without a frame, after which the link is called late
const KEPT = 300; // seconds of the series

export class Feed extends EventTarget {
  constructor() {
    super();
    this.known = null; // what the frames have said so far
    this.link = "waiting";
    this.paused = false;
    this.stream = null;
    this.heard = 0;
    setInterval(() => this.#watch(), 1000);
    document.addEventListener("visibilitychange", () => this.#attend());
  }

  open() {
    this.#attend();
  }

  pause(paused) {
    this.paused = paused;
    this.#attend();
  }

  /** Connect only while the page is visible. */
  #attend() {
    const wanted = !this.paused && !document.hidden;
    if (wanted && !this.stream) this.#connect();
    if (!wanted && this.stream) this.#disconnect();
    if (this.paused) this.#say("paused");
  }

  #connect() {
    this.heard = performance.now();
    this.stream = new EventSource("events");
    this.stream.onmessage = (message) => this.#take(parse(message.data));
    this.stream.onerror = () => {
      if (this.stream?.readyState === EventSource.CLOSED) this.#ask(); // refused; otherwise it tries again by itself
    };
  }

  #disconnect() {
    this.stream.close();
    this.stream = null;
  }

  /** The browser does not report why a stream was refused: send a request that does, and try again later. */
  async #ask() {
    this.#disconnect();
    let reason = "The server does not answer.";
    try {
      const answer = await fetch("snapshot", { cache: "no-store" });
      reason = answer.ok ? "As many viewers as there may be look at it already. Trying again." : await answer.text();
    } catch { /* as it stands */ }
    this.#say("gone", reason);
    setTimeout(() => this.#attend(), 5000);
  }

  #watch() {
    if (!this.stream || performance.now() - this.heard < PATIENCE) return;
    this.#say("late");
  }

  #take(frame) {
    this.heard = performance.now();
    this.known = frame.identity ? whole(frame) : joined(this.known, frame);
    if (!this.known) return; // a frame without its whole: the next whole repairs it
    this.#say("live");
    this.dispatchEvent(new Event("frame"));
  }

  #say(link, reason = "") {
    if (link === this.link && !reason) return;
    this.link = link;
    this.dispatchEvent(new CustomEvent("link", { detail: { link, reason } }));
  }
}

function whole(frame) {
  const tracks = new Map();
  const columns = frame.series.map((_, column) => frame.points.map((point) => point[column]));
  const known = { ...frame, tracks, columns };
  takeTracks(known, frame.tracks);
  return known;
}

function joined(known, frame) {
  if (!known) return null;
  const { tracks, points, ...changed } = frame;
  Object.assign(known, changed);
  takeTracks(known, tracks);
  takePoints(known.columns, points);
  return known;
}

/** From a number on, the stretches of a slot are replaced by newer ones. */
function takeTracks(known, changes) {
  const oldest = known.at - known.identity.window;
  for (const [slot, [start, rows]] of Object.entries(changes)) {
    const track = known.tracks.get(slot) ?? { first: start, rows: [] };
    if (start < track.first) Object.assign(track, { first: start, rows: [] });
    track.rows.length = Math.min(track.rows.length, start - track.first);
    if (track.first + track.rows.length < start) Object.assign(track, { first: start, rows: [] });
    track.rows.push(...rows);
    const stale = track.rows.findIndex((row) => row[1] === null || row[1] > oldest);
    const drop = stale < 0 ? track.rows.length : stale;
    track.rows.splice(0, drop);
    track.first += drop;
    known.tracks.set(slot, track);
  }
}

function takePoints(columns, points) {
  for (const point of points) {
    const last = columns[0].at(-1);
    if (last !== undefined && point[0] < last + 0.5) continue; // told with the whole already
    point.forEach((value, column) => columns[column].push(value));
  }
  const surplus = columns[0].length - KEPT;
  if (surplus > 0) columns.forEach((column) => column.splice(0, surplus));
}
