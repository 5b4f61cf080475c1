// The lanes of a run on a canvas. Second part of the script.

class Picture {
  constructor(run, canvas) {
    Object.assign(this, { run, canvas, pen: canvas.getContext("2d"), from: 0, to: run.span, hot: -1, kept: -1, drag: null });
    this.row = run.slots.length > 48 ? 9 : run.slots.length > 20 ? 14 : 24;
    this.hasMemory = run.memory.at.length > 1;
    this.strips = this.hasMemory ? 2 : 1;
    this.lanesHeight = run.slots.length * this.row + (run.devices.length - 1) * 5;
    this.height = AXIS + this.lanesHeight + this.strips * (STRIP + GAP) + 6;
    this.order = run.slots.map((device, slot) => slot).sort((a, b) => run.slots[a] - run.slots[b] || a - b);
    this.tops = [];
    this.order.forEach((slot, place) => (this.tops[slot] = AXIS + place * this.row + run.slots[slot] * 5));
  }

  resize() {
    const width = this.canvas.clientWidth, scale = window.devicePixelRatio || 1;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    this.width = width;
    this.draw();
  }

  x(us) { return GUTTER + ((us - this.from) / (this.to - this.from)) * (this.width - GUTTER); }
  time(x) { return this.from + ((x - GUTTER) / (this.width - GUTTER)) * (this.to - this.from); }

  draw() {
    const style = getComputedStyle(document.documentElement), pen = this.pen;
    this.ink = (name) => style.getPropertyValue(`--${name}`).trim();
    this.palette = COLOURS[isDark() ? "dark" : "light"];
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.drawAxis();
    for (let slot = 0; slot < this.run.slots.length; slot++) this.drawLane(slot);
    for (const [device, began, ended] of this.run.loads) this.drawLoad(device, began, ended);
    this.drawLabels();
    this.drawQueue(AXIS + this.lanesHeight + GAP);
    if (this.hasMemory) this.drawMemory(AXIS + this.lanesHeight + GAP + STRIP + GAP);
    this.drawFocus();
    $("range").textContent = `${duration(this.to - this.from)} of ${duration(this.run.span)}`;
  }

  drawAxis() {
    const pen = this.pen, step = roundStep((this.to - this.from) / Math.max(2, (this.width - GUTTER) / 110));
    pen.textAlign = "center";
    for (let at = Math.ceil(this.from / step) * step; at <= this.to; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      pen.fillStyle = this.ink("line");
      pen.fillRect(x - 0.5, AXIS - 4, 1, this.height - AXIS);
      pen.fillStyle = this.ink("soft");
      if (x > GUTTER + 24 && x < this.width - 24) pen.fillText(moment(at, step, this.to), x, 9);
    }
  }

  drawLabels() {
    const pen = this.pen, run = this.run;
    pen.textAlign = "right";
    run.devices.forEach((device, number) => {
      const tops = this.tops.filter((_, slot) => run.slots[slot] === number);
      pen.fillStyle = this.ink("ink");
      const middle = (Math.min(...tops) + Math.max(...tops) + this.row) / 2;
      pen.fillText(device.label, GUTTER - 10, middle, GUTTER - 12);
    });
  }

  colour(job) { return this.palette[this.run.colours[this.run.jobs.name[job]]]; }

  // A call that is narrower than a pixel adds to how much of that pixel was busy: nothing looks fuller than it was.
  drawLane(slot) {
    const { pen, run } = this, top = this.tops[slot] + 1, height = this.row - 2, lane = run.lanes[slot];
    pen.fillStyle = this.ink("track");
    pen.fillRect(GUTTER, top, this.width - GUTTER, height);
    this.drawLost(slot, top, height);
    const filled = new Float32Array(Math.ceil(this.width) + 1), last = new Int32Array(filled.length);
    for (let k = after(lane, this.from, (i) => run.ended(i)); k < lane.length; k++) {
      const job = lane[k];
      if (run.began(job) > this.to) break;
      const left = Math.max(GUTTER, this.x(run.began(job))), right = Math.min(this.width, this.x(run.ended(job)));
      if (right - left >= 1.5) this.drawCall(job, left, right, top, height);
      else {
        const column = Math.min(filled.length - 1, Math.floor(left));
        const within = Math.min(right, column + 1) - left;
        filled[column] += within;
        last[column] = job;
        if (right - left > within && column + 1 < filled.length) { filled[column + 1] += right - left - within; last[column + 1] = job; }
        if (run.failed(job)) this.markFailed(left, top, height);
      }
    }
    for (let column = GUTTER; column < filled.length; column++) {
      if (filled[column] <= 0) continue;
      pen.globalAlpha = Math.min(1, Math.max(0.12, filled[column]));
      pen.fillStyle = this.colour(last[column]);
      pen.fillRect(column, top, 1, height);
    }
    pen.globalAlpha = 1;
  }

