// Handles input. Last part of the script.

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function line(parent, tag, text, kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = kind;
  parent.append(made);
  return made;
}

function tell(picture, job, x, y) {
  const tip = $("tip"), { run } = picture, jobs = run.jobs;
  tip.hidden = job < 0;
  tip.classList.toggle("kept", picture.kept >= 0);
  if (job < 0) return;
  tip.replaceChildren();
  line(tip, "b", `${run.names[jobs.name[job]]} #${jobs.id[job]}`);
  const slot = jobs.slot[job];
  line(tip, "div", `${run.devices[run.slots[slot]].label}, slot ${slot}: ${run.states[jobs.state[job]]}`);
  const ran = jobs.ran[job] < 0 ? "still runs" : `ran ${duration(jobs.ran[job])}`;
  line(tip, "div", `waited ${duration(jobs.waited[job])}, ${ran}`);
  const lag = jobs.lag[job] < 0 ? "" : `, the loop heard ${duration(jobs.lag[job])} later`;
  line(tip, "span", `began at ${moment(run.began(job), 100, run.span)}${lag}`);
  if (jobs.error[job] >= 0) line(tip, "div", jobs.errors[jobs.error[job]], "bad");
  tip.style.left = `${Math.max(0, Math.min(x + 14, picture.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 18}px`;
}

function listen(picture) {
  const canvas = picture.canvas;
  const place = (event) => [event.offsetX, event.offsetY];
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), drag = picture.drag;
    if (drag?.moves) picture.show(drag.from - (picture.time(x) - picture.time(drag.x)), drag.to - (picture.time(x) - picture.time(drag.x)));
    else if (drag) { drag.now = x; picture.draw(); }
    else if (picture.kept < 0) {
      const job = picture.find(x, y);
      if (job !== picture.hot) { picture.hot = job; picture.draw(); }
      tell(picture, job, x, y);
    }
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    const x = event.offsetX;
    picture.drag = { x, now: x, moves: event.shiftKey, from: picture.from, to: picture.to };
  });
  canvas.addEventListener("pointerup", (event) => {
    const drag = picture.drag, [x, y] = place(event);
    picture.drag = null;
    if (!drag) return;
    if (Math.abs(x - drag.x) < 4) {
      const job = picture.find(x, y);
      picture.kept = job === picture.kept ? -1 : job;
      picture.hot = job;
      picture.draw();
      picture.note();
      tell(picture, picture.kept, x, y);
    } else if (!drag.moves) {
      picture.show(picture.time(Math.min(x, drag.x)), picture.time(Math.max(x, drag.x)));
    }
  });
  canvas.addEventListener("pointerleave", () => {
    if (picture.kept >= 0 || picture.drag) return;
    picture.hot = -1;
    $("tip").hidden = true;
    picture.draw();
  });
  canvas.addEventListener("dblclick", () => picture.show(0, picture.run.span));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) picture.zoom(Math.exp(event.deltaY / 200), picture.time(event.offsetX));
    else picture.move(event.deltaX / picture.width);
  }, { passive: false });
  const keys = {
    ArrowLeft: () => picture.move(-0.2), ArrowRight: () => picture.move(0.2), "+": () => picture.zoom(0.6), "=": () => picture.zoom(0.6),
    "-": () => picture.zoom(1 / 0.6), 0: () => picture.show(0, picture.run.span), Home: () => picture.show(0, picture.run.span),
    Escape: () => { picture.kept = picture.hot = -1; $("tip").hidden = true; picture.draw(); picture.note(); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  $("in").onclick = () => picture.zoom(0.5);
  $("out").onclick = () => picture.zoom(2);
  $("all").onclick = () => picture.show(0, picture.run.span);
  addEventListener("resize", () => picture.resize());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { legend(picture); picture.draw(); });
}

function legend(picture) {
  const list = $("legend"), { names, colours } = picture.run, palette = COLOURS[isDark() ? "dark" : "light"];
  list.replaceChildren();
  const entry = (text, colour, kind = "") => {
    const item = document.createElement("li"), swatch = line(item, "i", "", kind);
    if (colour) swatch.style.background = colour;
    line(item, "span", text);
    item.title = text;
    list.append(item);
  };
  const numbers = [...names.keys()].sort((a, b) => (names[a] < names[b] ? -1 : 1));
  numbers.slice(0, NAMED).forEach((number) => entry(names[number], palette[colours[number]]));
  if (names.length > NAMED) entry(`${names.length - NAMED} more, in these colours`, "");
  const states = new Set(picture.run.jobs.state);
  if (states.has(FAILED) || states.has(RETRIED)) entry("failed", "", "failed");
  if (states.has(CANCELLED)) entry("cancelled", "", "cancelled");
  if (picture.run.loads.length) entry("loading a model", "", "load");
  if (picture.run.lost.some((spans) => spans.length)) entry("idle while a job waits", "", "lost");
}

function themes(picture) {
  const button = $("theme"), root = document.documentElement;
  const say = () => (button.textContent = isDark() ? "Light" : "Dark");
  button.hidden = false;
  button.onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    say();
    legend(picture);
    picture.draw();
  };
  say();
}

async function main() {
  const run = new Run(await unpack($("packed").textContent.trim()));
  $("lanes").hidden = run.slots.length === 0;
  const picture = new Picture(run, $("picture"));
  themes(picture);
  legend(picture);
  listen(picture);
  picture.resize();
  picture.recall();
  window.director = picture;
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  $("trouble").hidden = false;
  $("trouble").textContent = `The lanes can't be drawn in this browser: ${error}. The numbers don't need them.`;
});
