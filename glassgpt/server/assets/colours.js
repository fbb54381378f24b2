// The colours of numbers. The ends of each scale are custom properties in glass.css, one set for each theme.

// One hue, from nothing to `most`: how much a token surprised the model. It stops before text on it is hard to read.
export function lossColour(loss, most = 8) {
  if (!Number.isFinite(loss)) return "transparent";
  const part = Math.max(0, Math.min(1, loss / most));
  return `color-mix(in oklab, var(--loss-high) calc(var(--loss-most) * ${part.toFixed(3)}), var(--loss-low))`;
}

// Two hues around 0: what an edit, or one part of the model, adds or takes away. `share` is from -1 to 1.
export function signedColour(share) {
  const strength = Math.round(56 * Math.min(1, Math.abs(share)));
  return `color-mix(in oklab, var(${share < 0 ? "--removed" : "--added"}) ${strength}%, var(--ground))`;
}

// One hue, from nothing to all: attention, and the activation of a neuron. Text on it stays easy to read.
export function shareColour(share) {
  return `color-mix(in oklab, var(--attention) ${Math.round(50 * Math.max(0, Math.min(1, share || 0)))}%, var(--ground))`;
}

// 256 colours as RGBA bytes, for the cells of attention maps.
let palette = null;
export function attentionPalette() {
  if (palette) return palette;
  const style = getComputedStyle(document.documentElement);
  const [low, high] = ["--map-low", "--map-high"].map((name) => style.getPropertyValue(name).split(",").map(Number));
  palette = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(palette.buffer);
  for (let value = 0; value < 256; value++) {
    const part = Math.pow(value / 255, 0.7);  // small weights would be invisible on a straight scale
    for (let channel = 0; channel < 3; channel++) bytes[4 * value + channel] = low[channel] + part * (high[channel] - low[channel]);
    bytes[4 * value + 3] = 255;
  }
  return palette;
}
const forget = () => { palette = null; };
addEventListener("themechange", forget);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { forget(); dispatchEvent(new Event("themechange")); });