  drawCall(job, left, right, top, height) {
    const pen = this.pen, state = this.run.jobs.state[job], width = Math.max(1, right - left - (right - left > 4 ? 1 : 0));
    if (state === CANCELLED) {
      pen.strokeStyle = this.ink("faint");
      pen.lineWidth = 1.5;
      pen.strokeRect(left + 1, top + 1, Math.max(1, width - 2), height - 2);
    } else {
      pen.fillStyle = this.colour(job);
      pen.fillRect(left, top, width, height);
      if (state === RUNNING) {  // it has no end yet
        pen.fillStyle = this.ink("card");
        for (let y = top; y < top + height; y += 6) pen.fillRect(right - 3, y, 3, 3);
      }
    }
    if (this.run.failed(job)) this.markFailed(left, top, height, width);
    if (width > 46 && height > 16 && state !== CANCELLED) {
      pen.save();
      pen.beginPath();
      pen.rect(left, top, width - 4, height);
      pen.clip();
      pen.fillStyle = isDark() ? "#101316" : "#ffffff";
      pen.textAlign = "left";
      pen.fillText(this.run.names[this.run.jobs.name[job]], left + 6, top + height / 2 + 0.5);
      pen.restore();
    }
  }

  // Not by colour alone: what failed has a bar along its foot.
  markFailed(left, top, height, width = 2) {
    this.pen.fillStyle = this.ink("bad");
    this.pen.fillRect(left, top + height - Math.max(3, height / 4), width, Math.max(3, height / 4));
  }

  // Along the head of every lane of the device: which slot loaded is not known.
  drawLoad(device, began, ended) {
    if (ended < this.from || began > this.to) return;
    const left = Math.max(GUTTER, this.x(began)), right = Math.min(this.width, Math.max(this.x(ended), left + 2));
    this.pen.fillStyle = this.ink("ink");
    this.run.slots.forEach((its, slot) => its === device && this.pen.fillRect(left, this.tops[slot] + 1, right - left, 3));
  }

  drawLost(slot, top, height) {
    const { pen, run } = this, spans = run.lost[slot];
    pen.save();
    pen.beginPath();
    for (let k = after(spans, this.from, (span) => span[1]); k < spans.length && spans[k][0] < this.to; k++) {
      const left = Math.max(GUTTER, this.x(spans[k][0])), right = Math.min(this.width, this.x(spans[k][1]));
      if (right - left >= 0.7) pen.rect(left, top, right - left, height);
    }
    pen.clip();
    pen.strokeStyle = this.ink("lost");
    pen.lineWidth = 1.2;
    pen.beginPath();
    if (spans.length) for (let x = GUTTER - height; x < this.width; x += 5) { pen.moveTo(x, top + height); pen.lineTo(x + height, top); }
    pen.stroke();
    pen.restore();
  }

  drawQueue(top) {
    const { at, jobs } = this.run.queue;
    this.drawStrip(top, "jobs waiting", [{ at, values: jobs, colour: this.ink("waits") }], (n) => n.toLocaleString("en"), true);
  }

  drawMemory(top) {
    const { at, process, devices } = this.run.memory;
    const lines = devices.map((values, number) => ({ at, values, colour: this.palette[number % this.palette.length] }))
      .filter((line) => line.values.some((value) => value !== null));
    if (!lines.length) lines.push({ at, values: process, colour: this.ink("soft") });
    this.drawStrip(top, devices.some((values) => values.some((v) => v !== null)) ? "GPU memory" : "memory", lines, bytes, false);
  }

  // Lines over time. As steps, each pixel shows the most that it holds, or short peaks would be lost.
  drawStrip(top, title, lines, words, steps) {
    const pen = this.pen;
    let most = 0;
    for (const line of lines) most = Math.max(most, this.most(line));
    most = most || 1;
    const y = (value) => top + STRIP - (value / most) * (STRIP - 4);
    for (const { at, values, colour } of lines) {
      pen.beginPath();
      let k = Math.max(0, after(at, this.from) - 1), x = GUTTER, height = y(steps && at[k] > this.from ? 0 : values[k] ?? 0);
      pen.moveTo(GUTTER, top + STRIP);
      pen.lineTo(GUTTER, height);
      for (; k < at.length && at[k] <= this.to; k++) {
        if (values[k] === null) continue;
        x = Math.max(GUTTER, this.x(at[k]));
        if (steps) pen.lineTo(x, height);
        height = y(values[k]);
        pen.lineTo(x, height);
      }
      x = Math.min(this.width, this.x(this.run.span));
      pen.lineTo(x, height);
      pen.strokeStyle = colour;
      pen.lineWidth = 1.3;
      pen.stroke();
      pen.lineTo(x, top + STRIP);
      pen.globalAlpha = lines.length > 1 ? 0 : 0.18;
      pen.fillStyle = colour;
      pen.fill();
      pen.globalAlpha = 1;
    }
    pen.fillStyle = this.ink("line");
    pen.fillRect(GUTTER, top + STRIP, this.width - GUTTER, 1);
    pen.textAlign = "right";
    pen.fillStyle = this.ink("ink");
    pen.fillText(title, GUTTER - 10, top + STRIP / 2 - 8, GUTTER - 12);
    pen.fillStyle = this.ink("soft");
    pen.fillText(`up to ${words(most)}`, GUTTER - 10, top + STRIP / 2 + 9, GUTTER - 12);
  }

