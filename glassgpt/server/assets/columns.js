// The figures of a run as columns that grow, and what a chart draws of them.

const STARTING_ROOM = 1024;
export const MOST_POINTS = 1200;  // of a curve that is drawn: a screen has no more columns

// Rows of figures: a typed array for each name, with room to grow. A figure that a row lacks is NaN.
class Table {
  constructor() {
    this.columns = new Map();
    this.length = 0;
    this.room = STARTING_ROOM;
  }

  fill(name, values) {
    this.length = values.length;
    while (this.room < this.length) this.room *= 2;
    const column = new Float64Array(this.room);
    column.set(values);
    this.columns.set(name, column);
  }

  push(row) {
    if (this.length === this.room) {
      this.room *= 2;
      for (const [name, column] of this.columns) {
        const wider = new Float64Array(this.room);
        wider.set(column);
        this.columns.set(name, wider);
      }
    }
    for (const name of Object.keys(row)) {
      if (typeof row[name] === "number" && !this.columns.has(name)) this.columns.set(name, new Float64Array(this.room).fill(NaN));
    }
    for (const [name, column] of this.columns) column[this.length] = row[name] ?? NaN;
    this.length += 1;
  }

  column(name) {
    return this.columns.get(name)?.subarray(0, this.length);
  }

  last(name) {
    return this.column(name)?.findLast(Number.isFinite);
  }
}

// All figures of a run, as the server sorts them: of the steps, of the validations, and others. See views/runs.py.
export class Figures {
  constructor({ meta, arrays }) {
    this.mark = meta.mark;
    this.skipped = meta.skipped;
    this.finished = meta.finished;
    this.tables = { train: new Table(), val: new Table(), other: new Table() };
    for (const [name, { data }] of Object.entries(arrays)) {
      const [kind, ...rest] = name.split(":");
      this.tables[kind].fill(rest.join(":"), data);
    }
    this.version = 0;  // counts changes, for what is computed from the figures
  }

  add(lines, mark) {
    const { train, val, other } = this.tables;
    for (const line of lines) {
      if (line.final) {
        this.finished = true;
        if ("val/loss" in line) {
          const steps = val.column("step") ?? [];
          while (val.length > 0 && steps[val.length - 1] >= line.step) val.length -= 1;  // the whole split's is the better one
          val.push(line);
        }
      } else if ("val/loss" in line) val.push(line);
      else if (line.skipped) this.skipped.push(line.step);
      else if ("train/loss" in line) train.push(line);
      else other.push(line);
    }
    if (lines.some((line) => !line.final)) this.finished &&= lines.at(-1).final === true;  // a finished run goes on
    this.mark = mark;
    this.version += 1;
  }

  get lastStep() {
    return Math.max(...Object.values(this.tables).map((table) => table.last("step") ?? -1), ...this.skipped.slice(-1));
  }

  // {x, y} of a figure over an axis: step, tokens or seconds. Only steps have tokens and seconds; between them and for
  // validations they are interpolated, from zero at step zero.
  curve(kind, name, axis) {
    const table = this.tables[kind], y = table.column(name);
    if (!y) return null;
    const step = table.column("step"), own = { step: "step", tokens: "tokens_seen", time: "seconds" }[axis];
    if (kind === "train" || axis === "step") {
      const x = table.column(own);
      return x && { x, y };
    }
    const steps = this.tables.train.column("step"), known = this.tables.train.column(own);
    return known && { x: interpolate(step, steps, known), y };
  }

  // Seconds that the remaining steps take at the speed of the last ones.
  secondsLeft(maxSteps) {
    const steps = this.tables.train.column("step"), seconds = this.tables.train.column("seconds");
    if (!steps || !seconds || steps.length < 2) return null;
    const last = steps.length - 1, first = Math.max(0, last - 200);
    return (seconds[last] - seconds[first]) / (steps[last] - steps[first]) * (maxSteps - steps[last]);
  }
}

function interpolate(at, steps, known) {
  const found = new Float64Array(at.length);
  for (let i = 0, j = 0; i < at.length; i += 1) {
    while (j < steps.length && steps[j] < at[i]) j += 1;
    const [x0, y0] = j === 0 ? [0, 0] : [steps[j - 1], known[j - 1]];
    const [x1, y1] = j === steps.length ? [x0, y0] : [steps[j], known[j]];
    found[i] = x1 === x0 ? y0 : y0 + (y1 - y0) * (at[i] - x0) / (x1 - x0);
  }
  return found;
}

// The mean of the finite values up to `reach` points to either side; nearer to the start of both sides equally, because
// a mean of one side would be biased where the curve falls steeply. The same as in glassgpt/report/curves.py.
export function smooth(y, reach) {
  if (reach < 1) return y;
  const n = y.length, sums = new Float64Array(n + 1), counts = new Int32Array(n + 1), found = new Float64Array(n);
  for (let i = 0; i < n; i += 1) {
    const finite = Number.isFinite(y[i]);
    sums[i + 1] = sums[i] + (finite ? y[i] : 0);
    counts[i + 1] = counts[i] + (finite ? 1 : 0);
  }
  for (let i = 0; i < n; i += 1) {
    const near = Math.min(reach, i), first = i - near, stop = Math.min(i + near + 1, n);
    const count = counts[stop] - counts[first];
    found[i] = count ? (sums[stop] - sums[first]) / count : NaN;
  }
  return found;
}

// The points to draw between two values of x: all, or of each of many intervals the lowest and the highest, so that no
// spike is lost. The intervals are equally long as the axis shows them.
export function thin({ x, y }, { from = null, to = null, logX = false, logY = false } = {}) {
  let start = 0, stop = x.length;
  if (from !== null) while (start < stop && x[start] < from) start += 1;
  if (to !== null) while (stop > start && x[stop - 1] > to) stop -= 1;
  if (logX) while (start < stop && !(x[start] > 0)) start += 1;
  const xs = [], ys = [];
  const add = (i) => {
    xs.push(x[i]);
    ys.push(Number.isFinite(y[i]) && (!logY || y[i] > 0) ? y[i] : null);
  };
  if (stop - start <= MOST_POINTS) {
    for (let i = start; i < stop; i += 1) if (Number.isFinite(x[i])) add(i);
    return [xs, ys];
  }
  const scale = logX ? Math.log : (value) => value;
  const low = scale(x[start]), width = (scale(x[stop - 1]) - low) / (MOST_POINTS / 2);
  for (let i = start; i < stop;) {
    const interval = Math.floor((scale(x[i]) - low) / width);
    let least = -1, most = -1, j = i;
    for (; j < stop && Math.floor((scale(x[j]) - low) / width) === interval; j += 1) {
      if (!Number.isFinite(y[j])) continue;
      if (least < 0 || y[j] < y[least]) least = j;
      if (most < 0 || y[j] > y[most]) most = j;
    }
    if (least >= 0) {
      add(Math.min(least, most));
      if (least !== most) add(Math.max(least, most));
    }
    i = Math.max(j, i + 1);
  }
  return [xs, ys];
}
