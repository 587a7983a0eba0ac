const ids = Object.keys(FIGURES);
for (const id of ids) {
  const { data, layout } = FIGURES[id];
  Plotly.newPlot(id, data, layout, CONFIG);
}

// One key for all figures: each trace carries its case's index in `meta`.
for (const button of document.querySelectorAll("[data-case]")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const id of ids) {
      const traces = document.getElementById(id).data;
      const mine = traces.flatMap((trace, i) => (String(trace.meta) === button.dataset.case ? [i] : []));
      Plotly.restyle(id, { visible: shown }, mine);
    }
  });
}

for (const button of document.querySelectorAll("[data-axis]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-axis]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    for (const id of ids.filter((id) => id.endsWith("-time"))) {
      Plotly.relayout(id, {
        "xaxis.type": button.dataset.axis,
        "xaxis.dtick": button.dataset.axis === "log" ? "D2" : null,
        "xaxis.autorange": true,
      });
    }
  });
}
