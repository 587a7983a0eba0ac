// A figure's data as a table and as a CSV file. A column: [name, label, kind, values].
const MOST_ROWS = 500;

function formatted(value, kind) {
  if (value === null || value === undefined) return "–";
  if (kind === "text") return value;
  if (kind === "share") return `${(100 * value).toLocaleString("en", { maximumFractionDigits: 2 })}%`;
  if (kind === "count" || kind === "bytes") return value.toLocaleString("en", { maximumFractionDigits: 1 });
  const text = value.toLocaleString("en", { maximumSignificantDigits: 5 });
  return kind === "seconds" ? `${text} s` : text;
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function dataTable({ title, columns }, container) {
  const table = element("table");
  const num = columns.length ? columns[0][3].length : 0;
  const caption = num > MOST_ROWS ? `${title}: the first ${MOST_ROWS} of ${num.toLocaleString("en")} rows; the CSV file has all` : title;
  table.createCaption().append(element("span", caption));
  const head = table.createTHead().insertRow();
  for (const [, label, kind] of columns) head.append(element("th", label, { scope: "col", class: kind === "text" ? "" : "num" }));
  const body = table.createTBody();
  for (let i = 0; i < Math.min(num, MOST_ROWS); i++) {
    const row = body.insertRow();
    for (const [, , kind, values] of columns) row.append(element("td", formatted(values[i], kind), { class: kind === "text" ? "" : "num" }));
  }
  const scroll = element("div", undefined, { class: "scroll bounded", tabindex: "0", role: "region", "aria-label": `${title}, table` });
  scroll.append(table);
  container.replaceChildren(scroll);
}

function csvText(columns) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would take such a text for a formula.
    if (typeof value === "string" && /^'*[=+@\t\r-]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns.map(([name]) => cell(name)).join(",")];
  const num = columns.length ? columns[0][3].length : 0;
  for (let i = 0; i < num; i++) lines.push(columns.map(([, , , values]) => cell(values[i])).join(","));
  return lines.join("\n") + "\n";
}

function downloadCsv(fileName, columns) {
  const link = element("a", undefined, {
    href: URL.createObjectURL(new Blob([csvText(columns)], { type: "text/csv" })),
    download: fileName,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
