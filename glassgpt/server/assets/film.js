// The checkpoints of a run as a slider, with play: time is an axis of every view.
import { html, useEffect, useRef, useState } from "glass/dom.js";
import { useKeys } from "glass/inside.js";
import { saved } from "glass/saved.js";
import { change, number, read } from "glass/state.js";

const FRAME = 120;  // milliseconds for which a checkpoint is shown at least: 8 a second

export const films = new Set();  // those on the page: references to {run, steps, step, show(index)}

// `step` is the checkpoint on the page; the address may already ask for another. `name` is the parameter of the address: a
// second slider of the same page has another, and no keys.
export function Film({ run, step, ask, name = "step" }) {
  const steps = useOffered(run.steps, ask);
  const shown = steps.indexOf(step);  // -1 in a link to a checkpoint that has been removed since
  const asked = steps.indexOf(number(read().params, name));
  const at = Math.max(0, asked < 0 ? shown : asked);  // the slider does not wait for the answer, or it would jump back
  const [playing, setPlaying] = useState(false);
  const current = useRef({});
  const show = (index) => change({ [name]: steps[index] });
  current.current = { at, ask, run, steps, step, show };
  useEffect(() => {
    films.add(current);
    return () => films.delete(current);
  }, []);

  useEffect(() => {
    if (!playing) return undefined;
    let stopped = false;
    const play = async () => {
      let index = current.current.at + 1 < steps.length ? current.current.at + 1 : 0;
      const prepare = () => (index < steps.length ? current.current.ask(steps[index]).then(() => true, () => false) : null);
      let ready = prepare();
      while (await ready && !stopped) {
        show(index);
        index += 1;
        ready = prepare();  // while this frame is painted
        await new Promise((done) => setTimeout(done, FRAME));
      }
      if (!stopped) setPlaying(false);
    };
    play();
    return () => { stopped = true; };
  }, [playing]);

  const move = (distance) => {
    setPlaying(false);
    show(Math.max(0, Math.min(steps.length - 1, at + distance)));
  };
  useKeys(name === "step" ? { "[": () => move(-1), "]": () => move(1), " ": () => setPlaying((now) => !now) } : {});
  if (steps.length === 1 && shown < 0) return html`<div class="film row"><button onClick=${() => show(0)}>show step ${steps[0].toLocaleString("en")}, the only checkpoint</button></div>`;
  if (steps.length < 2) return html`<p class="film quiet">step ${step.toLocaleString("en")}, the only checkpoint${saved && " of this saved page"}</p>`;
  return html`<div class="film row">
    <button onClick=${() => setPlaying(!playing)} aria-label=${playing ? "pause" : "play all checkpoints"}>${playing ? "❚❚" : "▶"}</button>
    <input type="range" min="0" max=${steps.length - 1} value=${at} aria-label="checkpoint" aria-valuetext=${`step ${steps[at]}`}
      onInput=${(event) => { setPlaying(false); show(Number(event.target.value)); }} />
    <span class="mono">step ${step.toLocaleString("en")}</span>
    <span class="quiet">${shown >= 0 ? `${shown + 1} of` : "not one of the"} ${steps.length} ${saved && "saved "}checkpoints${step === run.best_step ? ", the best" : ""}</span>
  </div>`;
}

// The checkpoints that can be shown: all, or in a saved page those that it holds.
function useOffered(steps, ask) {
  const [held, hold] = useState([]);
  useEffect(() => {
    if (!saved) return undefined;
    let current = true;
    Promise.allSettled(steps.map(ask)).then((found) => {
      const offered = steps.filter((_, index) => found[index].status === "fulfilled");
      if (current) hold((before) => (before.join() === offered.join() ? before : offered));
    });
    return () => { current = false; };
  });
  return saved ? held : steps;
}
