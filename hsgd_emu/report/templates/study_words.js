// What is said of a scenario, out of DATA. A time of null is never.
function number(value, digits) {
  if (value === 0) return "0";
  return Math.abs(value) >= 10 ** (digits - 1) ? Math.round(value).toLocaleString("en") : value.toPrecision(digits);
}
const seconds = (value) => (value === null ? "never" : `${number(value, 3)} s`);
const percent = (share) => `${Math.round(100 * share)}%`;
// plotly takes tags for markup: names are shown as they are.
const literal = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const rowOfScenario = DATA.scenarios && new Map(DATA.scenarios.map((scenario, row) => [scenario, row]));
const rowOf = (scenario) => (rowOfScenario ? rowOfScenario.get(scenario) : scenario);
const timeOf = (target, name, index, row) => (target[name] || target.median)[index][row];

// The indices of the cases that reach the target, the fastest first; of equals the earlier one.
function ranking(target, row, among = DATA.cases.map((_, index) => index)) {
  const reached = among.filter((index) => target.median[index][row] !== null);
  return reached.sort((a, b) => target.median[a][row] - target.median[b][row] || a - b);
}

function place(row) {
  return DATA.axes.map(({ name, texts }, i) => `${name} ${texts[DATA.places[i][row]]}`).join(", ") || "the run as it is";
}

function intervalText(target, index, row) {
  const [low, high] = [timeOf(target, "low", index, row), timeOf(target, "high", index, row)];
  return low === high ? "" : ` (${number(low, 3)} to ${high === null ? "never" : number(high, 3)})`;
}

function howSure(target, row, [first, second]) {
  if (second === undefined) return [];
  const margin = target.median[second][row] / target.median[first][row];
  const name = DATA.cases[second].name;
  const probability = target.probability[row];
  return [
    margin < 1.005 ? `as good as ${name}` : `${number(margin, 3)} times less than ${name}`,
    ...(probability === null ? [] : [`first in ${percent(probability)} of matched trials`]),
  ];
}

const MOST_NAMED = 8;
function hover(targetNumber, scenario) {
  const target = DATA.targets[targetNumber];
  const row = rowOf(scenario);
  const order = ranking(target, row);
  const lines = order.slice(0, MOST_NAMED).map((index, rank) => {
    const text = literal(`${DATA.cases[index].name}: ${seconds(target.median[index][row])}${intervalText(target, index, row)}`);
    return rank ? text : `<b>${text}</b>`;
  });
  if (order.length > MOST_NAMED) lines.push(`and ${order.length - MOST_NAMED} more`);
  const never = DATA.cases.filter((_, index) => !order.includes(index)).map(({ name }) => name);
  if (never.length) lines.push(literal(`not reached: ${never.slice(0, MOST_NAMED).join(", ")}`));
  return [literal(place(row)), ...lines, ...howSure(target, row, order).map(literal)].join("<br>");
}