  most({ at, values }) {
    let most = 0;
    for (let k = Math.max(0, after(at, this.from) - 1); k < at.length && at[k] <= this.to; k++) most = Math.max(most, values[k] ?? 0);
    return most;
  }

  // The job under the pointer, with the time that it waited.
  drawFocus() {
    const job = this.kept >= 0 ? this.kept : this.hot, { pen, run } = this;
    if (this.drag && !this.drag.moves) {
      pen.globalAlpha = 0.2;
      pen.fillStyle = this.ink("accent");
      pen.fillRect(Math.min(this.drag.x, this.drag.now), AXIS - 4, Math.abs(this.drag.now - this.drag.x), this.height);
      pen.globalAlpha = 1;
    }
    if (job < 0) return;
    const top = this.tops[run.jobs.slot[job]] + 1, height = this.row - 2;
    const submitted = this.x(run.jobs.submitted[job]), left = Math.max(GUTTER, this.x(run.began(job)));
    const right = Math.min(this.width, this.x(run.ended(job)));
    if (right < GUTTER || left > this.width) return;
    pen.strokeStyle = this.ink("ink");
    pen.lineWidth = 2;
    pen.strokeRect(left, top, Math.max(2, right - left), height);
    const foot = AXIS + this.lanesHeight + GAP + STRIP;
    pen.setLineDash([3, 3]);
    pen.lineWidth = 1.2;
    pen.beginPath();
    pen.moveTo(Math.max(GUTTER, submitted), foot);
    pen.lineTo(Math.max(GUTTER, submitted), top + height / 2);
    pen.lineTo(left, top + height / 2);
    pen.stroke();
    pen.setLineDash([]);
  }

  find(x, y) {
    if (x < GUTTER) return -1;
    const slot = this.tops.findIndex((top) => y >= top && y < top + this.row);
    if (slot < 0) return -1;
    const lane = this.run.lanes[slot], at = this.time(x), reach = (this.time(x + 3) - at);
    const place = after(lane, at, (i) => this.run.began(i)) - 1;
    for (const k of [place, place + 1]) {
      const job = lane[k];
      if (job !== undefined && this.run.began(job) - reach <= at && this.run.ended(job) + reach >= at) return job;
    }
    return -1;
  }

  show(from, to) {
    const least = 20, span = this.run.span;
    const length = Math.min(span, Math.max(least, to - from));
    this.from = Math.min(Math.max(0, from), span - length);
    this.to = this.from + length;
    this.draw();
    this.note();
  }

  // The address says what is shown, so that a link to a page leads to the place in it: #FROM-TO or #FROM-TO,JOB.
  note() {
    const whole = this.from === 0 && this.to === this.run.span && this.kept < 0;
    const job = this.kept < 0 ? "" : `,${this.run.jobs.id[this.kept]}`;
    const place = whole ? location.pathname : `#${Math.round(this.from)}-${Math.round(this.to)}${job}`;
    try { history.replaceState(null, "", place); } catch { /* a browser may not let a file do that */ }
  }
  recall() {
    const place = /^#(\d+)-(\d+)(?:,(\d+))?$/.exec(location.hash);
    if (!place) return;
    const job = place[3] === undefined ? -1 : this.run.jobs.id.indexOf(Number(place[3]));
    if (job >= 0 && this.run.jobs.slot[job] >= 0) this.kept = job;
    this.show(Number(place[1]), Number(place[2]));
    if (this.kept >= 0) tell(this, job, this.x(this.run.began(job)), this.tops[this.run.jobs.slot[job]]);
  }
  zoom(factor, middle = (this.from + this.to) / 2) {
    this.show(middle - (middle - this.from) * factor, middle + (this.to - middle) * factor);
  }
  move(share) { const by = share * (this.to - this.from); this.show(this.from + by, this.to + by); }
}
