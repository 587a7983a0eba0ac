// The tables behind the figures: [name, label, kind, values] per column, made when a reader asks for them.
const UNIT_ENDINGS = { s: "_s", bytes: "_bytes", "bit/s": "_bps" };

function axisColumns(rows) {
  return DATA.axes.flatMap(({ name, unit, texts, numbers }, i) => {
    const values = rows.map((row) => (numbers || texts)[DATA.places[i][row]]);
    const label = unit ? `${name} (${unit})` : name;
    return [[name + (UNIT_ENDINGS[unit] || ""), label, numbers ? "number" : "text", values]];
  });
}

const nameOf = (index) => (index === undefined ? null : DATA.cases[index].name);
const atCase = (target, name, index, row) => (index === undefined ? null : timeOf(target, name, index, row));

function scenarioColumns(target, rows) {
  const orders = rows.map((row) => ranking(target, row));
  const first = (name) => orders.map(([index], i) => atCase(target, name, index, rows[i]));
  const margin = orders.map(([one, two], i) => (two === undefined ? null : target.median[two][rows[i]] / target.median[one][rows[i]]));
  return [
    ...axisColumns(rows),
    ["fastest", "Fastest", "text", orders.map(([index]) => nameOf(index))],
    ["time_s", "Time", "seconds", first("median")],
    ["low_s", "95% from", "seconds", first("low")],
    ["high_s", "95% to", "seconds", first("high")],
    ["next", "Next", "text", orders.map(([, index]) => nameOf(index))],
    ["margin", "Next takes (times)", "number", margin],
    ["probability", "Comes first", "share", rows.map((row) => target.probability[row])],
    ...DATA.cases.map(({ name }, index) => [`${name}: time_s`, name, "seconds", rows.map((row) => target.median[index][row])]),
  ];
}

function gainColumns(target, rows) {
  if (!DATA.bothKinds) return scenarioColumns(target, rows);
  const kind = (local) => DATA.cases.flatMap((one, index) => (one.local === local ? [index] : []));
  const [local, hsgd] = [true, false].map((which) => rows.map((row) => ranking(target, row, kind(which))[0]));
  const times = (best) => best.map((index, i) => atCase(target, "median", index, rows[i]));
  const [localTimes, hsgdTimes] = [times(local), times(hsgd)];
  const gain = rows.map((_, i) => (localTimes[i] === null || hsgdTimes[i] === null ? null : localTimes[i] / hsgdTimes[i]));
  return [
    ...axisColumns(rows),
    ["local_sgd", "Best local SGD", "text", local.map(nameOf)],
    ["local_sgd_time_s", "Time", "seconds", localTimes],
    ["h_sgd", "Best H-SGD", "text", hsgd.map(nameOf)],
    ["h_sgd_time_s", "Time", "seconds", hsgdTimes],
    ["gain", "Local SGD takes (times)", "number", gain],
  ];
}

function chartColumns(target, rows) {
  const pairs = DATA.cases.flatMap((_, index) => rows.map((row) => [index, row]));
  const table = (name) => pairs.map(([index, row]) => timeOf(target, name, index, row));
  return [
    ["case", "Case", "text", pairs.map(([index]) => nameOf(index))],
    ...axisColumns(pairs.map(([, row]) => row)),
    ["median_s", "Median", "seconds", table("median")],
    ["low_s", "95% from", "seconds", table("low")],
    ["high_s", "95% to", "seconds", table("high")],
    ["q10_s", "10% quantile", "seconds", table("q10")],
    ["q90_s", "90% quantile", "seconds", table("q90")],
  ];
}

function spreadColumns(target, row) {
  const rows = DATA.cases.flatMap((_, index) => SPREAD.trials.map((trial, n) => [index, ...trial, SPREAD.times[target][row][index][n]]));
  const column = (at) => rows.map((one) => one[at]);
  const axes = DATA.axes.map(({ name, unit, texts, numbers }, i) => {
    const value = (numbers || texts)[SPREAD.places[row][i]];
    return [name + (UNIT_ENDINGS[unit] || ""), unit ? `${name} (${unit})` : name, numbers ? "number" : "text", rows.map(() => value)];
  });
  return [
    ["case", "Case", "text", column(0).map(nameOf)],
    ["seed", "Seed", "count", column(1)],
    ["replication", "Replication", "count", column(2)],
    ["time_s", "Time", "seconds", column(3)],
    ...axes,
  ];
}

// The table of a figure as it stands now.
function columnsOf(which) {
  const target = DATA.targets[state.target];
  if (which === "tornado") return figureOf(plots.find((plot) => plot.dataset.map === which)).columns;
  if (which === "spread") return spreadColumns(state.target, chosenRow());
  const rows = which.startsWith("cloud") ? DATA.places[0].map((_, row) => row) : drawnRows(which);
  if (which === "chart") return chartColumns(target, rows);
  return which.endsWith("gain") ? gainColumns(target, rows) : scenarioColumns(target, rows);
}

function drawnRows(which) {
  const mine = plots.filter((plot) => plot.dataset.map === which).map((plot) => figureOf(plot).data);
  return mine.flatMap((data) => data.find((trace) => trace.customdata).customdata.flat().map(rowOf));
}

function titleOf(details) {
  const where = details.dataset.table === "spread" ? `, ${SPREAD.titles[chosenRow()]}` : "";
  return `${details.dataset.title}: time to ${DATA.targets[state.target].label}${where}`;
}

const tables = [...document.querySelectorAll("[data-table]")];
function fillTable(details) {
  if (details.open) dataTable({ title: titleOf(details), columns: columnsOf(details.dataset.table) }, details.lastElementChild);
}
for (const details of tables) details.addEventListener("toggle", () => fillTable(details));

for (const button of document.querySelectorAll("[data-csv]")) {
  button.addEventListener("click", () => downloadCsv(`${button.dataset.csv}.csv`, columnsOf(button.dataset.csv)));
}
