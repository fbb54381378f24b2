// Loads the runs that a page shows, and follows them while they train.
import { useEffect, useReducer, useRef } from "glass/dom.js";
import { askAgain } from "glass/api.js";
import { Figures } from "glass/columns.js";
import { show } from "glass/record.js";
import { saved } from "glass/saved.js";

const QUIET_SECONDS = 60;  // without a figure: the run counts as stopped
const RETRY_MILLISECONDS = 2000;  // until a run that could not be read is asked for again
const LONGEST_WAIT = 10_000;  // milliseconds between two attempts to connect

const place = (id) => `/api/runs/${encodeURIComponent(id)}`;

// What is known of one run.
class Shown {
  constructor(id) {
    Object.assign(this, { id, details: null, figures: null, references: null, error: null, heard: 0 });
  }

  // training, finished, stopped, imported or damaged, by what has been heard since the page was opened.
  get state() {
    const { state } = this.details;
    if (state === "imported" || state === "damaged") return state;
    if (this.figures.finished) return "finished";
    if (this.heard) return Date.now() - this.heard < QUIET_SECONDS * 1000 ? "training" : "stopped";
    return state === "finished" ? "stopped" : state;
  }

  get step() {
    return Math.max(this.figures.lastStep, this.details.step ?? -1);
  }
}

// {runs: [Shown] in the order of ids, connected}. `onRuns` is called with the names of all runs, at first and when they change.
export function useLive(ids, onRuns) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const kept = useRef(new Map());  // id -> Shown
  const [generation, connectAgain] = useReducer((count) => count + 1, 0);
  const connected = useRef(true);
  const listed = useRef(null);  // the names of all runs, once the stream has said them
  const tell = useRef(onRuns);
  tell.current = onRuns;
  const key = JSON.stringify(ids);

  async function load(id) {
    const run = new Shown(id);
    const before = kept.current.get(id);
    if (!before) kept.current.set(id, run);
    try {
      const [details, metrics] = await Promise.all([askAgain(place(id)), askAgain(`${place(id)}/metrics`)]);
      Object.assign(run, { details, figures: new Figures(metrics) });
    } catch (error) {
      run.error = error.message;
    }
    kept.current.set(id, run);
    redraw();
    connectAgain();
    askAgain(`${place(id)}/references`).then((references) => { run.references = references; redraw(); }, () => {});
  }

  // A run that is gone is not asked for: the page would ask without end until the new list of runs has come.
  useEffect(() => {
    for (const id of ids) if (!kept.current.has(id) && (listed.current?.includes(id) ?? true)) load(id);
  });
  useEffect(() => {
    const hides = ids.flatMap((id) => ["", "/metrics", "/references"].map((end) => show(place(id) + end)));
    return () => { for (const hide of hides) hide(); };
  }, [key]);

  // Marks alone grow old: a run that is quiet for long counts as stopped.
  useEffect(() => {
    const timer = setInterval(redraw, 10_000);
    return () => clearInterval(timer);
  }, []);

  useEffect(() => {
    if (saved) return undefined;
    const runs = ids.map((id) => kept.current.get(id));
    if (runs.some((run) => !run || (!run.figures && !run.error))) return undefined;  // it comes when they are loaded
    let source = null, timer = null, wait = 1000;
    const followed = runs.filter((run) => run.figures);
    const say = (is) => { if (connected.current !== is) { connected.current = is; redraw(); } };

    function open() {
      const query = new URLSearchParams();
      for (const { id, figures, details } of followed) {
        query.append("run", id);
        query.append("figures", figures.mark);
        query.append("samples", details.samples_mark);
      }
      source = new EventSource(`/api/live?${query}`);
      source.onopen = () => { wait = 1000; say(true); };
      source.onerror = () => {
        source.close();
        say(false);
        timer = setTimeout(open, wait);
        wait = Math.min(wait * 2, LONGEST_WAIT);
      };
      const on = (name, act) => source.addEventListener(name, (event) => {
        const data = JSON.parse(event.data), run = kept.current.get(data.run);
        if (!run && name !== "runs") return;  // of a run that is gone: `runs` has said so
        act(data, run);
        redraw();
      });
      on("figures", ({ lines, mark }, run) => {
        const ended = run.figures.finished;
        run.figures.add(lines, mark);
        run.heard = Date.now();
        if (run.figures.finished && !ended) {  // now it has final figures and perhaps a verdict
          const keep = ({ samples, samples_mark }) => ({ samples, samples_mark });  // the stream tells those
          askAgain(place(run.id)).then((details) => { run.details = { ...details, ...keep(run.details) }; redraw(); }, () => {});
        }
      });
      on("sample", ({ step, prompt, text, mark }, run) => {
        run.details = { ...run.details, samples: [...run.details.samples, { step, prompt, text }], samples_mark: mark };
      });
      on("again", (_, run) => {
        source.close();  // what comes now belongs to the new file; the stream goes on once that is read
        load(run.id);
      });
      on("runs", ({ ids: names }) => {
        listed.current = names;
        for (const [id, run] of kept.current) {
          if (!names.includes(id)) kept.current.delete(id);  // read anew if it comes back
          else if (run.error) timer = setTimeout(() => load(id), RETRY_MILLISECONDS);
        }
        tell.current(names);
      });
    }
    // A page that nobody sees costs nothing, and goes on where it stopped.
    const look = () => {
      source?.close();
      clearTimeout(timer);
      if (!document.hidden) open();
    };
    document.addEventListener("visibilitychange", look);
    look();
    return () => {
      document.removeEventListener("visibilitychange", look);
      source?.close();
      clearTimeout(timer);
    };
  }, [key, generation]);

  return { runs: ids.map((id) => kept.current.get(id)).filter(Boolean), connected: connected.current };
}
