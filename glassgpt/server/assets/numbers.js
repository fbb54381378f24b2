// How numbers are written: no more digits than they deserve.

export const count = (value) => Math.round(value).toLocaleString("en");
export const loss = (value) => value.toFixed(2);

// A value that is read: four significant digits.
export function exact(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return count(value);
  return size > 0 && size < 0.001 ? value.toExponential(2).replace("e-", "e−") : String(Number(value.toPrecision(4)));
}

// 12,345 in full; from ten million on 124.4 M.
export function short(value) {
  if (value < 10e6) return count(value);
  const [size, letter] = value >= 1e9 ? [1e9, "B"] : [1e6, "M"];
  return `${Number((value / size).toPrecision(4))} ${letter}`;
}

// All labels of an axis have one unit, that of the largest.
export function compact(ticks) {
  const largest = Math.max(...ticks.map(Math.abs));
  const [unit, letter] = [[1e9, " B"], [1e6, " M"], [1e3, " k"]].find(([size]) => largest >= 10 * size) ?? [1, ""];
  return ticks.map((value) => {
    const size = Math.abs(value);
    if (size > 0 && size < 0.001) return value.toExponential().replace("e-", "e−");
    return `${Number((value / unit).toPrecision(4))}${value === 0 ? "" : letter}`;
  });
}

// A duration in its two largest units.
export function duration(seconds) {
  if (seconds < 9.95) return `${Number(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const i = units.findIndex(([, size]) => whole >= size);
  const [[name, size], [next, part]] = [units[i], units[i + 1]];
  const rest = Math.floor(whole % size / part);
  return rest ? `${Math.floor(whole / size)} ${name} ${rest} ${next}` : `${Math.floor(whole / size)} ${name}`;
}

// Round values between `low` and `high`, about `wanted` of them: 1, 2 and 5 times powers of ten, or equally far apart
// where the range is less than a decade.
export function logTicks(low, high, wanted) {
  const ticks = [];
  if (high / low < 10) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((size) => size * power).find((size) => size >= rough);
    for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(i * step);
    return ticks;
  }
  const sizes = high / low < 1000 ? [1, 2, 5] : [1];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
    ticks.push(...sizes.map((size) => size * 10 ** power).filter((tick) => tick >= low && tick <= high));
  }
  return ticks;
}
