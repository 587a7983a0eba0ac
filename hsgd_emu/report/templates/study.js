// What the reader has picked: the target, one value of each axis that is not drawn, the sides of a cloud, whose time the
// tornado shows, and the scenario whose trials are shown.
const state = { target: START, picks: {}, x: 0, y: 1, subject: "0", choice: {} };
const plots = [...document.querySelectorAll("[data-map]")];
const NARROW_PX = 520;

function figureOf(plot) {
  const which = plot.dataset.map;
  const picked = Object.values(state.picks);
  const key = which === "tornado" ? state.subject : plot.dataset.key.replace(/\*/g, () => picked.shift());
  const { layout, first, [state.target]: figures } = FIGURES[which];
  const figure = figures[key];
  const data = figure.data.map((trace, i) => (i ? trace : { ...first, ...trace }));
  return { ...figure, data, layout: { ...layout, ...figure.layout } };
}

// --- what is put into each kind of figure -----------------------------------------------------------

function putHovers(data) {
  const words = (at) => (Array.isArray(at) ? at.map(words) : hover(state.target, at));
  for (const trace of data) if (trace.customdata) trace.hovertext = words(trace.customdata);
}

function putCloud(data, layout) {
  for (const side of ["x", "y"]) {
    const axis = CLOUD_AXES[state[side]];
    for (const trace of data) trace[side] = trace.customdata.map((at) => axis.at[at]);
    layout[`${side}axis`] = structuredClone(axis.layout);
  }
}

// Room for the labels at the ends of the bars, whatever the width of the page.
function putTornado(data, layout, width) {
  if (!layout.meta) return;
  const shares = layout.meta.characters.map((num) => Math.min((7.5 * num + 22) / Math.max(width - 24, 1), 0.36));
  const [low, high] = layout.meta.ends;
  const whole = (high - low || Math.abs(high) || 1) / (1 - shares[0] - shares[1]);
  layout.xaxis.range = [low - shares[0] * whole, high + shares[1] * whole];
}

function chosenRow() {
  const chosen = Object.entries(state.choice);
  if (!chosen.length) return 0;
  if (chosen[0][0] === "-1") return chosen[0][1];
  return SPREAD.places.findIndex((places) => chosen.every(([axis, value]) => places[axis] === value));
}

const MOST_DOTS = 400;
function dotsOf(times) {
  const known = times.flatMap((time, trial) => (time === null ? [] : [trial])).sort((a, b) => times[a] - times[b]);
  const num = Math.min(known.length, MOST_DOTS);
  return Array.from({ length: num }, (_, i) => known[Math.floor(((i + 0.5) * known.length) / num)]);
}

function spreadHead(index, times, [median, , , q10, q90], width) {
  const never = times.filter((time) => time === null).length;
  const name = DATA.cases[index].name;
  const short = name.length > 34 ? `${name.slice(0, 16)}…${name.slice(-17)}` : name;
  const head = [`<b>${literal(short)}</b>`];
  const notes = [];
  if (never < times.length) head.push(`median ${seconds(median)}`);
  if (q10 !== null && q10 !== q90) notes.push(`10% to 90% of trials: ${q90 === null ? seconds(q10) : number(q10, 3)} to ${seconds(q90)}`);
  if (never) notes.push(`never in ${never} of ${times.length}`);
  return width < NARROW_PX ? `${head.join("  ")}<br>${notes.join(" · ")}` : [...head, ...notes].join("  ·  ").replace("  ·  ", "  ");
}

function putSpread(data, layout, width) {
  const row = chosenRow();
  const [times, stats] = [SPREAD.times[state.target][row], SPREAD.stats[state.target][row]];
  const known = times.flat().filter((time) => time !== null);
  const latest = Math.max(...known);
  for (const trace of data) {
    const [part, index] = trace.meta;
    const [median, low, high, q10, q90] = stats[index];
    const middle = DATA.cases.length - 1 - index;
    const name = literal(DATA.cases[index].name);
    if (part === "dots") {
      const dots = dotsOf(times[index]);
      trace.x = dots.map((trial) => times[index][trial]);
      // Side by side as far as there is room; the golden ratio spreads neighbours.
      trace.y = dots.map((_, i) => middle - 0.32 + 0.2 * (((i * 0.618034) % 1) - 0.5));
      trace.hovertext = dots.map((trial) => {
        const [seed, replication] = SPREAD.trials[trial];
        return `${name}<br>seed ${seed}, replication ${replication}: ${seconds(times[index][trial])}`;
      });
      continue;
    }
    const ends = { range: [q10, q90], interval: [low, high], median: [median] }[part];
    // To never: as far as there is anything.
    trace.x = ends[0] === null ? [] : ends.map((end) => (end === null ? latest : end));
    trace.y = trace.x.map(() => middle - 0.08);
    if (part !== "median") trace.marker.size = ends.map((end) => (end === null ? 12 : 0));
    const said = {
      range: `10% to 90% of trials: ${seconds(q10)} to ${seconds(q90)}`,
      interval: `95% interval of the median: ${seconds(low)} to ${seconds(high)}`,
      median: `median: ${seconds(median)}`,
    }[part];
    trace.hovertext = trace.x.map(() => `${name}<br>${said}`);
  }
  layout.annotations.forEach((head, index) => (head.text = spreadHead(index, times[index], stats[index], width)));
  if (known.length && latest > 4 * Math.min(...known)) Object.assign(layout.xaxis, { type: "log", dtick: "D2" });
  return SPREAD.texts[state.target][row];
}

// --- drawing ----------------------------------------------------------------------------------------

function drawOne(plot) {
  const which = plot.dataset.map;
  const figure = figureOf(plot);
  // plotly writes into what it is given.
  const { data, layout } = structuredClone({ data: figure.data, layout: figure.layout });
  let text = figure.text;
  if (which === "tornado") putTornado(data, layout, plot.clientWidth);
  else if (which === "spread") text = putSpread(data, layout, plot.clientWidth);
  else putHovers(data);
  if (which.startsWith("cloud")) putCloud(data, layout);
  Plotly.react(plot, data, layout, CONFIG);
  plot.closest("figure").querySelector("figcaption").textContent = text;
}

function draw(kinds = () => true) {
  plots.filter((plot) => kinds(plot.dataset.map)).forEach(drawOne);
  tables.forEach(fillTable);
}

// --- what the reader can pick -----------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    state.target = Number(button.dataset.show);
    for (const other of document.querySelectorAll("[data-show]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    for (const block of document.querySelectorAll("[data-target]")) {
      block.hidden = block.dataset.target !== button.dataset.show;
    }
    draw();
  });
}

// The same choice may stand above several groups of figures.
function follow(name, put, kinds) {
  const lists = [...document.querySelectorAll(`[data-${name}]`)];
  for (const list of lists) {
    put(list);
    list.addEventListener("change", () => {
      for (const other of lists) if (other.dataset[name] === list.dataset[name]) other.value = list.value;
      put(list);
      draw(kinds);
    });
  }
}
const oneOf = (...names) => (which) => names.includes(which);
follow("pick", (list) => (state.picks[list.dataset.pick] = list.value), oneOf("best", "gain"));
follow("side", (list) => (state[list.dataset.side] = Number(list.value)), oneOf("cloud", "cloud-gain"));
follow("subject", (list) => (state.subject = list.value), oneOf("tornado"));
follow("choice", (list) => (state.choice[list.dataset.choice] = Number(list.value)), oneOf("spread"));

let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => draw(oneOf("tornado", "spread")), 200);
});

// On paper nothing can be opened.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details[data-print]:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});

draw();
