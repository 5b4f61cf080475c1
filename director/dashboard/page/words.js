// Numbers formatted for people. No state.

const three = (n) => (n < 9.995 ? n.toFixed(2) : n < 99.95 ? n.toFixed(1) : n.toFixed(0));

export const count = (n) => Math.round(n).toLocaleString("en");

/** Seconds, to three digits: 850 µs, 3.42 ms, 1.20 s, 2 min 05 s, 1 h 02 min. */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1e-6) return "0 µs";
  if (seconds < 0.9995e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 0.9995) return `${three(seconds * 1e3)} ms`;
  if (seconds < 59.95) return `${three(seconds)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} days`;
}

export const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Seconds, for times that grow while one looks. */
export const age = (seconds) => (seconds < 9.95 ? `${Math.max(0, seconds).toFixed(1)} s` : seconds < 59.5 ? `${Math.round(seconds)} s` : duration(seconds));

/** Seconds, for guesses: 9 s, 55 min, 3 h, 2 days. */
export function roughly(seconds) {
  if (seconds < 59.5) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

export const ago = (seconds) => (seconds < 0.5 ? "now" : `${seconds < 9.5 ? `${Math.round(seconds)} s` : age(seconds)} ago`);

export const percent = (share) => `${(share * 100).toFixed(share >= 0.9995 ? 0 : 1)} %`;

/** A rate, to three digits. */
export const rate = (n) => (n >= 100 ? count(n) : n >= 0.0005 ? String(Number(n.toPrecision(3))) : "0");

/** Slots of a device in calls whose jobs have ended, behind those that are busy; "" for none. */
export const abandoned = (device) => (device.abandoned ? `, ${device.abandoned} of them in calls whose jobs have ended` : "");

/** How long the models of a device took to load, behind their names; "" for none. */
export const loadTimes = (device) => Object.entries(device.models).filter(([, seconds]) => seconds).map(([model, seconds]) => `${model} loaded in ${duration(seconds)}`).join(" · ");

/** What is reserved of a device's budget: 6.0 of 24.0 GiB. */
export const reserved = ({ reserved, budget }) => (budget == null ? gibibytes(reserved) : `${(reserved / 2 ** 30).toFixed(1)} of ${gibibytes(budget)}`);

/** What takes it: replicas 4.0 GiB, calls 2.0 GiB. */
export const takers = ({ by }) => Object.entries(by).filter(([, bytes]) => bytes).map(([kind, bytes]) => `${kind} ${gibibytes(bytes)}`);

export const gibibytes = (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
