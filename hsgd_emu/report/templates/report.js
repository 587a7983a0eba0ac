// What the reader has chosen: of each figure the picture, its scale and its zoom; and the cases that are hidden.
const hidden = new Set();
const chosen = {};
const ids = Object.keys(FIGURES).filter((id) => FIGURES[id].first !== null);
for (const id of ids) chosen[id] = { key: FIGURES[id].first.split(" "), scale: "linear" };

// {"$": [column, start, end]} stands for a part of a column of the figure's data, {"$rows": [...]} for several by row.
function resolved(value, columns) {
  if (Array.isArray(value)) return value.map((inner) => resolved(inner, columns));
  if (value === null || typeof value !== "object") return value;
  if (value.$rows) {
    const given = resolved(value.$rows, columns);
    return given[0].map((_, i) => given.map((column) => column[i]));
  }
  if (value.$) return columns[value.$[0]].slice(value.$[1], value.$[2]);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, resolved(inner, columns)]));
}

function draw(id) {
  const figure = FIGURES[id];
  const { key, scale, range } = chosen[id];
  const { data, layout, text } = figure.pictures[key.join(" ")];
  const columns = Object.fromEntries(figure.columns.map(([name, , , values]) => [name, values]));
  const traces = resolved(data, columns);
  for (const trace of traces) if (hidden.has(trace.meta)) trace.visible = false;
  const shown = resolved(layout, columns);
  if (scale === "log") shown.xaxis = { ...shown.xaxis, type: "log", dtick: "D2", rangemode: "normal" };
  if (range) shown.xaxis = { ...shown.xaxis, range: [...range], autorange: false };
  // A finger on a picture scrolls the page; a mouse may drag.
  if (document.querySelector(`[data-zoom="${id}"]`) && matchMedia("(pointer: fine)").matches) shown.dragmode = "pan";
  const plot = document.getElementById(id);
  Plotly.react(plot, traces, shown, CONFIG);
  plot.setAttribute("aria-label", `${figure.title}. ${text}`);
  document.getElementById(`${id}-text`).textContent = text;
}

function press(button) {
  for (const other of button.parentElement.querySelectorAll("button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
}

function onButtons(group, act) {
  for (const button of group.querySelectorAll("button")) button.addEventListener("click", () => act(button));
}

for (const group of document.querySelectorAll("[data-switch]")) {
  onButtons(group, (button) => {
    press(button);
    chosen[group.dataset.switch].key[group.dataset.place] = button.dataset.key;
    chosen[group.dataset.switch].range = undefined;
    draw(group.dataset.switch);
  });
}

for (const group of document.querySelectorAll("[data-scale]")) {
  onButtons(group, (button) => {
    press(button);
    chosen[group.dataset.scale].scale = button.dataset.key;
    draw(group.dataset.scale);
  });
}

for (const group of document.querySelectorAll("[data-zoom]")) {
  onButtons(group, (button) => {
    const id = group.dataset.zoom;
    const [low, high] = document.getElementById(id).layout.xaxis.range;
    const width = high - low;
    const moved = {
      in: [low + width / 4, high - width / 4],
      out: [low - width / 2, high + width / 2],
      earlier: [low - width / 3, high - width / 3],
      later: [low + width / 3, high + width / 3],
    };
    chosen[id].range = moved[button.dataset.key];
    draw(id);
  });
}

// One key for all figures: each trace carries its case's index in `meta`.
for (const button of document.querySelectorAll("[data-case]")) {
  button.addEventListener("click", () => {
    const index = Number(button.dataset.case);
    const show = hidden.delete(index);
    if (!show) hidden.add(index);
    button.setAttribute("aria-pressed", String(show));
    ids.forEach(draw);
  });
}

for (const details of document.querySelectorAll("[data-table]")) {
  details.addEventListener("toggle", () => {
    if (details.open) dataTable(FIGURES[details.dataset.table], details.querySelector("div"));
  });
}

for (const button of document.querySelectorAll("[data-csv]")) {
  button.addEventListener("click", () => downloadCsv(`${button.dataset.csv}.csv`, FIGURES[button.dataset.csv].columns));
}

// On paper the figures are as wide as the paper, not as the window, and what is folded is shown.
const folded = [...document.querySelectorAll("details:not([data-table])")];
let opened = [];
addEventListener("beforeprint", () => {
  opened = folded.filter((details) => !details.open);
  for (const details of opened) details.open = true;
  for (const id of ids) Plotly.relayout(id, { width: 660 });
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
  for (const id of ids) Plotly.relayout(id, { width: null, autosize: true });
});

ids.forEach(draw);
